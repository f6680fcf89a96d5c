"""Data Science Bowl 2018: opaque RGBA images become RGB, nothing else changes."""

import json

import cv2
import numpy as np
import pytest

from nucseg_mmdet.commands import prepare as prepare_data

SIZE = (10, 16)  # height, width, px


def write(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), pixels)


@pytest.fixture
def raw(tmp_path):
    """Two images of two nuclei each, with an alpha channel of 255."""
    for seed, name in enumerate(['0aa', '1bb']):
        pixels = np.random.default_rng(seed).integers(0, 256, (*SIZE, 4), dtype=np.uint8)
        pixels[..., 3] = 255
        write(tmp_path / f'raw/{name}/images/{name}.png', pixels)
        for index, x in enumerate([1, 8]):
            mask = np.zeros(SIZE, np.uint8)
            mask[2:6, x : x + 5] = 255
            write(tmp_path / f'raw/{name}/masks/{index}.png', mask)
    return tmp_path / 'raw'


def run(raw, *options):
    return prepare_data.main(
        ['dsb2018', str(raw), str(raw.parent / 'out'), '--workers=1', *options]
    )


def test_images_and_nuclei(raw):
    assert run(raw) == 0
    truth = json.loads((raw.parent / 'out/annotations/train.json').read_text())
    assert [image['file_name'] for image in truth['images']] == ['0aa.png', '1bb.png']
    assert [entry['bbox'] for entry in truth['annotations']] == [[1, 2, 5, 4], [8, 2, 5, 4]] * 2
    for name in ('0aa', '1bb'):
        before = cv2.imread(str(raw / f'{name}/images/{name}.png'), cv2.IMREAD_UNCHANGED)
        after = cv2.imread(str(raw.parent / f'out/train/{name}.png'), cv2.IMREAD_UNCHANGED)
        assert after.shape == (*SIZE, 3)
        assert (after == before[..., :3]).all()


def test_limit(raw):
    assert run(raw, '--limit', '1') == 0
    assert [path.name for path in (raw.parent / 'out/train').iterdir()] == ['0aa.png']


def test_limit_of_nothing(raw, capsys):
    assert run(raw, '--limit', '0') == 2
    assert '--limit 0: expected 1 or more' in capsys.readouterr().err


def test_transparent_parts_are_laid_over_white(raw):
    path = raw / '1bb/images/1bb.png'
    pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    pixels[0, :3, 3] = 0
    write(path, pixels)
    assert run(raw) == 0
    written = cv2.imread(str(raw.parent / 'out/train/1bb.png'), cv2.IMREAD_UNCHANGED)
    assert written.shape[2] == 3
    assert (written[0, :3] == 255).all()
    assert (written[1:] == pixels[1:, :, :3]).all()


def test_overlapping_masks_are_named(raw, capsys):
    mask = np.zeros(SIZE, np.uint8)
    mask[5, 5:9] = 255  # one pixel of each of the two
    write(raw / '0aa/masks/2.png', mask)
    assert run(raw) == 2
    assert '0aa/masks/2.png: shares 2 px with 1.png' in capsys.readouterr().err


@pytest.mark.parametrize('name', ['nowhere', 'empty'])
def test_no_data(tmp_path, capsys, name):
    (tmp_path / 'empty').mkdir()
    assert prepare_data.main(['dsb2018', str(tmp_path / name), str(tmp_path / 'out')]) == 2
    assert name in capsys.readouterr().err


@pytest.mark.parametrize(
    ('rows', 'code', 'said'),
    [
        ('0aa.png,1,x 0aa.png,2,y 1bb.png,1,x 1bb.png,2,z 2cc.png,1,x', 0, 'no image'),
        ('0aa.png,1,x 0aa.png,2,y', 2, '1bb/masks: label 1 has pixels but no line'),
        ('0aa.png,1,x 0aa.png,3,y 1bb.png,1,x 1bb.png,2,z', 2, '0aa/masks: label 2 has'),
    ],
)
def test_types_of_masks(raw, capsys, rows, code, said):
    (raw / 'types.csv').write_text('\n'.join(['file_name,label,type', *rows.split()]))
    assert run(raw) == code
    out, error = capsys.readouterr()
    assert said in out + error
    if not code:
        truth = json.loads((raw.parent / 'out/annotations/train.json').read_text())
        assert [entry['type'] for entry in truth['annotations']] == ['x', 'y', 'x', 'z']
