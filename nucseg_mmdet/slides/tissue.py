"""Tissue against glass at low power, so that empty parts of a slide are passed over.

Losing tissue costs nuclei, keeping glass costs time: every doubt counts as tissue. Pen marks do,
since blue and red ones share their colors with the stains, and so do dust and bubbles. Black
borders, which scanners paint where they have not looked, do not.
"""

from typing import NamedTuple

import cv2
import numpy as np

from nucseg_mmdet.imaging.stain import GLASS, MAX_DENSITY
from nucseg_mmdet.slides.base import RegionError, Slide

# What may be glass: bright and gray or slightly tinted, but not pink. Both stains take most from
# the green light (Ruifrok and Johnston 2001, see ``stain.STAIN_OD``), the light of a lamp does not.
MIN_GLASS, MAX_TINT, MAX_PINK = 200, 20, 3  # gray levels: darkest channel, range, lack of green
GLASS_RANK = 90  # percentile of the candidates that stands for glass: pale tissue is darker
MASK_MPP = 8.0  # microns per pixel
# Optical density above that of glass at this size of a pixel. It is exceeded under the centers of
# all but 4 of the 14,598 nuclei of the class' training images, and those lie within the margin;
# unevenly lit glass differs by about 0.03.
MIN_DENSITY = 0.06
MIN_PINK = 0.02  # of green above red and above blue: 5 gray levels; finds the faintest eosin
PLACES, PLACE_SIDE = 8, 64  # a side, and px of each, that ``is_white`` looks at
MAX_DARK = 0.01  # share of pixels that dust and scratches may make darker than glass
MARGIN = 32  # microns that tissue is grown by: about three nuclei
BLACK_LIGHT = 240 * np.exp(-MAX_DENSITY)  # gray level, 12; no tissue is so dark at low power
OUTLINE, GRID = (0, 140, 0), (0, 90, 255)  # RGB
DRAWN_SIDE = 1500  # px


class TissueMask(NamedTuple):
    """Where the tissue of a slide is, at low power.

    Attributes:
        tissue: bool, (h, w); pixels that look like tissue.
        keep: bool, (h, w); these and a margin around them: where to look for nuclei.
        scale: level-0 px per pixel of the masks.
    """

    tissue: np.ndarray
    keep: np.ndarray
    scale: float

    def area_mm2(self, mpp: float, region: tuple[int, int, int, int]) -> float:
        """Area of the tissue without its margin, in a region of the slide.

        A pixel counts with its part in the region, and the last one also stands for what is left
        of the slide behind it: of an image of 300 px, whole pixels would be 288 or 320.

        Args:
            mpp: microns per level-0 px.
            region: x, y, width, height, level-0 px.
        """
        rows, columns = self.tissue.shape
        down = _inside(region[1], region[3], rows, self.scale)
        across = _inside(region[0], region[2], columns, self.scale)
        return float(down @ self.tissue @ across) * (mpp / 1000) ** 2

    def holds(self, rectangles: np.ndarray) -> np.ndarray:
        """Which rectangles have a pixel to keep.

        Args:
            rectangles: float, (N, 4), x, y, width, height, level-0 px.

        Returns:
            bool, (N,).
        """
        height, width = self.keep.shape
        counts = cv2.integral(self.keep.astype(np.uint8))
        low = np.asarray(rectangles, float).reshape(-1, 4) / self.scale
        high = np.ceil(low[:, :2] + low[:, 2:]).astype(int)
        low = np.floor(low[:, :2]).astype(int)
        # The last pixel also stands for what is left of the slide behind it, half of one at most.
        left, top = np.clip(low, 0, (width - 1, height - 1)).T
        right, bottom = np.clip(high, 1, (width, height)).T
        sums = counts[bottom, right] - counts[top, right] - counts[bottom, left]
        return sums + counts[top, left] > 0


def _inside(start: float, length: float, number: int, scale: float) -> np.ndarray:
    """How much of each pixel of the mask is in a region, on one axis: float, (N,), level-0 px."""
    edges = np.clip(np.arange(number + 1) * scale, start, start + length)
    edges[-1] = start + length
    return np.diff(edges)


