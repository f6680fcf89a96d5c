"""Pasting in NumPy against the one in torch, which is mmdet's to the byte."""

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask

from nucseg_mmdet.models.rle_mask_head import paste_rle
from nucseg_mmdet.structures.paste import paste


def smooth(num, seed):
    """Probabilities as a network gives them: blobs."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:28, :28] / 27
    center, radius = rng.uniform(0.3, 0.7, (num, 2, 1, 1)), rng.uniform(0.3, 0.6, (num, 1, 1))
    distance = np.hypot(x - center[:, 0], y - center[:, 1]) / radius
    return (1 / (1 + np.exp(8 * (distance - 0.8)))).astype(np.float32)


def test_by_hand():
    # A box of 2 x 2 px around a mask of 1s: beyond the box's edge the mask falls off to 0 within
    # half a cell, and the pixels' centers outside are half a px away, 7 cells.
    probs = np.ones((1, 28, 28), np.float32)
    (mask,) = paste(probs, np.array([[3, 2, 5, 4]], np.float32), 6, 8)
    expected = np.zeros((6, 8), np.uint8)
    expected[2:4, 3:5] = 1
    assert coco_mask.decode(mask).tolist() == expected.tolist()


def test_threshold_itself_is_inside():
    probs = np.full((1, 28, 28), 0.5, np.float32)
    (mask,) = paste(probs, np.array([[0, 0, 28, 28]], np.float32), 28, 28, 0.5)
    assert coco_mask.decode(mask).all()


@pytest.mark.parametrize('threshold', [0.3, 0.5])
def test_is_that_of_torch(threshold):
    rng = np.random.default_rng(0)
    low, size = rng.uniform(-20, 190, (400, 2)), rng.uniform(0.5, 70, (400, 2))
    boxes = np.hstack([low, low + size]).astype(np.float32)
    boxes[:4] = [[9, 9, 9, 20], [-50, -50, -40, -40], [250, 10, 260, 30], [10, 10, 11, 11]]
    probs = smooth(400, 1)
    found = paste(probs, boxes, 160, 200, threshold)
    expected = paste_rle(torch.from_numpy(probs), torch.from_numpy(boxes), 160, 200, threshold)
    differ = [one != other for one, other in zip(found, expected, strict=True)]
    # Sums in another order fall on the other side of the threshold for a pixel in a million.
    assert sum(differ) <= 1
    pixels = np.abs(coco_mask.decode(found).astype(int) - coco_mask.decode(expected)).sum()
    assert pixels <= 1


def test_nothing():
    assert paste(np.zeros((0, 28, 28), np.float32), np.zeros((0, 4), np.float32), 5, 5) == []
    with pytest.raises(ValueError, match='threshold is 0'):
        paste(np.zeros((0, 28, 28)), np.zeros((0, 4)), 5, 5, 0)
