"""Masks of a tile become nuclei: who keeps contested pixels, which part, and exact outlines."""

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from nucseg_mmdet.inference.masks_to_nuclei import paint_without_duplicates, to_nuclei
from nucseg_mmdet.structures.nuclei import MEASUREMENTS
from nucseg_mmdet.structures.polygons import polygons_to_rle

SIZE = 40
AREA = MEASUREMENTS.index('area_um2')


def rectangle(left, top, right, bottom):
    mask = np.zeros((SIZE, SIZE), bool)
    mask[top:bottom, left:right] = True
    return mask


def traced(masks, scores, mpp=1.0):
    rles = [coco_mask.encode(np.asfortranarray(mask, np.uint8)) for mask in masks]
    image = np.full((SIZE, SIZE, 3), 200, np.uint8)
    return to_nuclei(rles, np.array(scores), image, mpp)


def rasterized(nuclei):
    """The pixels inside each ring: what went in, if it had one part without holes."""
    rings = np.split(nuclei.points, np.cumsum(nuclei.sizes)[:-1])
    rles = [polygons_to_rle([ring.ravel().tolist()], SIZE, SIZE) for ring in rings]
    return [coco_mask.decode(rle).astype(bool) for rle in rles]


def test_the_more_certain_keeps_contested_pixels():
    # 3 of 10 columns are contested.
    one, other = rectangle(2, 5, 12, 15), rectangle(9, 5, 19, 15)
    cases = [((0.6, 0.9), (70, 100)), ((0.9, 0.6), (100, 70)), ((0.7, 0.7), (100, 70))]
    for scores, expected in cases:  # of equal scores the first, as where they are scored
        found = traced([one, other], scores)
        assert found.measurements[:, AREA].tolist() == list(expected)
        assert sum(rasterized(found)).max() == 1
        assert found.scores.tolist() == np.float32(scores).tolist()


def test_outlines_stay_with_their_nuclei():
    # The first nucleus loses its upper rows to the second, so that its ring is found later.
    found = traced([rectangle(2, 5, 12, 15), rectangle(2, 2, 12, 8)], [0.6, 0.9])
    left = [rectangle(2, 8, 12, 15), rectangle(2, 2, 12, 8)]
    assert (np.array(rasterized(found)) == left).all()
    assert found.centroids.tolist() == [[7, 11.5], [7, 5]]


@pytest.mark.parametrize(('left', 'kept'), [(7, 2), (6, 1), (2, 1)])
def test_what_is_covered_by_more_than_half_is_a_duplicate(left, kept):
    # Of 10 columns 5, 6 or all are covered.
    found = traced([rectangle(2, 5, 12, 15), rectangle(left, 5, left + 10, 15)], [0.9, 0.6])
    assert found.sizes.size == kept


def test_a_duplicate_takes_nothing_from_others():
    # The middle one, half below the first, is two nuclei in one; the last is one of the two.
    found = traced(
        [rectangle(2, 5, 12, 15), rectangle(2, 5, 21, 15), rectangle(12, 5, 21, 15)],
        [0.9, 0.8, 0.7],
    )
    assert found.measurements[:, AREA].tolist() == [100, 90]
    # Here it only borders on the last, and is gone all the same.
    found = traced(
        [rectangle(2, 5, 12, 15), rectangle(6, 5, 15, 15), rectangle(13, 5, 22, 15)],
        [0.9, 0.8, 0.7],
    )
    assert found.measurements[:, AREA].tolist() == [100, 90]


def test_duplicates_are_those_of_the_masks_in_turn():
    rng = np.random.default_rng(3)
    for _ in range(30):
        corners = rng.integers(0, 30, (25, 2))
        masks = [
            rectangle(x, y, x + width, y + height)
            for (x, y), (width, height) in zip(corners, rng.integers(4, 12, (25, 2)), strict=True)
        ]
        scores = rng.permutation(25) / 25
        taken, areas = np.zeros((SIZE, SIZE), bool), {}
        for index in np.argsort(-scores):
            free = masks[index] & ~taken
            if free.sum() >= masks[index].sum() / 2:
                taken |= free
                areas[index] = free.sum()
        rles = [coco_mask.encode(np.asfortranarray(mask, np.uint8)) for mask in masks]
        painted, kept = paint_without_duplicates(rles, scores, (SIZE, SIZE))
        assert kept.tolist() == sorted(areas)
        assert np.bincount(painted.ravel(), minlength=26)[kept + 1].tolist() == [
            areas[index] for index in kept
        ]


