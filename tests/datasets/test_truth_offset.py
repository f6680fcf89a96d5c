"""The steps that measure an image's offset and move its truth by it."""

import numpy as np
import pytest
import torch
from mmdet.registry import TRANSFORMS
from mmdet.structures.bbox import HorizontalBoxes
from mmdet.structures.mask import PolygonMasks

import nucseg_mmdet.registration  # noqa: F401
from nucseg_mmdet.utils.errors import UserError

SIDE = 64


@pytest.fixture
def results():
    """Two squares of 12 px, and their truth 1 px to the left of and 2 px above them."""
    img = np.full((SIDE, SIDE, 3), (190, 160, 225), np.uint8)  # BGR
    polygons, boxes = [], []
    for left, top in ((10, 12), (40, 30)):
        img[top : top + 12, left : left + 12] = (140, 60, 90)
        x, y = left - 1, top - 2
        boxes.append([x, y, x + 12, y + 12])
        polygons.append([np.array([x, y, x + 12, y, x + 12, y + 12, x, y + 12], float)])
    return dict(
        img_path='squares.png',
        img=img,
        img_shape=(SIDE, SIDE),
        gt_bboxes=HorizontalBoxes(torch.tensor(boxes, dtype=torch.float32)),
        gt_masks=PolygonMasks(polygons, SIDE, SIDE),
    )


def test_truth_is_moved_by_the_offset_of_its_image(results):
    before = results['gt_bboxes'].tensor.clone()
    measured = TRANSFORMS.build(dict(type='MeasureTruthOffset'))(results)
    np.testing.assert_allclose(measured['truth_offset'], (1, 2), atol=1e-6)
    moved = TRANSFORMS.build(dict(type='MoveTruth'))(measured)
    expected = before + torch.tensor([1.0, 2.0, 1.0, 2.0])
    torch.testing.assert_close(moved['gt_bboxes'].tensor, expected)


def test_an_image_is_measured_once(results):
    step = TRANSFORMS.build(dict(type='MeasureTruthOffset'))
    first = step(results)['truth_offset']
    results['img'] = np.full_like(results['img'], 255)
    assert step(results)['truth_offset'] == first


def test_truth_that_cannot_be_measured_stays_where_it_is(results):
    results['gt_masks'] = PolygonMasks([], SIDE, SIDE)
    with pytest.warns(UserWarning, match='squares.png: truth not moved'):
        measured = TRANSFORMS.build(dict(type='MeasureTruthOffset'))(results)
    assert measured['truth_offset'] == (0, 0)


def test_an_image_without_an_offset_is_refused(results):
    with pytest.raises(UserError, match='MeasureTruthOffset before it'):
        TRANSFORMS.build(dict(type='MoveTruth'))(results)
