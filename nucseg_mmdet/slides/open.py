"""Images and slides of any size, read region by region.

``open_slide`` reads PNG and JPEG as a whole and TIFF (also BigTIFF, OME-TIFF, pyramids) tile by
tile; the formats of slide scanners go through OpenSlide. Images are uint8, RGB. Regions are
given in level-0 px and read at any scale, see ``slide_base``. A slide may be read by several
threads at once.
"""

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import openslide
from PIL import Image, JpegImagePlugin, PngImagePlugin

from nucseg_mmdet.slides import pixel_size
from nucseg_mmdet.slides.open.base import ArraySlide, RegionError, Slide, name_of, paste
from nucseg_mmdet.slides.tiff import MAX_WHOLE, TiffSlide
from nucseg_mmdet.utils.errors import UserError

BLOCK = 1024  # px of a level that OpenSlide is asked for at once, see ``ScannerSlide``
PNG, JPEG = b'\x89PNG\r\n\x1a\n', b'\xff\xd8\xff'
TIFF = (b'II*\0', b'MM\0*', b'II+\0', b'MM\0+')  # the latter two: BigTIFF
MODE_NOTES = {
    '1': 'black and white, taken as RGB',
    'L': 'one channel, taken as RGB',
    'CMYK': 'CMYK, converted to RGB without a colour profile',
}


class ScannerSlide(Slide):
    """A slide that OpenSlide reads.

    OpenSlide takes positions in whole level-0 px and interpolates where the level's factor is
    no whole number. There, regions are put together from blocks at fixed places, so that they
    agree; a block is off by up to half a level-0 px.

    Args:
        path: of the slide.
        mpp: microns per level-0 px, if the user gives it.

    Raises:
        UserError: OpenSlide cannot open it.
    """

    def __init__(self, path: Path, mpp: float | None) -> None:
        self._path = path
        # An error leaves a handle useless: each is used by one thread at a time and thrown
        # away after an error.
        self._idle: list[openslide.OpenSlide] = []
        self._lock = threading.Lock()
        try:
            handle = openslide.OpenSlide(path)
        except openslide.OpenSlideError as error:
            raise UserError(f'{path}: OpenSlide cannot open it ({error})') from None
        self._idle.append(handle)
        properties = dict(handle.properties)
        size = pixel_size.chosen(mpp, pixel_size.from_openslide(properties))
        super().__init__(name_of(path), list(handle.level_dimensions), size)
        self._downsamples = handle.level_downsamples
        self._background = '#' + properties.get('openslide.background-color', 'FFFFFF')
        with contextlib.suppress(KeyError):
            x, y, width, height = (
                int(properties[f'openslide.bounds-{key}']) for key in ('x', 'y', 'width', 'height')
            )
            self.bounds = x, y, width, height

    def close(self) -> None:
        with self._lock:
            while self._idle:
                self._idle.pop().close()

    @contextlib.contextmanager
    def _handle(self) -> Iterator[openslide.OpenSlide]:
        with self._lock:
            handle = self._idle.pop() if self._idle else None
        handle = handle or openslide.OpenSlide(self._path)
        try:
            yield handle
        except openslide.OpenSlideError:
            handle.close()
            raise
        with self._lock:
            self._idle.append(handle)

    def _read_level(self, index: int, x: int, y: int, width: int, height: int) -> np.ndarray:
        factor = self._downsamples[index]
        try:
            with self._handle() as handle:
                if factor.is_integer():
                    return self._read_block(handle, index, x, y, width, height)
                image = np.empty((height, width, 3), np.uint8)
                for top in range(y // BLOCK * BLOCK, y + height, BLOCK):
                    for left in range(x // BLOCK * BLOCK, x + width, BLOCK):
                        block = self._read_block(handle, index, left, top, BLOCK, BLOCK)
                        paste(image, block, left - x, top - y)
                return image
        except openslide.OpenSlideError as error:
            raise RegionError(
                f'{self._path}: x {x}, y {y}, {width} x {height} px of level {index} '
                f'cannot be read ({error})'
            ) from None

    def _read_block(
        self, handle: openslide.OpenSlide, index: int, x: int, y: int, width: int, height: int
    ) -> np.ndarray:
        factor = self._downsamples[index]
        region = handle.read_region((round(x * factor), round(y * factor)), index, (width, height))
        return _over(region, self._background)


def _over(image: Image.Image, background: str) -> np.ndarray:
    """Lay an RGBA image over a colour: uint8, (H, W, 3), RGB."""
    if image.getchannel('A').getextrema()[0] == 255:
        return np.asarray(image.convert('RGB'))
    below = Image.new('RGBA', image.size, background)
    return np.asarray(Image.alpha_composite(below, image).convert('RGB'))


def open_slide(path: Path, mpp: float | None = None) -> Slide:
    """Open an image or a slide.

    Args:
        path: of the image, or of one of the files of a slide in several files.
        mpp: microns per level-0 px; by default what the file says.

    Raises:
        UserError: the file is missing, damaged, or no image that this can read; one line.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f'{path}: {"is a folder" if path.is_dir() else "no such file"}')
    vendor = openslide.OpenSlide.detect_format(path)
    if vendor and vendor != 'generic-tiff':
        return ScannerSlide(path, mpp)
    if path.suffix.lower() == '.mrxs':  # the file alone is a JPEG image of the label
        raise UserError(f'{path}: no MIRAX slide, expected a folder {path.stem} beside it')
    with path.open('rb') as file:
        start = file.read(8)
    if start.startswith((PNG, JPEG)):
        return _open_whole(path, mpp)
    if start[:4] in TIFF:
        return TiffSlide(path, mpp)
    raise UserError(f'{path}: not an image, expected PNG, JPEG, TIFF or a slide for OpenSlide')


def _open_whole(path: Path, mpp: float | None) -> Slide:
    """Read a PNG or JPEG image. A camera's mark that it be turned (EXIF) is not followed."""
    # Not through Image.open: its guard against decompression bombs stops at 179 megapixels and
    # can be lifted for the whole process only. The size is checked here before any decoding.
    with path.open('rb') as file:
        start = file.read(25)
    kind = 'PNG' if start.startswith(PNG) else 'JPEG'
    reader = PngImagePlugin.PngImageFile if kind == 'PNG' else JpegImagePlugin.JpegImageFile
    try:
        with reader(path) as image:
            if kind == 'PNG' and start[24] > 8:
                raise UserError(f'{path}: 16 bits a channel, expected 8')
            if image.width * image.height > MAX_WHOLE:
                raise UserError(
                    f'{path}: {image.width} x {image.height} px, a {kind} may have '
                    f'{MAX_WHOLE // 1_000_000} million since it is read as a whole; '
                    'expected a tiled TIFF'
                )
            note = MODE_NOTES.get(image.mode)
            if image.has_transparency_data:
                note = 'transparent parts are laid over white'
                pixels = _over(image.convert('RGBA'), '#FFFFFF')
            else:
                pixels = np.asarray(image.convert('RGB'))
            size = pixel_size.from_dpi(image.info.get('dpi'), f'the {kind} tags')
    except (OSError, SyntaxError, EOFError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f'{path}: damaged {kind} ({error})') from None
    slide = ArraySlide(pixels, pixel_size.chosen(mpp, size), name_of(path))
    if note:
        slide.notes.append(note)
    return slide
