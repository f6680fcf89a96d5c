"""Resampling on a grid that is fixed to the slide: neighboring regions agree pixel by pixel.

At a scale of s level-0 px per output px, output column i covers level-0 x from i * s to
(i + 1) * s, whatever region it is read for. An output pixel depends on its index alone, so a
region read in pieces is the region read at once, to the last bit.
"""

from typing import NamedTuple

import cv2
import numpy as np
from scipy.sparse import csr_matrix


class AxisWeights(NamedTuple):
    """How much of each source pixel goes into each output pixel along one axis.

    Attributes:
        first: index of the first source pixel that is needed.
        needed: number of source pixels from there on.
        matrix: float32, (outputs, needed), whose rows add up to 1.
    """

    first: int
    needed: int
    matrix: csr_matrix


def axis_weights(first: int, count: int, step: float, size: int) -> AxisWeights:
    """Weights of source pixels for a range of output pixels.

    Shrinking averages over the area of the output pixel, enlarging interpolates linearly
    between pixel centers. Beyond its ends the source goes on with its last pixel.

    Args:
        first: index of the first output pixel, counted from the slide's edge.
        count: number of output pixels.
        step: source px per output px; below 1 enlarges.
        size: of the source, px.
    """
    index = np.arange(first, first + count)
    if step >= 1:
        start, stop = index * step, (index + 1) * step
        lowest = np.floor(start).astype(np.int64)
        source = lowest[:, None] + np.arange(int(np.ceil(step)) + 1)
        covered = np.minimum(stop[:, None], source + 1) - np.maximum(start[:, None], source)
        weight = np.clip(covered, 0, None)
    else:
        center = (index + 0.5) * step - 0.5
        lowest = np.floor(center).astype(np.int64)
        source = lowest[:, None] + np.arange(2)
        weight = 1 - np.abs(center[:, None] - source)
    weight /= weight.sum(axis=1, keepdims=True)
    row, place = np.nonzero(weight)
    column = np.clip(source[row, place], 0, size - 1)
    lowest_used = int(column.min())
    needed = int(column.max()) - lowest_used + 1
    # Where the source ends, several weights are of one pixel: added up before they are rounded.
    matrix = csr_matrix((weight[row, place], (row, column - lowest_used)), shape=(count, needed))
    return AxisWeights(lowest_used, needed, csr_matrix(matrix, dtype=np.float32))


def apply_weights(image: np.ndarray, rows: csr_matrix, columns: csr_matrix) -> np.ndarray:
    """Resample an image by weights of its rows and of its columns.

    Args:
        image: uint8, (H, W, 3).
        rows: float32, (h, H).
        columns: float32, (w, W).

    Returns:
        uint8, (h, w, 3).
    """
    height, width = image.shape[:2]
    mixed = rows @ image.reshape(height, width * 3).astype(np.float32)
    mixed = cv2.transpose(mixed.reshape(-1, width, 3))
    mixed = columns @ mixed.reshape(width, -1)
    mixed = cv2.transpose(mixed.reshape(len(mixed), -1, 3))
    return np.clip(np.rint(mixed, out=mixed), 0, 255).astype(np.uint8)
