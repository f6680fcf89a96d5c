"""Resampling by weights: against hand-worked values, and the same for every cut."""

import numpy as np
import pytest

from nucseg_mmdet.slides.resample import apply_weights, axis_weights


def resample_row(values, first, count, step):
    image = np.repeat(np.array(values, np.uint8)[None, :, None], 3, axis=2)
    offset, needed, across = axis_weights(first, count, step, len(values))
    _, _, down = axis_weights(0, 1, 1.0, 1)
    part = image[:, offset : offset + needed]
    result = apply_weights(part, down, across)
    assert (result[..., 0] == result[..., 2]).all()
    return result[0, :, 0].tolist()


@pytest.mark.parametrize(
    ('step', 'expected'),
    [
        (1.0, [0, 30, 90, 150]),
        (2.0, [15, 120]),  # (0 + 30) / 2, (90 + 150) / 2
        # (0 + 30 / 2) / 1.5, (30 / 2 + 90) / 1.5; the third goes on with the last pixel:
        # 150 over 3 to 4.5
        (1.5, [10, 70, 150]),
        # (0 + 3/4 * 30) / 1.75, (1/4 * 30 + 90 + 150 / 2) / 1.75: from 1.75 to 3.5 are parts of
        # three pixels
        (1.75, [13, 99]),
        # Centers at 0.25, 0.75, 1.25, ...; pixel centers at 0.5, 1.5, ...; beyond the first
        # center the first pixel: 0, 0.75 * 0 + 0.25 * 30 = 7.5, 22.5, 45, 75, 105, 135, 150
        (0.5, [0, 8, 22, 45, 75, 105, 135, 150]),
    ],
)
def test_hand_worked(step, expected):
    assert resample_row([0, 30, 90, 150], 0, len(expected), step) == expected


def test_weights_are_as_exact_far_from_the_edge():
    # 123,456 times 1.6 is 197,529.6; to 197,531.2 it is 0.4, 1 and 0.2 px.
    offset, needed, weights = axis_weights(123_456, 1, 1.6, 200_000)
    assert (offset, needed, weights.dtype) == (197_529, 3, np.float32)
    np.testing.assert_allclose(weights.toarray(), [[0.25, 0.625, 0.125]], rtol=1e-6)


@pytest.mark.parametrize('step', [0.3, 0.77, 1.0, 1.6, 2.0, 3.7, 33.3])
def test_any_cut_gives_the_same_pixels(step):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (200, 300, 3), dtype=np.uint8)

    def resample(left, top, columns, rows):
        x, width, across = axis_weights(left, columns, step, 300)
        y, height, down = axis_weights(top, rows, step, 200)
        return apply_weights(image[y : y + height, x : x + width], down, across)

    columns, rows = int(300 / step), int(200 / step)
    whole = resample(0, 0, columns, rows)
    for _ in range(10):
        left, top = rng.integers(columns), rng.integers(rows)
        right, bottom = rng.integers(left, columns) + 1, rng.integers(top, rows) + 1
        part = resample(left, top, right - left, bottom - top)
        np.testing.assert_array_equal(part, whole[top:bottom, left:right])


def test_shrinking_keeps_the_mean():
    rng = np.random.default_rng(1)
    image = rng.integers(0, 256, (160, 160, 3), dtype=np.uint8)
    _, _, weights = axis_weights(0, 100, 1.6, 160)
    small = apply_weights(image, weights, weights)
    # Every pixel counts with the same weight; rounding to gray levels is even on average.
    np.testing.assert_allclose(weights.sum(axis=0), 1 / 1.6, rtol=1e-6)
    assert small.mean() == pytest.approx(image.mean(), abs=0.05)
