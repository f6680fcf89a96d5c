"""Images that are decoded as a whole: PNG, JPEG and BMP; never a damaged one for a whole one.

What an image may take is known from its header before anything is decoded. Pillow alone would
pass over checksums and over damage within a JPEG, and refuse long texts and color profiles.
"""

import struct
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import BmpImagePlugin, Image, JpegImagePlugin, PngImagePlugin

from nucseg_mmdet.imaging.image_files import JPEG, ORIENTATION, PNG, essential_png, jpeg_damage
from nucseg_mmdet.slides import pixel_size
from nucseg_mmdet.slides.base import (
    MAX_WHOLE,
    ONE_CHANNEL,
    ArraySlide,
    is_opaque,
    name_of,
    over,
    upright,
)
from nucseg_mmdet.utils.errors import UserError
from nucseg_mmdet.utils.reading import read_bytes

BMP = b'BM'
READERS = {
    PNG: PngImagePlugin.PngImageFile,
    JPEG: JpegImagePlugin.JpegImageFile,
    BMP: BmpImagePlugin.BmpImageFile,
}
ROWS = 1024  # converted together, so that a large image is in memory twice at most
MODE_NOTES = {
    '1': 'black and white, taken as RGB',
    'L': ONE_CHANNEL,
    'CMYK': 'CMYK, converted to RGB without a color profile',
}


class Whole(NamedTuple):
    """A decoded image.

    Attributes:
        pixels: uint8, (H, W, 3), RGB, upright.
        kind: PNG, JPEG or BMP.
        size: of a pixel.
        notes: what was done to it, a line each.
        as_stored: whether any reader shows these pixels: nothing was turned or converted.
    """

    pixels: np.ndarray
    kind: str
    size: pixel_size.PixelSize
    notes: list[str]
    as_stored: bool


def is_whole(start: bytes) -> bool:
    """Whether a file that starts so is of one of these formats."""
    return start.startswith(tuple(READERS))


def open_whole(path: Path, mpp: float | None) -> ArraySlide:
    """Read an image as a slide, see ``read_whole``.

    Args:
        path: of the image.
        mpp: microns per px, if the user gives it.
    """
    image = read_whole(path)
    slide = ArraySlide(image.pixels, pixel_size.chosen(mpp, image.size), name_of(path))
    slide.notes += image.notes
    return slide


def read_whole(path: Path, largest: int = MAX_WHOLE) -> Whole:
    """Read an image.

    Args:
        path: of the image.
        largest: px that it may have.

    Raises:
        UserError: it is damaged, too large, or has 16 bits a channel; one line.
    """
    data = read_bytes(path)
    start = next((start for start in READERS if data.startswith(start)), None)
    if start is None:
        raise UserError(f'{path}: not an image, expected PNG, JPEG or BMP')
    kind, notes = {PNG: 'PNG', JPEG: 'JPEG', BMP: 'BMP'}[start], []
    if kind == 'PNG':
        if len(data) >= 25 and data[24] > 8:
            raise UserError(f'{path}: 16 bits a channel, expected 8')
        if len(data) >= 24:
            width, height = struct.unpack_from('>II', data, 16)
            _check_size(width, height, path, kind, largest)
        try:
            data, frames = essential_png(data)
        except ValueError as error:
            raise UserError(f'{path}: {error}, expected a whole image') from None
        if frames > 1:
            notes.append(f'the first of its {frames} frames is read')
    # Not through Image.open: its guard against decompression bombs stops at 179 megapixels and
    # can be lifted for the whole process only. The size is checked here before any decoding.
    try:
        with READERS[start](BytesIO(data)) as image:
            _check_size(image.width, image.height, path, kind, largest)
            if kind == 'JPEG' and (damage := jpeg_damage(data)):
                raise UserError(f'{path}: damaged JPEG ({damage}), expected a whole image')
            image.load()
            if image.mode == 'P' and image.palette is None:
                raise ValueError('no palette')
    except (UserError, MemoryError):
        raise
    except Exception as error:  # of whatever kind Pillow stumbles in
        raise UserError(
            f'{path}: damaged {kind} ({" ".join(str(error).split())}), expected a whole image'
        ) from None
    return _decode(image, kind, notes)


def _check_size(width: int, height: int, path: Path, kind: str, largest: int) -> None:
    if width * height > largest:
        raise UserError(
            f'{path}: {width} x {height} px, a {kind} may have {largest // 1_000_000} million '
            'since it is read as a whole; expected a tiled TIFF'
        )


def _decode(image: Image.Image, kind: str, notes: list[str]) -> Whole:
    pixels = np.empty((image.height, image.width, 3), np.uint8)
    transparent = False
    for top in range(0, image.height, ROWS):
        part = image.crop((0, top, image.width, min(top + ROWS, image.height)))
        if image.has_transparency_data:
            part = part.convert('RGBA')
            transparent |= not is_opaque(part)
            pixels[top : top + ROWS] = over(part, '#FFFFFF')
        else:
            pixels[top : top + ROWS] = np.asarray(part.convert('RGB'))
    notes = [note for mode, note in MODE_NOTES.items() if mode == image.mode] + notes
    if transparent:
        notes.append('transparent parts are laid over white')
    orientation = 1
    with suppress(Exception):  # damaged EXIF turns nothing, and the pixels are whole
        orientation = image.getexif().get(ORIENTATION, 1)
    turned = orientation in range(2, 9)
    if turned:
        notes.append(f'turned upright, as its EXIF orientation {orientation} says')
        pixels = upright(pixels, orientation)
    size = pixel_size.from_dpi(image.info.get('dpi'), f'the {kind} tags')
    plain = image.mode in ('1', 'L', 'P', 'RGB') and not image.has_transparency_data
    return Whole(pixels, kind, size, notes, plain and not turned)
