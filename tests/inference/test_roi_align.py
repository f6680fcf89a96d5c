"""RoIAlign in NumPy against mmdet's extractor with mmcv's kernel."""

import numpy as np
import pytest
import torch
from mmdet.models.roi_heads.roi_extractors import SingleRoIExtractor

from nucseg_mmdet.inference import roi_align

STRIDES, FINEST = (4, 8), 16  # px of the input; boxes of 32 px and more are for the second map

BOXES = {
    'one on each map': [[10.3, 8.1, 32.7, 30.2], [3.2, 3.9, 61.1, 52.8]],
    # Areas of 31.99 and of 32 px squared.
    'beside the border of the maps': [[8, 8, 39.99, 39.99], [8, 8, 40, 40]],
    'beyond every border': [[-30, -20, 150, 120], [-9, 60, 20, 99], [80, -7, 130, 9]],
    'outside': [[200, 200, 240, 230], [-90, 10, -40, 30]],
    'just outside the last pixel': [[92.1, 76.2, 99.9, 83.7], [-5.9, -4.1, -2.2, -2.05]],
    # The first sample is at -1 px of the map, the last at its height, 20 px.
    'samples on the limits': [[-4, 56, 24, 84]],
    'no extent': [[16, 16, 16, 30], [16, 16, 30, 16], [5, 5, 5, 5]],
    'thin and long': [[0, 33, 96, 35], [50, 0, 52.5, 80]],
    'duplicates': [[10, 10, 40, 40]] * 5,
    'none': [],
}


@pytest.fixture
def maps():
    """Of an image of 96 x 80 px, channels last."""
    rng = np.random.default_rng(0)
    return [rng.standard_normal((80 // s, 96 // s, 6)).astype(np.float32) for s in STRIDES]


def extract(maps, boxes, size):
    """The same by mmdet: (R, P, P, C)."""
    layer = dict(type='RoIAlign', output_size=size, sampling_ratio=0)
    extractor = SingleRoIExtractor(layer, 6, list(STRIDES), finest_scale=FINEST)
    rois = torch.from_numpy(np.insert(boxes, 0, 0, axis=1))
    first = [torch.from_numpy(part.transpose(2, 0, 1)[None].copy()) for part in maps]
    return extractor(first, rois).numpy().transpose(0, 2, 3, 1)


@pytest.mark.parametrize('size', [7, 14])
@pytest.mark.parametrize('name', BOXES)
def test_equals_mmdet(maps, name, size):
    boxes = np.array(BOXES[name], np.float32).reshape(-1, 4)
    found = roi_align.roi_features(maps, STRIDES, FINEST, boxes, size)
    assert found.dtype == np.float32
    expected = extract(maps, boxes, size) if len(boxes) else np.zeros((0, size, size, 6))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=2e-6)  # sums of up to 400 terms


def test_chunks_change_nothing(maps, monkeypatch):
    rng = np.random.default_rng(1)
    corners, sides = rng.uniform(-20, 80, (60, 2)), rng.uniform(10, 60, (60, 2))
    boxes = np.hstack([corners, corners + sides]).astype(np.float32)
    whole = roi_align.roi_features(maps, STRIDES, FINEST, boxes, 7)
    np.testing.assert_allclose(whole, extract(maps, boxes, 7), rtol=1e-5, atol=2e-6)
    for chunk in 1, 1000:  # one box at a time, and a few
        monkeypatch.setattr(roi_align, 'CHUNK', chunk)
        parts = roi_align.roi_features(maps, STRIDES, FINEST, boxes, 7)
        np.testing.assert_allclose(parts, whole, rtol=1e-6, atol=1e-6)
