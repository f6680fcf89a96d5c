"""Measurements of nuclei, against scikit-image one nucleus at a time."""

import numpy as np
import pytest
from skimage.color import hed_from_rgb, rgb2hed
from skimage.draw import ellipse
from skimage.measure import regionprops

from nucseg_mmdet.imaging.measure import measure
from nucseg_mmdet.structures.nuclei import MEASUREMENTS

WHITE = np.full((400, 400, 3), 255, np.uint8)
SHAPES = MEASUREMENTS[:7]


def reference(mask):
    """Row, column of the centroid between pixel centers, then the shape in px."""
    found = regionprops(mask.astype(np.uint8))[0]
    perimeter = found.perimeter
    return [
        *found.centroid,
        found.area,
        perimeter,
        4 * np.pi * found.area / perimeter**2 if perimeter else np.nan,
        found.axis_major_length,
        found.axis_minor_length,
        found.eccentricity,
        found.solidity,
    ]


def drawn(height, width, *pixels):
    mask = np.zeros((height, width), bool)
    for rows, columns in pixels:
        mask[rows, columns] = True
    return mask


def oval(radius, other, angle):
    side = 2 * max(radius, other) + 3
    return drawn(side, side, ellipse(side / 2, side / 2, radius, other, rotation=angle))


def random_masks(num, side, seed):
    rng = np.random.default_rng(seed)
    masks = [
        rng.random(rng.integers(1, side, 2)) < rng.choice([0.1, 0.5, 0.9, 1]) for _ in range(num)
    ]
    return [mask for mask in masks if mask.any()]


def ovals(num, seed):
    rng = np.random.default_rng(seed)
    return [oval(*rng.uniform(2, 16, 2).round().astype(int), rng.uniform(0, 3)) for _ in range(num)]


every, first = slice(None), slice(0, 1)
MASKS = {
    'random': random_masks(300, 14, seed=0),
    'random-wide': random_masks(100, 60, seed=1),
    'ovals': ovals(100, seed=2),
    'one-pixel': [np.ones((1, 1), bool), drawn(5, 7, (2, 3))],
    'thin': [
        np.ones((1, 2), bool),
        np.ones((1, 30), bool),
        np.ones((30, 1), bool),
        np.eye(25, dtype=bool),
        np.eye(25, dtype=bool)[::-1],
        drawn(20, 39, (np.arange(20), 2 * np.arange(20))),
    ],
    'large': [oval(150, 90, 0.4), oval(170, 170, 0), np.ones((350, 390), bool)],
    'concave': [
        drawn(12, 12, (first, every), (every, first), (slice(11, 12), every)),  # C
        drawn(9, 9, (4, every), (every, 4)),  # cross
        drawn(30, 30, (every, first), (slice(29, 30), every)),  # L
        oval(12, 12, 0) & ~np.pad(oval(5, 5, 0), 7),  # ring
        oval(120, 120, 0) & (np.arange(243) > 100),
        # A parabola and, below it, a far point: the hull loses its corners one by one.
        np.arange(60) ** 2 // 40 <= np.where(np.arange(61) < 60, np.arange(61), 90)[:, None],
    ],
    'apart': [
        drawn(9, 9, (1, 2), (7, 6)),
        drawn(20, 30, (0, slice(10, 20)), (19, 3)),
        drawn(7, 5, (0, 0), (0, 4), (6, 2)),
    ],
}


