"""Boxes against mmdet's and mmcv's own arithmetic."""

import numpy as np
import pytest
import torch
from mmcv.ops import nms
from mmdet.models.task_modules.coders import DeltaXYWHBBoxCoder

from nucseg_mmdet.structures import boxes


def random_boxes(num, seed, size=(4, 60)):
    rng = np.random.default_rng(seed)
    center, sides = rng.uniform(0, 200, (num, 2)), rng.uniform(*size, (num, 2))
    found = np.hstack([center - sides / 2, center + sides / 2]).astype(np.float32)
    return found, rng.random(num).astype(np.float32)


def test_decode_by_hand():
    # 10 x 20 px at 10, 10; a tenth of a width to the right, twice as wide, half as high.
    box = np.array([[10, 10, 20, 30]], np.float32)
    deltas = np.array([[0.1, 0, np.log(2), np.log(0.5)]], np.float32)
    assert boxes.decode(box, deltas, 100, 100).tolist() == [pytest.approx([6, 15, 26, 25])]
    assert boxes.decode(box, deltas, 25, 22).tolist() == [pytest.approx([6, 15, 25, 22])]


def test_decode_is_mmdets():
    given, _ = random_boxes(500, 0)
    deltas = np.random.default_rng(1).normal(0, 2, (500, 4)).astype(np.float32)
    coder = DeltaXYWHBBoxCoder()
    expected = coder.decode(torch.from_numpy(given), torch.from_numpy(deltas), (180, 190))
    np.testing.assert_allclose(boxes.decode(given, deltas, 190, 180), expected, atol=1e-4)


def test_suppress_by_hand():
    # The second shares 8 of 12 px of width with the first: IoU 2/3. The third shares 8 of 12
    # with the second, which is dropped, and 6 of 14 with the first.
    row = np.array([[0, 0, 10, 5], [2, 0, 12, 5], [4, 0, 14, 5]], np.float32)
    assert boxes.suppress(row, np.array([0.9, 0.8, 0.7]), 0.6).tolist() == [0, 2]
    assert boxes.suppress(row, np.array([0.7, 0.9, 0.8]), 0.6).tolist() == [1]
    assert boxes.suppress(row, np.array([0.7, 0.9, 0.8]), 0.7).tolist() == [1, 2, 0]
    assert boxes.suppress(row[:0], np.zeros(0), 0.7).tolist() == []
    assert boxes.suppress(row[[0, 0]], np.array([0.5, 0.5]), 0.7).tolist() == [0]


@pytest.mark.filterwarnings('error')
@pytest.mark.parametrize('iou_thr', [0.3, 0.5, 0.7, 1.0])
@pytest.mark.parametrize(('num', 'size'), [(3, (4, 60)), (1500, (4, 60)), (1500, (20, 24))])
def test_suppress_is_mmcvs(iou_thr, num, size):
    given, scores = random_boxes(num, num, size)
    _, expected = nms(torch.from_numpy(given), torch.from_numpy(scores), iou_thr)
    assert boxes.suppress(given, scores, iou_thr).tolist() == expected.tolist()
    assert num == 3 or iou_thr == 1 or len(expected) < num


def test_boxes_without_extent():
    flat = np.array([[5, 5, 5, 9], [5, 5, 5, 9], [0, 0, 4, 4]], np.float32)
    assert sorted(boxes.suppress(flat, np.array([0.9, 0.8, 0.7]), 0.5)) == [0, 1, 2]
