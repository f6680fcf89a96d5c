"""Made-up images: exact masks, the class layout, and colors as in H&E."""

import json

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_mask
from skimage.color import rgb2hed
from skimage.measure import label as connected_parts

from nucseg_mmdet.synthetic import fields
from nucseg_mmdet.synthetic.fields import synthesize, write_dataset

NUM_TRAIN, NUM_TEST, SIZE = 2, 2, 96


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp('synthetic') / 'data'
    write_dataset(path, NUM_TRAIN, NUM_TEST, SIZE, seed=7)
    return path


def all_files(folder):
    paths = sorted(path for path in folder.rglob('*') if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


def read_png(path):
    return cv2.imread(str(path), cv2.IMREAD_UNCHANGED)


def test_same_seed_same_arrays_other_seed_others():
    img, labels = synthesize(3, 80, 96)
    again_img, again_labels = synthesize(3, 80, 96)
    other_img, other_labels = synthesize(4, 80, 96)
    assert (img.shape, img.dtype) == ((80, 96, 3), np.uint8)
    assert (labels.shape, labels.dtype) == ((80, 96), np.int32)
    np.testing.assert_array_equal(img, again_img)
    np.testing.assert_array_equal(labels, again_labels)
    assert (img != other_img).any()
    assert (labels != other_labels).any()


def test_global_random_state_neither_used_nor_changed():
    state = np.random.get_state()
    try:
        np.random.seed(1)
        before = np.random.get_state()
        first, _ = synthesize(5, 64, 64)
        after = np.random.get_state()
        np.random.seed(2)
        second, _ = synthesize(5, 64, 64)
    finally:
        np.random.set_state(state)
    np.testing.assert_array_equal(before[1], after[1])
    assert before[2:] == after[2:]
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize(
    ('seed', 'height', 'width', 'count'),
    [
        (0, 256, 256, None),
        (1, 128, 192, 60),  # crowded
        (2, 32, 32, None),  # the smallest
        (3, 64, 200, 500),  # more than there is room for
    ],
)
def test_nuclei_are_consecutive_connected_without_holes(seed, height, width, count):
    _, labels = synthesize(seed, height, width, count)
    present = np.unique(labels)
    np.testing.assert_array_equal(present, np.arange(present.size))
    assert 1 < present.size <= 1 + (count or 900)
    for index in present[1:]:
        mask = labels == index
        assert mask.sum() >= 20
        assert connected_parts(mask, connectivity=1).max() == 1
        # Around a nucleus without holes the rest of the plane is one piece.
        assert connected_parts(~np.pad(mask, 1), connectivity=1).max() == 1


def test_count_is_met_where_there_is_room():
    assert synthesize(0, 256, 256, 30)[1].max() == 30
    assert synthesize(0, 64, 64, 0)[1].max() == 0


def test_some_nuclei_touch():
    _, labels = synthesize(0, 256, 256, 60)
    left, right = labels[:, :-1], labels[:, 1:]
    touching = (left > 0) & (right > 0) & (left != right)
    pairs = {tuple(sorted(pair)) for pair in zip(left[touching], right[touching], strict=True)}
    assert len(pairs) >= 5


def test_size_range_as_at_40x():
    """Class images: median diameters 18 to 31 px, but 11 or 12 px in three of them."""
    diameters = []
    for seed in range(6):
        _, labels = synthesize(seed, 192, 192, 20)
        inside = np.unique(labels[1:-1, 1:-1])
        border = np.unique(np.r_[labels[0], labels[-1], labels[:, 0], labels[:, -1]])
        whole = np.setdiff1d(inside, border)
        diameters += [2 * np.sqrt((labels == index).sum() / np.pi) for index in whole]
    assert 15 < np.median(diameters) < 31
    assert min(diameters) > 5
    assert max(diameters) < 60
    assert np.percentile(diameters, 90) > 1.5 * np.percentile(diameters, 10)


@pytest.mark.parametrize('seed', range(5))
def test_nuclei_are_dark_and_blue(seed):
    img, labels = synthesize(seed, 192, 192)
    nuclei = labels > 0
    hematoxylin = rgb2hed(img)[..., 0]  # skimage's own Ruifrok and Johnston
    density = -np.log((img + 1.0) / 256)
    # Hematoxylin takes out red, eosin hardly does: bluer means a larger share of red.
    red_share = density[..., 0] / density.sum(-1)
    tissue = density.sum(-1) > 0.3  # the share means nothing where there is no dye
    assert img[nuclei].mean() < img[~nuclei].mean() - 25
    assert np.median(hematoxylin[nuclei]) > 2 * np.median(hematoxylin[~nuclei])
    assert np.median(red_share[nuclei]) > np.median(red_share[~nuclei & tissue]) + 0.05
    background = np.median(hematoxylin[~nuclei])
    per_nucleus = [hematoxylin[labels == index].mean() for index in range(1, labels.max() + 1)]
    assert min(per_nucleus) > background


def test_background_is_pink_and_white():
    """Eosin absorbs green most, red least; lumina and clefts let the light through."""
    density, brightest = [], 0
    for seed in range(5):
        img, labels = synthesize(seed, 192, 192)
        density.append(-np.log((img[labels == 0] + 1.0) / 256).mean(0))
        brightest = max(brightest, img.min(-1).max())
    red, green, blue = np.mean(density, axis=0)
    assert green > blue > red
    assert brightest > 225


def test_layout_is_that_of_the_class_data(folder):
    files = set(all_files(folder))
    test_ids = json.loads((folder / 'test_img_ids.json').read_text())
    assert [sorted(entry) for entry in test_ids] == [['file_name', 'height', 'id', 'width']] * 2
    assert [entry['id'] for entry in test_ids] == [1, 2]
    assert {(entry['height'], entry['width']) for entry in test_ids} == {(SIZE, SIZE)}
    expected = {'test_img_ids.json', 'test_truth.json'}
    expected |= {f'test/{entry["file_name"]}' for entry in test_ids}
    train = sorted((folder / 'train').iterdir())
    assert len(train) == NUM_TRAIN
    for path in train:
        expected.add(f'train/{path.name}/images/{path.name}.png')
        count = len(list((path / 'masks').iterdir()))
        assert count > 0
        masks = (f'mask_{number:04d}.png' for number in range(1, count + 1))
        expected |= {f'train/{path.name}/masks/{name}' for name in masks}
    assert files == expected


def test_written_masks_are_the_labels(folder):
    seeds = np.random.SeedSequence(7).generate_state(NUM_TRAIN + NUM_TEST)
    for seed, path in zip(seeds, sorted((folder / 'train').iterdir()), strict=False):
        img, labels = synthesize(int(seed), SIZE, SIZE)
        written = read_png(path / 'images' / f'{path.name}.png')
        np.testing.assert_array_equal(written, img[..., ::-1])
        covered = np.zeros((SIZE, SIZE), dtype=np.int32)
        masks = [read_png(mask) for mask in sorted((path / 'masks').iterdir())]
        for number, mask in enumerate(masks, start=1):
            assert (mask.shape, mask.dtype) == ((SIZE, SIZE), np.uint8)
            assert set(np.unique(mask)) == {0, 255}
            assert not covered[mask > 0].any()
            covered[mask > 0] = number
        np.testing.assert_array_equal(covered, labels)


def test_truth_rasterizes_to_the_labels(folder):
    seeds = np.random.SeedSequence(7).generate_state(NUM_TRAIN + NUM_TEST)[NUM_TRAIN:]
    truth = json.loads((folder / 'test_truth.json').read_text())
    assert truth['images'] == json.loads((folder / 'test_img_ids.json').read_text())
    assert truth['categories'] == [{'id': 1, 'name': 'nucleus'}]
    annotations = truth['annotations']
    assert [entry['id'] for entry in annotations] == list(range(1, len(annotations) + 1))
    for image, seed in zip(truth['images'], seeds, strict=True):
        img, labels = synthesize(int(seed), SIZE, SIZE)
        written = read_png(folder / 'test' / image['file_name'])
        np.testing.assert_array_equal(written, img[..., ::-1])
        drawn = np.zeros((SIZE, SIZE), dtype=np.int32)
        own = [entry for entry in annotations if entry['image_id'] == image['id']]
        for number, entry in enumerate(own, start=1):
            rle = coco_mask.merge(coco_mask.frPyObjects(entry['segmentation'], SIZE, SIZE))
            mask = coco_mask.decode(rle) > 0
            rows, columns = np.nonzero(mask)
            left, top = columns.min(), rows.min()
            box = [left, top, columns.max() + 1 - left, rows.max() + 1 - top]
            assert entry['bbox'] == box
            assert entry['area'] == mask.sum()
            assert (entry['category_id'], entry['iscrowd']) == (1, 0)
            assert not drawn[mask].any()
            drawn[mask] = number
        np.testing.assert_array_equal(drawn, labels)


def test_same_seed_same_files(folder, tmp_path):
    for seed in (7, 8):
        write_dataset(tmp_path / str(seed), NUM_TRAIN, NUM_TEST, SIZE, seed=seed)
    assert all_files(tmp_path / '7') == all_files(folder)
    assert all_files(tmp_path / '8') != all_files(folder)


def test_images_of_one_set_differ(folder):
    images = [*folder.glob('train/*/images/*.png'), *folder.glob('test/*.png')]
    assert len({path.read_bytes() for path in images}) == NUM_TRAIN + NUM_TEST


def test_command_line(tmp_path, capsys):
    out = tmp_path / 'new' / 'data'
    arguments = ['--train', '1', '--test', '0', '--size', '32', '--seed', '1']
    assert fields.main([str(out), *arguments]) == 0
    assert len(list(out.glob('train/*/images/*.png'))) == 1
    assert json.loads((out / 'test_img_ids.json').read_text()) == []
    assert [path.name for path in out.parent.iterdir()] == ['data']
    capsys.readouterr()

    before = all_files(out)
    assert fields.main([str(out), *arguments]) == 2
    error = capsys.readouterr().err
    assert error.count('\n') == 1
    assert str(out) in error
    assert all_files(out) == before


def test_empty_folder_is_filled(tmp_path):
    write_dataset(tmp_path, num_train=0, num_test=1, size=32)
    assert len(list(tmp_path.glob('test/*.png'))) == 1


def test_existing_file_is_refused(tmp_path):
    path = tmp_path / 'data'
    path.write_text('mine')
    with pytest.raises(FileExistsError, match='expected a new or an empty folder'):
        write_dataset(path, 1, 1, 32)
    assert path.read_text() == 'mine'


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--size', '31'], '31 x 31'),
        (['--train', '-1'], '-1'),
        (['--seed', '-5'], '-5'),
    ],
)
def test_wrong_arguments_leave_nothing_behind(tmp_path, capsys, arguments, message):
    assert fields.main([str(tmp_path / 'data'), *arguments]) == 2
    error = capsys.readouterr().err
    assert error.count('\n') == 1
    assert message in error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize('arguments', [(-1, 64, 64), (0, 64, 64, -1), (0, 20, 64)])