@pytest.mark.parametrize('masks', MASKS.values(), ids=MASKS)
def test_shapes_are_those_of_scikit_image(masks):
    centroids, measured = measure(masks, np.zeros((len(masks), 2), int), WHITE, mpp=1)
    expected = np.array([reference(mask) for mask in masks])
    np.testing.assert_allclose(measured[:, : len(SHAPES)], expected[:, 2:], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(centroids[:, ::-1] - 0.5, expected[:, :2], rtol=0, atol=1e-9)
    assert measured.dtype == np.float32


def test_a_square_by_hand():
    # 3 x 3 px: 8 border pixels, each with 1 px of perimeter. Along each axis the pixels are at
    # -1, 0, 1 three times each, so the variance is 2/3 and both axes are 4 sqrt(2/3).
    centroids, measured = measure([np.ones((3, 3), bool)], [[10, 20]], WHITE, mpp=0.5)
    assert centroids.tolist() == [[11.5, 21.5]]
    axis = 4 * np.sqrt(2 / 3) * 0.5
    expected = [9 * 0.25, 8 * 0.5, 4 * np.pi * 9 / 64, axis, axis, 0, 1, 0, 0]
    np.testing.assert_allclose(measured, [expected], atol=1e-6)


def test_one_pixel_by_hand():
    centroids, measured = measure([np.ones((1, 1), bool)], [[3, 5]], WHITE, mpp=1)
    assert centroids.tolist() == [[3.5, 5.5]]
    np.testing.assert_array_equal(measured, [[1, 0, np.nan, 0, 0, 0, 1, 0, 0]])


def test_overlapping_nuclei_are_measured_on_their_own_pixels():
    masks = ovals(20, seed=3)
    corners = np.random.default_rng(4).integers(0, 20, (20, 2))
    image = np.random.default_rng(5).integers(1, 256, (60, 60, 3), dtype=np.uint8)
    together = measure(masks, corners, image, mpp=0.25)
    for index, mask in enumerate(masks):
        alone = measure([mask], corners[index : index + 1], image, mpp=0.25)
        assert (alone[0] == together[0][index]).all()
        np.testing.assert_allclose(alone[1][0], together[1][index], rtol=1e-6)


def test_stains_are_six_times_those_of_scikit_image():
    # Mixtures of all three stains, so that scikit-image cuts nothing off at 0.
    rng = np.random.default_rng(6)
    amounts = rng.uniform(0.1, 0.5, (40, 50, 3))
    image = (255 * 10 ** -(amounts @ np.linalg.inv(hed_from_rgb))).round().astype(np.uint8)
    hed = rgb2hed(image)
    assert hed.min() > 0
    masks, corners = ovals(10, seed=7), rng.integers(0, 5, (10, 2))
    _, measured = measure(masks, corners, image, mpp=1)
    for mask, (x, y), row in zip(masks, corners, measured, strict=True):
        window = hed[y : y + mask.shape[0], x : x + mask.shape[1]]
        np.testing.assert_allclose(row[7:], 6 * window[mask].mean(0)[:2], rtol=1e-5)


def test_negative_amounts_stay():
    green = np.full((4, 4, 3), (120, 230, 120), np.uint8)
    _, measured = measure([np.ones((4, 4), bool)], [[0, 0]], green, mpp=1)
    expected = -np.log10(green[0, 0] / 255) @ hed_from_rgb
    np.testing.assert_allclose(measured[0, 7:], expected[:2], rtol=1e-6)
    assert measured[0, 8] < 0
    assert rgb2hed(green)[0, 0, 1] == 0


def test_black_is_finite():
    _, measured = measure([np.ones((2, 2), bool)], [[0, 0]], np.zeros((2, 2, 3), np.uint8), mpp=1)
    # As dark as gray value 1 in every channel.
    expected = np.log10(255) * np.ones(3) @ hed_from_rgb
    np.testing.assert_allclose(measured[0, 7:], expected[:2], rtol=1e-6)


def test_no_nuclei():
    centroids, measured = measure([], np.zeros((0, 2)), WHITE, mpp=1)
    assert centroids.shape == (0, 2)
    assert measured.shape == (0, len(MEASUREMENTS))


def test_an_empty_mask_is_refused():
    with pytest.raises(ValueError, match='mask 1 is empty'):
        measure([np.ones((1, 1), bool), np.zeros((2, 2), bool)], [[0, 0], [0, 0]], WHITE, mpp=1)


@pytest.mark.parametrize('corner', [(-1, 0), (0, -1), (398, 0), (0, 398)])
def test_masks_beyond_the_image_are_refused(corner):
    with pytest.raises(ValueError, match='expected 0, 0 to 400, 400'):
        measure([np.ones((3, 3), bool)], [corner], WHITE, mpp=1)
