"""What all slides have in common: regions of them are read at any scale."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from nucseg_mmdet.slides.pixel_size import PixelSize, chosen, unknown
from nucseg_mmdet.slides.resample import apply_weights, axis_weights
from nucseg_mmdet.utils.errors import UserError

MAX_WHOLE = 400_000_000  # px that may have to be decoded as a whole: 1.2 GB
# px, side of a slide: 26 cm at 0.25 microns. Label images pack places into so many bits, and a
# square of that side takes 3 GB at low power.
MAX_SIDE = (1 << 20) - 1
ONE_CHANNEL = 'one channel, taken as RGB'  # a note
BAND = 4_000_000  # px that are read and resampled at once: 48 MB as floats
FINER = 1.01  # a level that is coarser than the scale by less serves, it is off by rounding


class RegionError(UserError):
    """A region of a slide could not be read; others may be."""


class Level(NamedTuple):
    """A level of a pyramid.

    Attributes:
        width: px.
        height: px.
        factors: level-0 px per px of this level, in x and y.
    """

    width: int
    height: int
    factors: tuple[float, float]


class Slide:
    """An image that is read region by region. Use it in a ``with`` statement or close it.

    Args:
        name: for messages and output files.
        sizes: width and height of each level, px, the full one first.
        pixel_size: of level 0.

    Attributes:
        name: as given.
        width: of level 0, px.
        height: of level 0, px.
        pixel_size: as given.
        levels: the full one first.
        notes: what the user should know of how the file is read, a line each.
        images: in the file, of which this is the largest.
        missing: tiles that the file leaves out; they are read as background.
        bounds: x, y, width, height of the scanned part, level-0 px, if the file tells of one.
            QuPath crops the slide to it and counts from its corner.
    """

    def __init__(self, name: str, sizes: list[tuple[int, int]], pixel_size: PixelSize) -> None:
        self.name = name
        self.width, self.height = sizes[0]
        if max(self.width, self.height) > MAX_SIDE:
            raise UserError(
                f'{name}: says that it is {self.width:,} x {self.height:,} px, expected at most '
                f'{MAX_SIDE:,} px a side'
            )
        self.pixel_size = pixel_size
        self.levels = [
            Level(width, height, (_factor(self.width, width), _factor(self.height, height)))
            for width, height in sizes
        ]
        self.notes: list[str] = [pixel_size.note] if pixel_size.note else []
        self.images, self.missing = 1, 0
        self.bounds: tuple[int, int, int, int] | None = None

    @property
    def mpp(self) -> float:
        """Microns per level-0 px, see ``pixel_size`` for how sure they are."""
        return self.pixel_size.mpp

    def __enter__(self) -> 'Slide':
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the file."""

    def close_when_dropped(self) -> None:
        """Let go of the file when nobody has the slide any more: many may share it."""

    def read(
        self, x: float, y: float, width: float, height: float, scale: float = 1.0
    ) -> np.ndarray:
        """Read a region from the coarsest level that is fine enough.

        The output's pixels lie on the grid of ``scale`` from the slide's corner, so x and y are
        rounded to it: regions that share pixels of this grid agree on them exactly.

        Args:
            x: left edge, level-0 px.
            y: upper edge, level-0 px.
            width: level-0 px.
            height: level-0 px.
            scale: level-0 px per output px; below 1 enlarges.

        Returns:
            uint8, (round(height / scale), round(width / scale), 3), RGB. Pixels whose center
            lies beyond the slide are white, but for the first row and column of the slide's
            grid, which show even one that is thinner than half an output px.

        Raises:
            ValueError: scale is not positive, or the size is negative.
            RegionError: the file is damaged there.
        """
        if not scale > 0 or width < 0 or height < 0:
            raise ValueError(f'size {width} x {height} at scale {scale}, expected positive ones')
        columns, rows = round(width / scale), round(height / scale)
        image = np.full((rows, columns, 3), 255, np.uint8)
        first_x, first_y = round(x / scale), round(y / scale)
        left, right = _on_slide(first_x, columns, scale, self.width)
        top, bottom = _on_slide(first_y, rows, scale, self.height)
        if left >= right or top >= bottom:
            return image
        index = self.level_for(scale)
        level = self.levels[index]
        steps = [scale / factor for factor in level.factors]
        across = axis_weights(left, right - left, steps[0], level.width)
        rows_at_once = max(1, int(BAND / across.needed / steps[1]))
        for start in range(top, bottom, rows_at_once):
            stop = min(start + rows_at_once, bottom)
            down = axis_weights(start, stop - start, steps[1], level.height)
            pixels = self._read_level(index, across.first, down.first, across.needed, down.needed)
            if steps != [1, 1] or pixels.shape[:2] != (stop - start, right - left):
                pixels = apply_weights(pixels, down.matrix, across.matrix)
            image[start - first_y : stop - first_y, left - first_x : right - first_x] = pixels
        return image

    def level_for(self, scale: float) -> int:
        """Index of the coarsest level that is at least as fine as ``scale``."""
        fits = [i for i, lvl in enumerate(self.levels) if max(lvl.factors) <= scale * FINER]
        return max(fits, key=lambda i: max(self.levels[i].factors), default=0)

    def _read_level(self, index: int, x: int, y: int, width: int, height: int) -> np.ndarray:
        """Read px of one level, within its borders: uint8, (height, width, 3), RGB."""
        raise NotImplementedError


