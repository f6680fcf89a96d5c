"""The working image: what the model's pixels are on a slide, and which part of it they cover."""

from typing import NamedTuple

import numpy as np

from nucseg_mmdet.slides.base import Slide
from nucseg_mmdet.slides.pixel_size import MODEL_MPP
from nucseg_mmdet.utils.errors import UserError

MOST_ENLARGED = 4  # nuclei of coarser images are a few px wide, and nobody has tried

Region = tuple[int, int, int, int]  # x, y, width, height, level-0 px


class Frame(NamedTuple):
    """The working image: a slide, or a region of it, at the model's resolution.

    Attributes:
        region: the part of the slide that it covers.
        scale: level-0 px per working px.
        left: of the region's corner, working px from the slide's.
        top: likewise.
        width: working px.
        height: working px.
    """

    region: Region
    scale: float
    left: int
    top: int
    width: int
    height: int

    @property
    def corner(self) -> tuple[float, float]:
        """x, y of the first working pixel, level-0 px; off the region's by half a working px."""
        return self.left * self.scale, self.top * self.scale

    def read(self, slide: Slide, x: int, y: int, width: int, height: int) -> np.ndarray:
        """Read a part, given in working px from the region's corner."""
        corner = (self.left + x) * self.scale, (self.top + y) * self.scale
        return slide.read(*corner, width * self.scale, height * self.scale, self.scale)


def make_frame(slide: Slide, region: Region | None = None) -> Frame:
    """Lay the model's pixels over a slide.

    Args:
        slide: opened.
        region: what lies beyond the slide is left out; by default the whole slide.

    Raises:
        UserError: the region is not on the slide, or its pixels are too large.
    """
    x, y, width, height = region = _clip(region, slide)
    scale = MODEL_MPP / slide.mpp
    if scale < 1 / MOST_ENLARGED:
        raise UserError(
            f'pixels of {slide.mpp:.4g} microns ({slide.pixel_size.source}) would be enlarged '
            f'{1 / scale:.1f} times, expected at most {MOST_ENLARGED}; if the size is wrong, give '
            'it (--mpp)'
        )
    sides = (max(1, round(side / scale)) for side in (width, height))
    return Frame(region, scale, round(x / scale), round(y / scale), *sides)


def _clip(region: Region | None, slide: Slide) -> Region:
    if region is None:
        return 0, 0, slide.width, slide.height
    left, top = max(region[0], 0), max(region[1], 0)
    right = min(region[0] + region[2], slide.width)
    bottom = min(region[1] + region[3], slide.height)
    if left >= right or top >= bottom:
        raise UserError(
            f'region {",".join(map(str, region))} is not on the slide, which has '
            f'{slide.width} x {slide.height} px'
        )
    return left, top, right - left, bottom - top
