"""Where truth lies beside the nuclei: by the edges of the stain, without a model."""

import cv2
import numpy as np

from nucseg_mmdet.imaging.stain import STAIN_OD

RING = 2  # px inside and outside of outlines that are compared
REACH = 4  # px, the farthest offset looked for; the class data's are up to 1.3


class NoOutlineError(ValueError):
    """The truth has no outlines with room to move, or the stain has no edge near them."""


def measure_offset(img: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """Find how truth must be moved to lie on the nuclei.

    The right place is where the hematoxylin just inside of the outlines exceeds that just outside
    by most. Outlines between nuclei that touch have none outside and are left out. The maximum over
    whole pixels is refined by the paraboloid through it and its eight neighbors.

    Args:
        img: uint8, (H, W, 3), RGB.
        truth: bool, (H, W); all nuclei.

    Returns:
        x and y, px: to the right and down.

    Raises:
        NoOutlineError: no outline is ``REACH`` away from the border, or the best place is as far
            away as was looked.
    """
    contrast = _contrast(hematoxylin(img), truth)
    y, x = np.unravel_index(contrast.argmax(), contrast.shape)
    if not (0 < y < 2 * REACH and 0 < x < 2 * REACH):
        raise NoOutlineError(f'no edge of the stain within {REACH} px of the outlines')
    shift_x, shift_y = _vertex(contrast[y - 1 : y + 2, x - 1 : x + 2])
    return float(x - REACH + shift_x), float(y - REACH + shift_y)


def hematoxylin(img: np.ndarray) -> np.ndarray:
    """Amount of hematoxylin in each pixel, float32, (H, W).

    Args:
        img: uint8, (H, W, 3), RGB.

    Source:
        Ruifrok and Johnston, Anal. Quant. Cytol. Histol. 23 (2001).
    """
    density = -np.log((np.arange(256) + 1) / 256)
    share = np.linalg.inv(STAIN_OD)[:, 0]  # of each channel's density
    tables = (share[:, None] * density).astype(np.float32)
    amount = np.zeros(img.shape[:2], np.float32)
    for channel, table in enumerate(tables):
        amount += table[img[..., channel]]
    return amount


def _contrast(stain: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Mean stain inside less that outside of outlines, (y, x), for each offset up to ``REACH``."""
    size = 2 * RING + 1
    disk = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size))
    truth = np.ascontiguousarray(truth, dtype=np.uint8)
    inside = truth & np.bitwise_not(cv2.erode(truth, disk))
    outside = cv2.dilate(truth, disk) & ~truth
    height, width = truth.shape
    steps = range(-REACH, REACH + 1)
    means = []
    for ring in (inside, outside):
        rows, columns = np.nonzero(ring[REACH : height - REACH, REACH : width - REACH])
        if not rows.size:
            raise NoOutlineError(f'no outline of a nucleus {REACH} px or more from the border')
        pixels = (rows + REACH) * width + columns + REACH
        flat = stain.ravel()
        means.append([[flat[pixels + y * width + x].mean() for x in steps] for y in steps])
    return np.subtract(*np.array(means, dtype=np.float64))


def _vertex(values: np.ndarray) -> tuple[float, float]:
    """Where the paraboloid fitted to 3 x 3 values, the largest in the middle, has its vertex."""
    y, x = (axis.ravel() - 1 for axis in np.indices((3, 3)))
    terms = np.stack([np.ones(9), x, y, x * x, x * y, y * y], axis=1)
    _, b_x, b_y, xx, xy, yy = np.linalg.lstsq(terms, values.ravel(), rcond=None)[0]
    bend = np.array([[2 * xx, xy], [xy, 2 * yy]])
    if np.linalg.eigvalsh(bend).max() >= 0:  # a ridge, or flat
        raise NoOutlineError('outlines in one direction only, or no stain')
    return tuple(np.clip(np.linalg.solve(bend, [-b_x, -b_y]), -1, 1))
