"""Truth as common tools write it, read for scores."""

import json

import cv2
import numpy as np
import pytest

from nucseg_mmdet.evaluation.truth import load_tidy_truth, read_tidy_truth
from nucseg_mmdet.structures.coco import read_truth
from nucseg_mmdet.utils.errors import UserError


@pytest.fixture
def path(tmp_path):
    """Truth that says no sizes, one of a file that is there, with a category 7."""
    cv2.imwrite(str(tmp_path / 'a.png'), np.zeros((6, 9, 3), np.uint8))
    content = dict(
        images=[dict(id='1', file_name='a.png')],
        annotations=[dict(id=1, image_id=1, category_id=7, segmentation=[1, 1, 4, 1, 4, 3, 1, 3])],
        categories=[dict(id=7, name='cell')],
    )
    path = tmp_path / 'truth.json'
    path.write_text(json.dumps(content))
    return path


def test_sizes_are_those_of_the_images(path, tmp_path):
    data, notes = load_tidy_truth(path, path.parent)
    assert (data['images'][0]['width'], data['images'][0]['height']) == (9, 6)
    assert len(notes) == 3  # ids, masks, sizes
    data, _ = load_tidy_truth(path, tmp_path / 'elsewhere')
    assert 'width' not in data['images'][0]


def test_any_category_is_a_nucleus(path):
    (image,) = read_tidy_truth(path)
    assert (image.id, image.height, image.width) == (1, 6, 9)
    assert image.areas.tolist() == [6]  # 3 x 2 px
    with pytest.raises(UserError):
        read_truth(path)