def test_wrong_values_are_refused(arguments):
    with pytest.raises(ValueError, match=r'-1|20'):
        synthesize(*arguments)


def test_types_differ_in_looks_and_are_written(tmp_path):
    """Of four fields: lymphocytes are the smallest and darkest, fibroblasts the longest."""
    areas, hematoxylin, longest = ({name: [] for name in fields.TYPES} for _ in range(3))
    for seed in range(4):
        img, labels, types = fields.synthesize_types(seed, 160, 160)
        np.testing.assert_array_equal(labels, synthesize(seed, 160, 160)[1])
        assert len(types) == labels.max() + 1
        stain = rgb2hed(img)[..., 0]
        for number in range(1, len(types)):
            mask = (labels == number).astype(np.uint8)
            name = fields.TYPES[types[number]]
            areas[name].append(int(mask.sum()))
            hematoxylin[name].append(stain[mask > 0].mean())
            sides = sorted(cv2.minAreaRect(cv2.findNonZero(mask))[1])
            longest[name].append(sides[1] / sides[0])
    assert all(len(found) > 3 for found in areas.values())
    small, dark, long = (
        {name: np.median(found) for name, found in values.items()}
        for values in (areas, hematoxylin, longest)
    )
    assert min(small, key=small.get) == max(dark, key=dark.get) == 'inflammatory'
    assert max(long, key=long.get) == 'connective'

    assert fields.main([str(tmp_path / 'raw'), '--types', '--train', '2', '--size', '64']) == 0
    lines = (tmp_path / 'raw/types.csv').read_text().splitlines()
    assert lines[0] == 'file_name,label,type'
    for path in sorted((tmp_path / 'raw/labels').iterdir()):
        known = [line.split(',')[1] for line in lines if line.startswith(path.name)]
        assert known == [str(number) for number in range(1, read_png(path).max() + 1)]
        assert read_png(tmp_path / 'raw/images' / path.name).shape == (64, 64, 3)
