"""Masks that are run lengths to those who want these, and bitmaps to the others."""

import numpy as np
import pytest
import torch
from mmdet.structures.mask import encode_mask_results
from mmengine.structures import InstanceData
from pycocotools import mask as coco_mask

from nucseg_mmdet.structures.rle_masks import RLE, RLEMasks

BITMAPS = np.zeros((3, 4, 6), bool)
BITMAPS[0, 1:3, 2:5] = True
BITMAPS[1] = True  # and the third is empty


@pytest.fixture
def masks():
    return RLEMasks(coco_mask.encode(np.asfortranarray(BITMAPS.transpose(1, 2, 0), 'u1')), 4, 6)


def test_masks_decode_to_their_bitmaps(masks):
    assert masks.numpy().dtype == bool
    assert (masks.numpy() == BITMAPS).all()
    assert (np.asarray(masks) == BITMAPS).all()
    assert np.asarray(masks).dtype == np.asarray(masks[0]).dtype == bool
    assert masks.astype(np.uint8).dtype == np.uint8
    assert (masks.astype(np.uint8) == BITMAPS).all()
    assert RLEMasks([], 4, 6).numpy().shape == (0, 4, 6)
    assert repr(masks) == 'RLEMasks(3 masks of 4 x 6 px)'


def test_a_mask_is_run_lengths_by_name_and_a_bitmap_by_place(masks):
    assert masks[0]['size'] == [4, 6]
    assert (masks[0][1:3] == BITMAPS[0, 1:3]).all()
    assert (np.asarray(masks[0]) == BITMAPS[0]).all()
    assert dict(masks[0]) == coco_mask.encode(np.asfortranarray(BITMAPS[0], 'u1'))
    assert isinstance(masks[-1], RLE)


def test_mmdet_encodes_them_anew_to_the_same(masks):
    assert encode_mask_results(masks) == [dict(mask) for mask in masks]


@pytest.mark.parametrize(
    ('item', 'kept'),
    [
        (torch.tensor([True, False, True]), [0, 2]),
        (torch.tensor([2, 0]), [2, 0]),
        (slice(1, None), [1, 2]),
        (torch.tensor([False] * 3), []),
        (1, [1]),
    ],
)
def test_instances_are_chosen_with_their_masks(masks, item, kept):
    instances = InstanceData(labels=torch.arange(3), masks=masks)
    chosen = instances[item]
    assert chosen.labels.tolist() == kept
    assert isinstance(chosen.masks, RLEMasks)
    assert (chosen.masks.numpy() == BITMAPS[kept]).all()


def test_instances_are_joined_with_their_masks(masks):
    instances = InstanceData(labels=torch.arange(3), masks=masks)
    joined = InstanceData.cat([instances[1:], instances[:1]])
    assert (joined.masks.numpy() == BITMAPS[[1, 2, 0]]).all()
