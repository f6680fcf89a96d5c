"""Outlines of nuclei on images."""

from collections.abc import Sequence

import cv2
import numpy as np

from nucseg_mmdet.structures.polygons import Polygon

# Bright, distinct from one another and from both stains: no blue, purple, pink, red. RGB.
PALETTE = (
    (255, 255, 0),
    (0, 255, 0),
    (0, 255, 255),
    (255, 140, 0),
    (170, 255, 120),
    (255, 255, 255),
    (120, 200, 255),
)
SCALE = 2  # output px for one image px, so that an outline is thinner than a pixel of the image


def draw_outlines(image: np.ndarray, nuclei: Sequence[Sequence[Polygon]]) -> np.ndarray:
    """Draw every nucleus' outline; neighbors in the list differ in color.

    Args:
        image: uint8, (H, W, 3), BGR.
        nuclei: polygons of each nucleus, px, pixel edges at integers.

    Returns:
        uint8, (SCALE * H, SCALE * W, 3), BGR.
    """
    canvas = cv2.resize(image, None, fx=SCALE, fy=SCALE, interpolation=cv2.INTER_LINEAR)
    for index, polygons in enumerate(nuclei):
        red, green, blue = PALETTE[index % len(PALETTE)]
        # cv2 counts from pixel centers; the fractional bits keep half pixels.
        points = [
            np.rint((np.reshape(polygon, (-1, 2)) * SCALE - 0.5) * 16).astype(np.int32)
            for polygon in polygons
        ]
        cv2.polylines(canvas, points, True, (blue, green, red), 1, cv2.LINE_AA, shift=4)
    return canvas
