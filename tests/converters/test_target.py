"""What a data set may be written over."""

import json

import cv2
import numpy as np
import pytest

from nucseg_mmdet.commands import prepare as prepare_data

BOX = [[1, 1, 3, 1, 3, 3, 1, 3]]


@pytest.fixture
def coco(tmp_path):
    """A COCO file of two images in ``tmp_path``, with them in ``tmp_path/train``."""
    names = ('a.png', 'b.png')
    (tmp_path / 'train').mkdir()
    for name in names:
        cv2.imwrite(str(tmp_path / 'train' / name), np.zeros((8, 8, 3), np.uint8))
    images = [dict(id=i, file_name=name, height=8, width=8) for i, name in enumerate(names, 1)]
    nuclei = [dict(id=i, image_id=i, category_id=1, segmentation=BOX, iscrowd=0) for i in (1, 2)]
    truth = dict(images=images, annotations=nuclei, categories=[dict(id=1, name='nucleus')])
    (tmp_path / 'annotations').mkdir()
    (tmp_path / 'annotations/all.json').write_text(json.dumps(truth))
    return tmp_path


def prepare(truth, images, out, *options):
    argv = ['coco', str(truth), str(out), '--images', str(images), '--workers=1', *options]
    return prepare_data.main(argv)


def files_of(folder):
    return {path: path.read_bytes() for path in folder.rglob('*') if path.is_file()}


def test_a_data_set_is_replaced_by_one_of_fewer_images(coco):
    out = coco / 'out'
    assert prepare(coco / 'annotations/all.json', coco / 'train', out) == 0
    (out / '.DS_Store').touch()
    options = ('--overwrite', '--limit=1')
    assert prepare(coco / 'annotations/all.json', coco / 'train', out, *options) == 0
    assert [path.name for path in (out / 'train').iterdir()] == ['a.png']


def test_what_is_read_is_not_replaced(coco, capsys):
    """Neither the truth, nor images that another truth names."""
    out = coco / 'out'
    assert prepare(coco / 'annotations/all.json', coco / 'train', out) == 0
    for truth, images in (
        (out / 'annotations/train.json', coco / 'train'),
        (coco / 'annotations/all.json', out / 'train'),
    ):
        before = files_of(out)
        assert prepare(truth, images, out, '--overwrite', '--limit=1') == 2
        assert f'{out}: has {out}/' in capsys.readouterr().err
        assert files_of(out) == before


def test_links_in_a_circle_are_told_in_a_line(coco, capsys):
    loop = coco / 'loop.json'
    loop.symlink_to(loop)
    assert prepare(loop, coco / 'train', coco / 'out') == 2
    assert 'unforeseen' not in capsys.readouterr().err


@pytest.mark.parametrize(
    ('added', 'named'),
    [
        ('annotations/mine.json', 'annotations/mine.json'),
        ('train/c.png', 'train/c.png'),
        ('test/raw/c.png', 'test/raw'),
        ('notes.txt', 'notes.txt'),
    ],
)
def test_files_of_others_are_kept(coco, capsys, added, named):
    out = coco / 'out'
    assert prepare(coco / 'annotations/all.json', coco / 'train', out) == 0
    (out / added).parent.mkdir(exist_ok=True)
    (out / added).touch()
    before = files_of(out)
    assert prepare(coco / 'annotations/all.json', coco / 'train', out, '--overwrite') == 2
    assert f'not a prepared data set alone (has {named})' in capsys.readouterr().err
    assert files_of(out) == before


def test_a_folder_of_another_tool_is_kept(coco, capsys):
    """Whose folders have the same names."""
    other = coco / 'other'
    (other / 'annotations').mkdir(parents=True)
    (other / 'train').mkdir()
    (other / 'annotations/instances_train.json').write_text('{}')
    before = files_of(other)
    assert prepare(coco / 'annotations/all.json', coco / 'train', other, '--overwrite') == 2
    assert 'not a prepared data set' in capsys.readouterr().err
    assert files_of(other) == before