def tissue_mask(slide: Slide) -> TissueMask:
    """Tell tissue from glass.

    Tissue is what is darker than glass in any channel, or lacks green light. The color of
    glass is that of the brightest pixels which are not pink; where there are none, a light gray.

    Args:
        slide: read at low power, strip by strip where it has no such level.

    Raises:
        RegionError: the slide is damaged.
    """
    scale = max(1.0, MASK_MPP / slide.mpp)
    # A slide that is thinner than half a pixel of the mask still has one.
    image = slide.read(0, 0, max(slide.width, scale), max(slide.height, scale), scale)
    tissue = find_tissue(image)
    radius = max(1, round(MARGIN / (scale * slide.mpp)))
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * radius + 1,) * 2)
    keep = cv2.dilate(tissue.astype(np.uint8), kernel).astype(bool)
    return TissueMask(tissue, keep, scale)


def is_white(slide: Slide, region: tuple[int, int, int, int]) -> bool:
    """Whether the full-resolution pixels at places all over a region are as bright as glass.

    Unlike the mask, this looks at no lower level, which may be one of another image.
    """
    x, y, width, height = region
    dark = total = 0
    for row, column in np.ndindex(PLACES, PLACES):
        left = x + max(0, width - PLACE_SIDE) * column // (PLACES - 1)
        top = y + max(0, height - PLACE_SIDE) * row // (PLACES - 1)
        try:
            part = slide.read(left, top, min(width, PLACE_SIDE), min(height, PLACE_SIDE))
        except RegionError:
            continue
        dark += np.count_nonzero(part.min(axis=2) < MIN_GLASS)
        total += part.shape[0] * part.shape[1]
    return dark <= MAX_DARK * total


def find_tissue(image: np.ndarray) -> np.ndarray:
    """Tell tissue from glass in an image of low power: bool, (H, W).

    Args:
        image: uint8, (H, W, 3), RGB, about 8 microns per pixel.
    """
    levels = image.astype(np.int16)
    red, green, blue = np.moveaxis(levels, 2, 0)
    lowest, highest = levels.min(axis=2), levels.max(axis=2)
    pink = np.minimum(red, blue) - green
    bright = (lowest >= MIN_GLASS) & (highest - lowest <= MAX_TINT) & (pink <= MAX_PINK)
    glass = np.percentile(image[bright], GLASS_RANK, axis=0) if bright.any() else np.full(3, GLASS)
    density = np.log(((glass + 1) / (np.arange(256)[:, None] + 1)).astype(np.float32))
    red, green, blue = (density[image[..., channel], channel] for channel in range(3))
    tissue = np.maximum(np.maximum(red, green), blue) > MIN_DENSITY
    tissue |= green - np.maximum(red, blue) > MIN_PINK
    # Pixels on the edge of a black border are half black and gray.
    black = cv2.dilate((highest < BLACK_LIGHT).astype(np.uint8), np.ones((3, 3), np.uint8))
    return tissue & (black == 0)


def draw_mask(slide: Slide, mask: TissueMask, rectangles: np.ndarray | None = None) -> np.ndarray:
    """Draw what is kept of a slide: the rest is dimmed.

    Args:
        slide: that the mask is of.
        mask: its edge is drawn in green.
        rectangles: (N, 4), x, y, width, height, level-0 px, such as the tiles; those that hold
            tissue are drawn in blue.

    Returns:
        uint8, (h, w, 3), RGB, no side longer than ``DRAWN_SIDE``.
    """
    scale = max(1.0, max(slide.width, slide.height) / DRAWN_SIDE)
    # A slide that is thinner than half a pixel of the picture still has one.
    image = slide.read(0, 0, max(slide.width, scale), max(slide.height, scale), scale)
    height, width = image.shape[:2]
    keep = cv2.resize(mask.keep.astype(np.uint8), (width, height), interpolation=cv2.INTER_NEAREST)
    image[keep == 0] = image[keep == 0] // 2 + 60
    contours, _ = cv2.findContours(keep, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    if rectangles is not None:
        for x, y, w, h in np.asarray(rectangles)[mask.holds(rectangles)] / scale:
            cv2.rectangle(image, (round(x), round(y)), (round(x + w), round(y + h)), GRID, 1)
    return cv2.drawContours(image, contours, -1, OUTLINE, 2)
