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
FONT, KEY_SCALE, KEY_LINE = cv2.FONT_HERSHEY_SIMPLEX, 0.5, 20  # of the key, px a line
SCALE = 2  # output px for one image px, so that an outline is thinner than a pixel of the image


def draw_outlines(
    image: np.ndarray,
    nuclei: Sequence[Sequence[Polygon]],
    colors: Sequence[tuple[int, int, int]] | None = None,
) -> np.ndarray:
    """Draw every nucleus' outline.

    Args:
        image: uint8, (H, W, 3), BGR.
        nuclei: polygons of each nucleus, px, pixel edges at integers.
        colors: R, G, B of each; by default neighbors in the list differ.

    Returns:
        uint8, (SCALE * H, SCALE * W, 3), BGR.
    """
    canvas = cv2.resize(image, None, fx=SCALE, fy=SCALE, interpolation=cv2.INTER_LINEAR)
    for index, polygons in enumerate(nuclei):
        red, green, blue = colors[index] if colors else PALETTE[index % len(PALETTE)]
        # cv2 counts from pixel centers; the fractional bits keep half pixels.
        points = [
            np.rint((np.reshape(polygon, (-1, 2)) * SCALE - 0.5) * 16).astype(np.int32)
            for polygon in polygons
        ]
        cv2.polylines(canvas, points, True, (blue, green, red), 1, cv2.LINE_AA, shift=4)
    return canvas


def draw_key(
    canvas: np.ndarray, names: Sequence[str], colors: Sequence[tuple[int, int, int]]
) -> np.ndarray:
    """Name colors on a picture, in place, at the top left where it is large enough.

    Args:
        canvas: uint8, (H, W, 3), BGR.
        names: to write; letters that OpenCV cannot draw become question marks.
        colors: R, G, B of each.
    """
    widths = [cv2.getTextSize(name, FONT, KEY_SCALE, 1)[0][0] for name in names]
    width, height = max(widths) + 40, KEY_LINE * len(names) + 8
    if height > canvas.shape[0] // 4 or width > canvas.shape[1] // 4:  # too much of it covered
        return canvas
    canvas[:height, :width] = canvas[:height, :width] // 4
    for index, (name, (red, green, blue)) in enumerate(zip(names, colors, strict=True)):
        y = KEY_LINE * index + KEY_LINE // 2 + 4
        cv2.line(canvas, (8, y), (26, y), (blue, green, red), 3, cv2.LINE_AA)
        at = (32, y + 5)
        cv2.putText(canvas, name, at, FONT, KEY_SCALE, (255, 255, 255), 1, cv2.LINE_AA)
    return canvas
