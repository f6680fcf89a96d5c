"""The architecture of made-up tissue, and the random textures that it is painted with."""

from typing import NamedTuple

import cv2
import numpy as np
from scipy import ndimage

MIN_DIAMETER = 9  # px, typical; the smallest class median is 11
MAX_COVERAGE = 0.4  # of the image; the densest class images reach 0.4


class Tissue(NamedTuple):
    """Architecture of one image; all maps are float32, (H, W)."""

    depth: np.ndarray  # px inside the epithelium, negative in the stroma
    lumen_depth: float  # px; the epithelium opens into a lumen beyond this depth
    angle: np.ndarray  # of the stroma fibres, radians from the x axis
    diameter: float  # typical nucleus, px


def lay_out_tissue(rng: np.random.Generator, height: int, width: int, count: int) -> Tissue:
    """Draw glands in stroma for about so many nuclei."""
    shape = (height, width)
    room = np.sqrt(MAX_COVERAGE * height * width / (np.pi / 4 * max(count, 1)))
    diameter = max(MIN_DIAMETER, min(rng.uniform(18, 31), room))
    field = noise(rng, shape, 1.5 * diameter)
    glands = field > np.quantile(field, rng.uniform(0.3, 0.75))
    depth = distance_within(glands) - distance_within(~glands)
    depth = cv2.GaussianBlur(depth.astype(np.float32), (0, 0), 2)
    # Fibres run around the glands and, far from them, along one direction. Angles are
    # averaged as doubled angles, since a fibre has no forward and backward.
    dy, dx = np.gradient(cv2.GaussianBlur(depth, (0, 0), diameter / 4))
    around = 2 * np.arctan2(dx, -dy)
    near = np.exp(-np.abs(depth) / (2 * diameter))
    main = 2 * rng.uniform(0, np.pi)
    parts = [near * f(around) + (1 - near) * f(main) for f in (np.sin, np.cos)]
    sin, cos = (cv2.GaussianBlur(part.astype(np.float32), (0, 0), diameter / 3) for part in parts)
    angle = np.arctan2(sin, cos) / 2
    angle += 0.3 * noise(rng, shape, 7) + 0.25 * noise(rng, shape, 25)
    return Tissue(depth, rng.uniform(1.8, 3.0) * diameter, angle, diameter)


def distance_within(mask: np.ndarray) -> np.ndarray:
    """How far each pixel of a mask is from its outside, px: float64, 0 outside."""
    return np.asarray(ndimage.distance_transform_edt(mask))


def noise(rng: np.random.Generator, shape: tuple[int, int], sigma: float) -> np.ndarray:
    """Smooth noise, float32, mean 0, standard deviation about 1; ``sigma`` in px."""
    step = max(1, int(sigma / 3))  # coarse noise is made on a coarse grid: the blur is cheap
    small = rng.standard_normal((-(-shape[0] // step) + 1, -(-shape[1] // step) + 1))
    small = cv2.GaussianBlur(small, (0, 0), sigma / step)
    small *= 2 * np.sqrt(np.pi) * sigma / step
    full = cv2.resize(small, None, fx=step, fy=step, interpolation=cv2.INTER_CUBIC)
    return full[: shape[0], : shape[1]].astype(np.float32)


def step(values: np.ndarray, softness: float) -> np.ndarray:
    """Go softly from 0 to 1 around 0.

    Args:
        values: float, any shape.
        softness: value at which 0.88 is reached.

    Returns:
        float, as ``values``.
    """
    return 0.5 * (1 + np.tanh(values / softness))


def smear(values: np.ndarray, angle: np.ndarray, length: int) -> np.ndarray:
    """Smear values along lines.

    Args:
        values: float32, (H, W).
        angle: float32, (H, W), of the line through each pixel, radians from the x axis.
        length: px to both sides.

    Returns:
        float32, (H, W), of standard deviation 1.

    Source:
        Line integral convolution: Cabral and Leedom, SIGGRAPH 1993.
    """
    cos, sin = np.cos(angle), np.sin(angle)
    rows, columns = np.indices(values.shape, dtype=np.float32)
    total = values.copy()
    for sign in (1, -1):
        x, y, step_x, step_y = columns, rows, sign * cos, sign * sin
        for _ in range(length):
            x, y = x + step_x, y + step_y
            total += cv2.remap(values, x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
            new_x, new_y = (
                cv2.remap(f, x, y, cv2.INTER_NEAREST, borderMode=cv2.BORDER_REFLECT_101)
                for f in (cos, sin)
            )
            turn = np.sign(new_x * step_x + new_y * step_y)  # a fibre does not turn back
            step_x, step_y = turn * new_x, turn * new_y
    return total / total.std()
