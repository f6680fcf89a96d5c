"""Images and slides of any size, read region by region.

``open_slide`` reads PNG and JPEG as a whole and TIFF (also BigTIFF, OME-TIFF, pyramids) tile by
tile; the formats of slide scanners go through OpenSlide. Images are uint8, RGB. Regions are
given in level-0 px and read at any scale, see ``base``. A slide may be read by several
threads at once.
"""

from functools import lru_cache
from pathlib import Path

import numpy as np
import openslide
from PIL import JpegImagePlugin, PngImagePlugin

from nucseg_mmdet.slides import pixel_size
from nucseg_mmdet.slides.base import ArraySlide, Slide, name_of
from nucseg_mmdet.slides.openslide import ScannerSlide, over
from nucseg_mmdet.slides.tiff import MAX_WHOLE, TiffSlide
from nucseg_mmdet.utils.errors import UserError

PNG, JPEG = b'\x89PNG\r\n\x1a\n', b'\xff\xd8\xff'
TIFF = (b'II*\0', b'MM\0*', b'II+\0', b'MM\0+')  # the latter two: BigTIFF
SHARED = 2  # slides that stay open; an image that is read as a whole may have 1.2 GB
MODE_NOTES = {
    '1': 'black and white, taken as RGB',
    'L': 'one channel, taken as RGB',
    'CMYK': 'CMYK, converted to RGB without a color profile',
}


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


def open_shared(path: Path, mpp: float | None = None) -> Slide:
    """Open a slide that the whole process shares; the last few that were asked for stay open.

    Do not close it: others may read it. Arguments and errors are those of ``open_slide``.
    """
    path = Path(path)
    stat = path.stat() if path.is_file() else None
    changed = stat and (stat.st_size, stat.st_mtime_ns)
    return _open_shared(path, mpp, changed)


@lru_cache(maxsize=SHARED)
def _open_shared(path: Path, mpp: float | None, changed: tuple[int, int] | None) -> Slide:
    return open_slide(path, mpp)


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
                pixels = over(image.convert('RGBA'), '#FFFFFF')
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
