"""Polygons on pixel edges give back the mask that they were traced from."""

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from nucseg_mmdet.structures.polygons import (
    mask_to_outlines,
    mask_to_polygons,
    polygons_to_rle,
    segmentation_to_rle,
)


def drawn(*rows):
    return np.array([[character == '#' for character in row] for row in rows])


def rasterized(polygons, shape):
    return coco_mask.decode(polygons_to_rle(polygons, *shape)).astype(bool)


def test_one_pixel():
    # The pixel in column 2, row 1 covers x from 2 to 3 and y from 1 to 2.
    mask = drawn('....', '..#.')
    assert mask_to_polygons(mask) == [[2, 1, 3, 1, 3, 2, 2, 2]]


def test_corners_only():
    assert mask_to_polygons(drawn('###', '###')) == [[0, 0, 3, 0, 3, 2, 0, 2]]


def test_origin_is_added():
    assert mask_to_polygons(drawn('#'), origin=(10, 20)) == [[10, 20, 11, 20, 11, 21, 10, 21]]


def test_empty_mask():
    assert mask_to_polygons(np.zeros((3, 4), dtype=bool)) == []
    assert not rasterized([], (3, 4)).any()


@pytest.mark.parametrize(
    ('rows', 'parts'),
    [
        (['#.#', '#.#'], 2),
        (['#.', '.#'], 2),  # pixels that touch at a corner only
        (['.#', '#.'], 2),
        (['###', '#.#', '###'], 1),  # a hole, joined by a bridge
        (['#####', '#.#.#', '#####'], 1),  # two holes
        (['#####', '#...#', '#.#.#', '#...#', '#####'], 2),  # an island in a hole
        (['####', '#.##', '##.#', '####'], 1),  # holes that touch at a corner
        (['.##', '#.#', '###'], 1),  # a hole that touches the outside at a corner
        (['#####', '##.##', '#.#.#', '##.##', '#####'], 2),
    ],
)
def test_parts_and_holes(rows, parts):
    mask = drawn(*rows)
    polygons = mask_to_polygons(mask)
    assert len(polygons) == parts
    assert (rasterized(polygons, mask.shape) == mask).all()


def test_outlines_have_holes_as_rings_of_their_own():
    mask = drawn('###', '#.#', '###')
    assert mask_to_outlines(mask, origin=(5, 0)) == [
        [5, 0, 8, 0, 8, 3, 5, 3],
        [6, 1, 7, 1, 7, 2, 6, 2],
    ]
    assert mask_to_outlines(~mask & mask) == []


def test_random_masks_come_back():
    rng = np.random.default_rng(0)
    for _ in range(500):
        mask = rng.random(rng.integers(1, 14, size=2)) < rng.random()
        assert (rasterized(mask_to_polygons(mask), mask.shape) == mask).all()


@pytest.mark.parametrize('counts', [b'114', '114', [1, 1, 4]])
def test_any_segmentation_becomes_one_rle(counts):
    # Column-major: 1 background, 1 foreground, 4 background pixels of 3 rows and 2 columns.
    rle = segmentation_to_rle(dict(size=[3, 2], counts=counts), 3, 2)
    assert coco_mask.decode(rle).tolist() == [[0, 0], [1, 0], [0, 0]]
    assert isinstance(rle['counts'], bytes)


@pytest.mark.parametrize('size', [[2, 2], [3, 3], [2, 3]])
def test_rle_of_another_size_is_refused(size):
    with pytest.raises(ValueError, match=rf'size \[{size[0]}, {size[1]}\], expected \[3, 2\]'):
        segmentation_to_rle(dict(size=size, counts='112'), 3, 2)


def test_outline_too_long_to_be_filled_is_refused():
    """pycocotools would take 16 GB for it, or end the process."""
    zigzag = [0.0, 0.0, 1000.0, 999.0] * 50_000
    with pytest.raises(ValueError, match='polygon of 100,000,000 px around, expected at most'):
        polygons_to_rle([[0, 0, 9, 0, 9, 9], zigzag], 1000, 1000)