def _factor(full: int, size: int) -> float:
    """Level-0 px per px of a level; whole where the level's size is a rounded fraction."""
    nearest = max(1, round(full / size))
    return float(nearest) if abs(full - nearest * size) < nearest else full / size


def _on_slide(first: int, count: int, scale: float, size: int) -> tuple[int, int]:
    """The range of output pixels that have their center on the slide, and the first of all."""
    last = int(np.ceil(size / scale - 0.5))  # centers at (index + 0.5) * scale
    return max(first, 0), min(first + count, max(last, 1))


class ArraySlide(Slide):
    """An image in memory.

    Args:
        image: uint8, (H, W, 3), RGB.
        pixel_size: of its pixels, or microns per pixel, or None.
        name: for messages and output files.

    Raises:
        UserError: the array is something else, or the microns per pixel are implausible.
    """

    def __init__(
        self, image: np.ndarray, pixel_size: PixelSize | float | None = None, name: str = 'image'
    ) -> None:
        if not isinstance(image, np.ndarray):
            raise UserError(f'{name}: {type(image).__name__}, expected an array')
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
            way = ''
            if image.dtype.kind == 'f' and image.size and 0 <= image.min() <= image.max() <= 1:
                way = '; of values from 0 to 1 make (255 * image).round().astype(np.uint8)'
            raise UserError(
                f'{name}: {image.dtype} array of shape {image.shape}, expected uint8 (H, W, 3), '
                f'RGB{way}'
            )
        if np.ma.is_masked(image):
            raise UserError(f'{name}: pixels are masked, expected a color there: image.filled(255)')
        if not isinstance(pixel_size, PixelSize):
            pixel_size = chosen(pixel_size, unknown('nothing says'))
        super().__init__(name, [(image.shape[1], image.shape[0])], pixel_size)
        self._image = image

    def _read_level(self, index: int, x: int, y: int, width: int, height: int) -> np.ndarray:
        return self._image[y : y + height, x : x + width]


def is_opaque(image: Image.Image) -> bool:
    """Whether no pixel of an RGBA image is transparent, not even in part."""
    return image.getchannel('A').getextrema()[0] == 255


def over(image: Image.Image, background: str) -> np.ndarray:
    """Lay an RGBA image over a color: uint8, (H, W, 3), RGB."""
    if is_opaque(image):
        return np.asarray(image.convert('RGB'))
    below = Image.new('RGBA', image.size, background)
    return np.asarray(Image.alpha_composite(below, image).convert('RGB'))


def upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Turn an image, (H, W, 3), as the EXIF tag Orientation, 1 to 8, says that it is shown."""
    if orientation >= 5:  # rows are columns
        pixels = pixels.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)


def paste(image: np.ndarray, part: np.ndarray, x: int, y: int) -> None:
    """Copy a part to its place, which may lie or reach beyond the image, in place.

    Args:
        image: any dtype, (H, W, ...).
        part: the same dtype, (h, w, ...).
        x: of the part's left edge, px of the image.
        y: of its top edge.
    """
    top, left = max(y, 0), max(x, 0)
    bottom, right = min(y + part.shape[0], image.shape[0]), min(x + part.shape[1], image.shape[1])
    if top < bottom and left < right:
        image[top:bottom, left:right] = part[top - y : bottom - y, left - x : right - x]


def name_of(path: Path) -> str:
    """Name of a slide, for the files that are made of it."""
    return path.stem.removesuffix('.ome')
