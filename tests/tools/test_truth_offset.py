"""The tool that lists offsets of truth."""

import json

import cv2
import numpy as np
import pytest

from tools.analysis_tools.truth_offset import main


@pytest.fixture
def truth(tmp_path):
    """An image with a square nucleus of 12 px, and its truth 1 px to the left of and 2 px above."""
    img = np.full((48, 64, 3), (190, 160, 225), np.uint8)  # BGR
    img[20:32, 30:42] = (140, 60, 90)
    cv2.imwrite(str(tmp_path / 'a.png'), img)
    square = [29, 18, 41, 18, 41, 30, 29, 30]
    annotation = dict(
        id=1, image_id=1, category_id=1, segmentation=[square], area=144, bbox=[29, 18, 12, 12],
        iscrowd=0,
    )  # fmt: skip
    content = dict(
        images=[dict(id=1, file_name='a.png', height=48, width=64)],
        annotations=[annotation],
        categories=[dict(id=1, name='nucleus')],
    )
    (tmp_path / 'truth.json').write_text(json.dumps(content))
    return tmp_path


def test_offsets_are_listed(truth, capsys):
    assert main([str(truth / 'truth.json'), str(truth)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1].split() == ['+1.00', '+2.00', 'a.png']
    assert lines[2].split() == ['+1.00', '+2.00', 'mean', 'of', '1']


def test_truth_as_common_tools_write_it(truth, capsys):
    content = json.loads((truth / 'truth.json').read_text())
    content['images'][0].update(id='1', width=None, height=None)
    (truth / 'truth.json').write_text(json.dumps(content))
    assert main([str(truth / 'truth.json'), str(truth)]) == 0
    printed = capsys.readouterr()
    assert printed.out.splitlines()[1].split() == ['+1.00', '+2.00', 'a.png']
    assert 'ids or sizes as text or floats, read as whole numbers' in printed.err


def flip(path):
    data = bytearray(path.read_bytes())
    data[60] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize(
    ('damage', 'message'),
    [
        (lambda path: path.unlink(), 'No such file'),
        (flip, "damaged PNG (checksum of 'IDAT')"),
        (lambda path: cv2.imwrite(str(path), np.zeros((9, 7), np.uint8)), 'is 7 x 9 px, expected'),
    ],
)
def test_a_bad_image_is_named_and_the_others_are_measured(truth, capsys, damage, message):
    content = json.loads((truth / 'truth.json').read_text())
    content['images'].append(dict(content['images'][0], id=2, file_name='b.png'))
    content['annotations'].append(dict(content['annotations'][0], id=2, image_id=2))
    (truth / 'truth.json').write_text(json.dumps(content))
    (truth / 'b.png').write_bytes((truth / 'a.png').read_bytes())
    damage(truth / 'b.png')
    assert main([str(truth / 'truth.json'), str(truth)]) == 1
    said = capsys.readouterr()
    assert f'left out: {truth}/b.png: {message}' in said.err
    assert said.out.splitlines()[1].split() == ['+1.00', '+2.00', 'a.png']
    damage(truth / 'a.png')
    assert main([str(truth / 'truth.json'), str(truth)]) == 2
    assert f'truth_offset: {truth}/a.png: {message}' in capsys.readouterr().err