def test_the_largest_part_stays_and_holes_are_filled():
    mask = rectangle(5, 5, 15, 15)
    mask[8:10, 8:10] = False
    mask |= rectangle(17, 5, 19, 8)  # a part of 6 px
    mask[15, 15] = True  # touches at a corner only
    found = traced([mask], [0.9], mpp=0.5)
    assert found.points.tolist() == [[5, 5], [15, 5], [15, 15], [5, 15]]
    assert found.measurements[:, AREA].tolist() == [25]  # 100 px of 0.25 square microns
    assert found.centroids.tolist() == [[10, 10]]


@pytest.mark.parametrize('scores', [(0.9, 0.6), (0.6, 0.9)])
@pytest.mark.parametrize('ring', [False, True])
def test_a_nucleus_within_another_is_dropped(scores, ring):
    # 10 x 10 px within 30 x 30 px; the network may have left the hole itself.
    outer, inner = rectangle(5, 5, 35, 35), rectangle(15, 15, 25, 25)
    beside = rectangle(36, 5, 39, 8)
    found = traced([outer & ~inner if ring else outer, inner, beside], [*scores, 0.7])
    assert found.measurements[:, AREA].tolist() == [900, 9]
    assert found.points[:4].tolist() == [[5, 5], [35, 5], [35, 35], [5, 35]]
    assert found.scores.tolist() == np.float32([scores[0], 0.7]).tolist()


def test_a_nucleus_in_a_bay_of_another_stays():
    outer, inner = rectangle(5, 5, 35, 35), rectangle(15, 5, 25, 25)
    found = traced([outer, inner], [0.6, 0.9])
    assert found.measurements[:, AREA].tolist() == [700, 200]


def test_a_hole_that_touches_the_outside_at_a_corner_is_filled():
    mask = rectangle(5, 5, 9, 9)
    mask[6, 6] = mask[5, 5] = False
    found = traced([mask], [0.9])
    mask[6, 6] = True
    assert (rasterized(found)[0] == mask).all()


def test_masks_at_the_border_of_the_tile():
    masks = [rectangle(0, 0, 4, 4), rectangle(SIZE - 3, SIZE - 5, SIZE, SIZE)]
    found = traced(masks, [0.9, 0.8])
    assert (np.array(rasterized(found)) == masks).all()


def test_random_masks_come_back():
    rng = np.random.default_rng(0)
    masks = []
    for _ in range(60):
        mask = rectangle(*(corner := rng.integers(0, 30, 2)), *(corner + rng.integers(2, 10, 2)))
        masks.append(mask & (rng.random((SIZE, SIZE)) < 0.9))
    masks = [mask for mask in masks if mask.any()]
    for mask in masks:
        found = traced([mask], [0.5])
        (ring,) = rasterized(found)
        assert found.sizes.size == 1
        assert ring.sum() == found.measurements[0, AREA]
        assert (ring & mask).sum() >= 0.5 * ring.sum()
        y, x = np.nonzero(ring)
        assert found.centroids[0] == pytest.approx([x.mean() + 0.5, y.mean() + 0.5], abs=1e-9)
    together = rasterized(traced(masks, rng.random(len(masks))))
    assert len(together) < len(masks)  # they lie on top of each other
    assert np.sum(together, axis=0).max() == 1


@pytest.mark.parametrize('masks', [[], [np.zeros((SIZE, SIZE), bool)]])
def test_nothing_found(masks):
    assert len(traced(masks, [0.9] * len(masks))) == 0


def test_classes_stay_with_their_nuclei():
    """Of two masks of one nucleus the surer one's class; the others' as they were."""
    masks = [rectangle(20, 5, 30, 15), rectangle(2, 5, 12, 15), rectangle(3, 5, 13, 15)]
    rles = [coco_mask.encode(np.asfortranarray(mask, np.uint8)) for mask in masks]
    image = np.full((SIZE, SIZE, 3), 200, np.uint8)
    scores, labels = np.array([0.7, 0.6, 0.9]), np.array([4, 1, 2])
    found = to_nuclei(rles, scores, image, 0.25, labels)
    by_place = dict(zip(found.centroids[:, 0].tolist(), found.labels.tolist(), strict=True))
    assert by_place == {25.0: 4, 8.0: 2}
    assert found.labels.dtype == np.uint8
    assert traced(masks, scores).labels.tolist() == [0, 0]
