"""The data set loads nuclei as they are, and says what it cannot use."""

import json

import cv2
import numpy as np
import pytest

from nucseg_mmdet.datasets.nuclei_dataset import NucleiDataset
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


def test_nuclei_and_how_many_were_skipped(tmp_path):
    write(tmp_path)
    dataset = load(tmp_path)
    (instance,) = dataset.get_data_info(0)['instances']
    assert np.allclose(instance['bbox'], [2, 2, 6, 6])
    assert instance['mask'] == [[2, 2, 6, 2, 6, 6, 2, 6]]
    assert dataset.num_skipped == 1


def test_missing_image(tmp_path):
    write(tmp_path)
    (tmp_path / 'a.png').unlink()
    with pytest.raises(UserError, match=r'a\.png: no such image, listed in'):
        load(tmp_path)


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
