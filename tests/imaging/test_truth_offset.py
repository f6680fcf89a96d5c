"""Offsets of truth: made-up nuclei, drawn finely and moved by parts of a pixel."""

import numpy as np
import pytest

from nucseg_mmdet.imaging.truth_offset import NoOutlineError, measure_offset

SIDE, FINE = 120, 10  # px, steps a pixel
WHERE = np.arange(20, SIDE - 19, 20)  # centers
TISSUE, NUCLEUS = np.array([225, 160, 190]), np.array([90, 60, 140])  # eosin, hematoxylin; RGB


def disks(offset_x: float, offset_y: float) -> np.ndarray:
    """Share of each pixel that nuclei of 6 px radius cover."""
    axis = (np.arange(SIDE * FINE) + 0.5) / FINE
    y, x = axis[:, None] - offset_y, axis[None] - offset_x
    near_y, near_x = (value - WHERE[np.abs(value.ravel()[:, None] - WHERE).argmin(1)].reshape(
        value.shape) for value in (y, x))  # fmt: skip
    covered = near_y**2 + near_x**2 < 36
    return covered.reshape(SIDE, FINE, SIDE, FINE).mean((1, 3))


def image(share: np.ndarray) -> np.ndarray:
    return np.rint(TISSUE + share[..., None] * (NUCLEUS - TISSUE)).astype(np.uint8)


@pytest.mark.parametrize('offset', [(0, 0), (0.4, 0.6), (-0.5, 1.3), (-2.5, -0.25)])
def test_the_offset_that_nuclei_were_drawn_with_is_found(offset):
    img, truth = image(disks(*offset))[:90], disks(0, 0)[:90] > 0.5
    # 0.05: a paraboloid is not quite the shape of the peak.
    np.testing.assert_allclose(measure_offset(img, truth), offset, atol=0.05)


def test_nuclei_that_touch_do_not_count_between_them():
    share = disks(0.5, 0)
    truth = disks(0, 0) > 0.5
    truth[60:62, 14:107] = True  # a bridge through a row of them
    np.testing.assert_allclose(measure_offset(image(share), truth), (0.5, 0), atol=0.1)


@pytest.mark.parametrize('truth', [np.zeros((SIDE, SIDE), bool), np.ones((SIDE, SIDE), bool)])
def test_truth_without_outlines_is_refused(truth):
    with pytest.raises(NoOutlineError, match='no outline'):
        measure_offset(image(disks(0, 0)), truth)


def test_an_image_without_stain_is_refused():
    white = np.full((SIDE, SIDE, 3), 255, np.uint8)
    with pytest.raises(NoOutlineError):
        measure_offset(white, disks(0, 0) > 0.5)


def test_nuclei_farther_away_than_was_looked_are_refused():
    with pytest.raises(NoOutlineError, match='within 4 px'):
        measure_offset(image(disks(6, 0)), disks(0, 0) > 0.5)
