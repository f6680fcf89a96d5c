"""Prepared data to label maps and masks and back: nothing is lost."""

import csv
import json

import cv2
import numpy as np
import pytest

from nucseg_mmdet.commands import prepare as prepare_data
from nucseg_mmdet.converters import base
from nucseg_mmdet.converters.export import export
from nucseg_mmdet.converters.nuclei import from_labels
from nucseg_mmdet.utils.errors import UserError


def run(*arguments):
    return prepare_data.main([str(argument) for argument in arguments])


def read(folder, part='train'):
    return json.loads((folder / f'annotations/{part}.json').read_text())


@pytest.mark.parametrize(('layout', 'reader'), [('labels', 'label-map'), ('masks', 'dsb2018')])
def test_round_trip(data_root, tmp_path, layout, reader):
    assert run('export', data_root, tmp_path / 'there', '--layout', layout) == 0
    assert run(reader, tmp_path / 'there', tmp_path / 'back') == 0
    before, after = read(data_root), read(tmp_path / 'back')
    assert after['annotations'] == before['annotations']
    for image, again in zip(before['images'], after['images'], strict=True):
        assert {**image, **again} == image
        name = image['file_name']
        written = (tmp_path / 'back/train' / name).read_bytes()
        assert written == (data_root / 'train' / name).read_bytes()


def test_label_map_is_that_of_the_masks(raw_data, data_root, tmp_path):
    assert run('export', data_root, tmp_path / 'out') == 0
    for folder in sorted((raw_data / 'train').iterdir()):
        labels = cv2.imread(str(tmp_path / f'out/labels/{folder.name}.png'), cv2.IMREAD_UNCHANGED)
        assert labels.dtype == np.uint16
        expected = np.zeros(labels.shape, np.uint16)
        for number, path in enumerate(sorted((folder / 'masks').iterdir()), start=1):
            expected[cv2.imread(str(path), 0) > 0] = number
        assert (labels == expected).all()


def test_masks_are_the_raw_files(raw_data, data_root, tmp_path):
    assert run('export', data_root, tmp_path / 'out', '--layout', 'masks') == 0
    for folder in sorted((raw_data / 'train').iterdir()):
        paths = sorted((folder / 'masks').iterdir())
        written = sorted((tmp_path / 'out' / folder.name / 'masks').iterdir())
        assert [path.name for path in written] == [path.name for path in paths]
        for path, again in zip(paths, written, strict=True):
            assert (cv2.imread(str(path), -1) == cv2.imread(str(again), -1)).all()


def test_output_in_the_folder_where_one_is(data_root, tmp_path, monkeypatch):
    (tmp_path / 'here').mkdir()
    monkeypatch.chdir(tmp_path / 'here')
    assert run('export', data_root, '.', '--workers', 1) == 0
    assert (tmp_path / 'here/labels').is_dir()


def test_one_fold(data_root, tmp_path):
    assert run('export', data_root, tmp_path / 'out', '--part', 'fold1_val') == 0
    names = {image['file_name'] for image in read(data_root, 'fold1_val')['images']}
    assert {path.name for path in (tmp_path / 'out/images').iterdir()} == names


def write_data(folder, truth):
    """A prepared data set of images of 6 x 6 px."""
    (folder / 'annotations').mkdir(parents=True)
    (folder / 'train').mkdir()
    for image in truth['images']:
        pixels = np.full((image['height'], image['width'], 3), 9, np.uint8)
        assert cv2.imwrite(str(folder / 'train' / image['file_name']), pixels)
    (folder / 'annotations/train.json').write_text(json.dumps(truth))


def box(number, x, kind, image_id=1):
    polygon = [x, 1, x + 2, 1, x + 2, 3, x, 3]
    return dict(id=number, image_id=image_id, category_id=1, segmentation=[polygon], type=kind)


def truth_of(*annotations, names=('a.png',)):
    images = [
        dict(id=number, file_name=name, height=6, width=6) for number, name in enumerate(names, 1)
    ]
    return dict(images=images, annotations=annotations, categories=[dict(id=1, name='nucleus')])


@pytest.mark.parametrize(('layout', 'reader'), [('labels', 'label-map'), ('masks', 'dsb2018')])
def test_types_go_along(tmp_path, layout, reader):
    odd = 'a, "b"\u2028c\nd'  # what ends lines, to some
    write_data(tmp_path / 'data', truth_of(box(1, 0, 'dead'), box(2, 3, odd)))
    assert run('export', tmp_path / 'data', tmp_path / 'out', '--layout', layout) == 0
    with (tmp_path / 'out/types.csv').open(newline='') as file:
        assert list(csv.reader(file)) == [
            ['file_name', 'label', 'type'],
            ['a.png', '1', 'dead'],
            ['a.png', '2', odd],
        ]
    assert run(reader, tmp_path / 'out', tmp_path / 'back') == 0
    assert [entry['type'] for entry in read(tmp_path / 'back')['annotations']] == ['dead', odd]


