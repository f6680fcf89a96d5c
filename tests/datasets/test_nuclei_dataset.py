"""The data set loads nuclei as they are, and says what it cannot use."""

import json

import cv2
import numpy as np
import pytest

from nucseg_mmdet.datasets.nuclei_dataset import NucleiDataset
from nucseg_mmdet.structures.coco import load_shared_json
from nucseg_mmdet.utils.errors import UserError


def write(folder, **changes):
    """One image with two nuclei; the second is half a pixel thin."""
    nucleus = dict(
        id=1, image_id=1, category_id=1, iscrowd=0, area=16, bbox=[2, 2, 4, 4],
        segmentation=[[2, 2, 6, 2, 6, 6, 2, 6]],
    )  # fmt: skip
    thin = {**nucleus, 'id': 2, 'bbox': [8, 2, 0.5, 4]}
    truth = dict(
        images=[dict(id=1, file_name='a.png', height=20, width=20)],
        annotations=[{**nucleus, **changes}, thin],
        categories=[dict(id=1, name='nucleus')],
    )
    (folder / 'truth.json').write_text(json.dumps(truth))
    cv2.imwrite(str(folder / 'a.png'), np.full((20, 20, 3), 200, np.uint8))


def load(folder, **kwargs):
    return NucleiDataset(
        ann_file='truth.json',
        data_root=str(folder),
        data_prefix=dict(img=''),
        pipeline=[],
        **kwargs,
    )


def test_no_file_of_truth_is_refused():
    with pytest.raises(UserError, match='ann_file is None, expected the path'):
        NucleiDataset(ann_file=None, pipeline=[])


def test_nuclei_and_how_many_were_skipped(tmp_path):
    write(tmp_path)
    dataset = load(tmp_path)
    (instance,) = dataset.get_data_info(0)['instances']
    assert np.allclose(instance['bbox'], [2, 2, 6, 6])
    assert instance['mask'] == [[2, 2, 6, 2, 6, 6, 2, 6]]
    assert dataset.num_skipped == 1


def test_what_others_read_of_the_file_stays_as_it_is(tmp_path):
    """mmdet adds to the images that it is given."""
    write(tmp_path)
    shared = load_shared_json(tmp_path / 'truth.json')
    load(tmp_path)
    assert load_shared_json(tmp_path / 'truth.json') is shared
    assert shared == json.loads((tmp_path / 'truth.json').read_text())


def jpeg_with_zeros(data):
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    noise = np.random.default_rng(0).integers(0, 255, image.shape, np.uint8)
    jpeg = bytearray(cv2.imencode('.jpg', noise)[1].tobytes())
    middle = len(jpeg) // 2
    jpeg[middle : middle + 200] = bytes(200)
    return bytes(jpeg)


# mmdet reads the JPEG with a line of libjpeg's, and ends at the others when their turn comes.
DAMAGES = {
    'missing': (None, 'no such image, expected it as listed in'),
    'flipped': (lambda data: data[:50] + bytes([data[50] ^ 1]) + data[51:], "checksum of 'IDAT'"),
    'cut': (lambda data: data[:60], 'PNG without its end'),
    'jpeg': (jpeg_with_zeros, 'damaged JPEG'),
}


@pytest.mark.parametrize('test_mode', [True, False])
@pytest.mark.parametrize(('damage', 'message'), DAMAGES.values(), ids=DAMAGES)
def test_damaged_images_are_all_named_before_the_work(tmp_path, damage, message, test_mode):
    write(tmp_path)
    truth = json.loads((tmp_path / 'truth.json').read_text())
    truth['images'].append(dict(truth['images'][0], id=2, file_name='b.png'))
    (tmp_path / 'truth.json').write_text(json.dumps(truth))
    data = (tmp_path / 'a.png').read_bytes()
    (tmp_path / 'a.png').unlink()
    if damage:
        for name in ('a.png', 'b.png'):
            (tmp_path / name).write_bytes(damage(data))
    with pytest.raises(UserError) as error:
        load(tmp_path, test_mode=test_mode)
    for name, line in zip(('a.png', 'b.png'), str(error.value).splitlines(), strict=True):
        assert f'{tmp_path / name}: ' in line
        assert message in line


@pytest.mark.parametrize('test_mode', [True, False])
@pytest.mark.parametrize('size', [(20, 21), (21, 20), (10, 40)])
def test_truth_of_another_size_than_the_image(tmp_path, size, test_mode):
    write(tmp_path)
    cv2.imwrite(str(tmp_path / 'a.png'), np.full((*size, 3), 200, np.uint8))
    message = rf'a\.png: {size[1]} x {size[0]} px, expected 20 x 20 px as in .*truth\.json'
    with pytest.raises(UserError, match=message):
        load(tmp_path, test_mode=test_mode)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (dict(segmentation=dict(size=[20, 20], counts='abc')), 'annotation 1 has no polygons'),
        (dict(category_id=2), 'annotation 1 is of category 2, which is none .* config, nucleus'),
    ],
)
def test_truth_that_would_be_dropped(tmp_path, changes, message):
    write(tmp_path, **changes)
    with pytest.raises(UserError, match=message):
        load(tmp_path)


def test_truth_to_score_against_may_be_rle(tmp_path):
    write(tmp_path, segmentation=dict(size=[20, 20], counts='abc'))
    assert len(load(tmp_path, test_mode=True)) == 1
