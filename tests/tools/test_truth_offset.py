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


def test_a_missing_image_is_named(truth, capsys):
    (truth / 'a.png').unlink()
    assert main([str(truth / 'truth.json'), str(truth)]) == 2
    assert 'a.png: no readable image' in capsys.readouterr().err