@pytest.mark.parametrize(('layout', 'reader'), [('labels', 'label-map'), ('masks', 'dsb2018')])
def test_some_nuclei_without_a_type(tmp_path, layout, reader):
    boxes = box(1, 0, 'dead'), box(2, 3, None), box(3, 0, None, image_id=2)
    write_data(tmp_path / 'data', truth_of(*boxes, names=('a.png', 'b.png')))
    assert run('export', tmp_path / 'data', tmp_path / 'out', '--layout', layout) == 0
    lines = (tmp_path / 'out/types.csv').read_text().splitlines()
    assert lines == ['file_name,label,type', 'a.png,1,dead', 'a.png,2,', 'b.png,1,']
    assert run(reader, tmp_path / 'out', tmp_path / 'back') == 0
    types = [entry.get('type') for entry in read(tmp_path / 'back')['annotations']]
    assert types == ['dead', None, None]


def test_no_types_file_where_no_nucleus_has_one(tmp_path):
    write_data(tmp_path / 'data', truth_of(box(1, 0, None), box(2, 3, '')))
    assert run('export', tmp_path / 'data', tmp_path / 'out') == 0
    assert not (tmp_path / 'out/types.csv').exists()


def test_overlap_fits_in_masks_only(tmp_path, capsys):
    write_data(tmp_path / 'data', truth_of(box(7, 0, None), box(8, 3, None), box(9, 1, None)))
    assert run('export', tmp_path / 'data', tmp_path / 'labels') == 2
    # Columns 0 and 1 against 1 and 2, two rows.
    assert 'a.png: annotations 7 and 9 share 2 px' in capsys.readouterr().err
    assert not (tmp_path / 'labels').exists()
    assert run('export', tmp_path / 'data', tmp_path / 'masks', '--layout', 'masks') == 0
    masks = sorted((tmp_path / 'masks/a/masks').iterdir())
    assert [np.count_nonzero(cv2.imread(str(path), 0)) for path in masks] == [4, 4, 4]


def test_image_without_nuclei_and_other_files(tmp_path):
    write_data(tmp_path / 'data', truth_of(box(1, 0, None), names=('a.jpg', 'b.png')))
    assert run('export', tmp_path / 'data', tmp_path / 'out') == 0
    assert not cv2.imread(str(tmp_path / 'out/labels/b.png'), -1).any()
    source = cv2.imread(str(tmp_path / 'data/train/a.jpg'))
    assert (cv2.imread(str(tmp_path / 'out/images/a.png')) == source).all()


@pytest.mark.slow
def test_more_nuclei_than_16_bit(tmp_path):
    side = 257  # 257 x 257 single pixels are 66,049 nuclei
    labels = np.arange(1, side * side + 1, dtype=np.int32).reshape(side, side)
    image = base.ImageFile(tmp_path / 'data/train/a.png', side, side, id=1)
    nuclei = list(from_labels(labels).values())
    truth = base.to_coco([base.AnnotatedImage(image, nuclei)])
    write_data(tmp_path / 'data', truth)
    assert export(tmp_path / 'data', tmp_path / 'out', workers=1) == (1, side * side)
    assert (cv2.imread(str(tmp_path / 'out/labels/a.tif'), -1) == labels).all()


def test_names_up_to_the_suffix(tmp_path):
    write_data(tmp_path / 'data', truth_of(names=('a.jpg', 'a.png')))
    with pytest.raises(UserError, match=r'a\.png: another image has this name'):
        export(tmp_path / 'data', tmp_path / 'out')


def test_wrong_input(data_root, tmp_path, capsys):
    assert run('export', tmp_path / 'nowhere', tmp_path / 'out') == 2
    assert run('export', data_root, tmp_path / 'out', '--part', 'fold9_val') == 2
    (tmp_path / 'out').mkdir()
    (tmp_path / 'out/mine.txt').write_text('mine')
    assert run('export', data_root, tmp_path / 'out') == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line.rsplit(': ', 1)[1] for line in lines] == [
        'No such file or directory, expected a file',
        'No such file or directory, expected a file',
        'there already, expected a folder to make',
    ]
