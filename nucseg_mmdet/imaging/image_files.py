"""Image files, decoded whole or refused: PNG, JPEG, TIFF, BMP; and PNG written.

Decoders fill in what is damaged, and allocate what a header says. Here a file is refused if it
is larger than a field of a slide, or if its checksums, its number of tiles, or the decoder's
own complaints tell that something is missing.
"""

import io
import itertools
import os
import re
import struct
import zlib
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import cv2
import numpy as np
import simplejpeg
import tifffile
from PIL import Image

from nucseg_mmdet.imaging import packed_sizes
from nucseg_mmdet.utils.errors import UserError, first_line
from nucseg_mmdet.utils.files import make_folder, write_bytes
from nucseg_mmdet.utils.reading import open_file, read_bytes

MAX_PIXELS = 178_956_970  # of an image that is decoded as a whole; 0.5 GB in color
GRAY, INDEXED = 0, 3  # color types of a PNG
PNG, JPEG = b'\x89PNG\r\n\x1a\n', b'\xff\xd8\xff'
# Pixels, their colors, their size, and how the image is to be turned. The rest is text, profiles
# of colors, and the later frames of an animation, whose number stands in acTL.
PNG_KEPT = {b'IHDR', b'PLTE', b'IDAT', b'IEND', b'tRNS', b'pHYs', b'eXIf'}
TIFF = (b'II*\0', b'MM\0*', b'II+\0', b'MM\0+')  # the latter two: BigTIFF
# Of the tag Compression.
DEFLATE = (8, 32946)
# What OpenCV, and so MMDetection, unpacks; of JPEG 2000 and PNG in a TIFF it makes black, unasked.
OPENCV = (1, 2, 3, 4, 5, *packed_sizes.JPEG, *DEFLATE, 32773)
ONE_NUMBER = (0, 1, 3)  # the tag PhotometricInterpretation: 0 is white, 0 is black, a palette
LOSSY = 'JPEG, which does not keep the numbers'  # told of a label map
ORIENTATION, LYING = 0x0112, range(5, 9)  # EXIF tag: 1 is upright, and these take width as height
# What libjpeg says of a file that it decodes nonetheless.
COMPLAINTS = ('Corrupt JPEG data', 'Premature end')
PADDING = 8  # bytes between the last pixels of a JPEG and its end that are no sign of damage


def decode_image(path: Path, indices: bool = False) -> np.ndarray:
    """Read an image file as it is stored.

    Args:
        path: of the file; its content tells of what kind it is.
        indices: give the numbers as they are stored, and no colors: those of a palette, those of
            a TIFF in which 0 is white, which OpenCV turns round, and those of a PNG of less than
            8 bits. JPEG has lost them.

    Returns:
        (H, W) or (H, W, C), BGR(A); uint8 or uint16, from TIFF any numbers.

    Raises:
        UserError: the file is missing, damaged, too large, or no image; or numbers are wanted of
            a JPEG.
    """
    return _decode_whole(read_bytes(path), path, indices)


def _decode_whole(data: bytes, path: Path, indices: bool = False) -> np.ndarray:
    """Decode the bytes of a file, see ``decode_image``."""
    try:
        if data.startswith(PNG):
            _check_png(data)
            if indices and data[25] == INDEXED:
                with Image.open(io.BytesIO(essential_png(data)[0])) as image:
                    return np.array(image)
            pixels = _decode(data)
            bits, color = data[24], data[25]
            if indices and color == GRAY and bits < 8:  # OpenCV spreads them over 0 to 255
                return pixels // (255 // (2**bits - 1))
            return pixels
        if data.startswith(JPEG):
            if indices:
                raise _Damaged(LOSSY)
            return _decode_jpeg(data)
        if data.startswith(TIFF):
            return _decode_tiff(data, indices)
        with Image.open(io.BytesIO(data)) as header:
            _check_size(*header.size)
        return _decode(data)
    except _Damaged as error:
        raise UserError(f'{path}: {error}, expected a whole image') from None
    except MemoryError:
        raise UserError(f'{path}: needs more memory than there is') from None
    except Exception as error:  # each decoder has its own
        raise UserError(f'{path}: not readable ({first_line(error)}), expected an image') from None


def read_color(path: Path) -> np.ndarray:
    """Read an image as MMDetection does, but a damaged one is refused.

    Returns:
        uint8, (H, W, 3), BGR, upright.

    Raises:
        UserError: as ``decode_image``.
    """
    data = read_bytes(path)
    _decode_whole(data, path)  # only to refuse it
    if data.startswith(TIFF):
        with tifffile.TiffFile(io.BytesIO(data)) as tiff:
            compression = tiff.pages.first.compression
        if compression not in OPENCV:
            raise UserError(f'{path}: {_say_packed(compression)}')
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    if image is None:
        raise UserError(f'{path}: numbers that are no colors, expected an image of 8 bits')
    return image


def read_size(path: Path) -> tuple[int, int]:
    """Read width and height of an image as it is shown, upright, from its header, px.

    Raises:
        UserError: the file is missing, damaged in its header, or no image.
    """
    with open_file(path) as file:
        try:
            start = file.read(24)
            if start.startswith(PNG):
                width, height = struct.unpack_from('>II', start, 16)
                orientation = _png_orientation(file)
            else:
                file.seek(0)
                with Image.open(file) as header:
                    width, height = header.size
                    jpeg = header.format in ('JPEG', 'MPO')  # a TIFF has been turned already
                    orientation = _orientation(header.getexif()) if jpeg else 1
        except Exception as error:
            raise UserError(
                f'{path}: not readable ({first_line(error)}), expected an image'
            ) from None
    return (height, width) if orientation in LYING else (width, height)


def _orientation(exif: Image.Exif) -> int:
    with suppress(Exception):  # damaged EXIF turns nothing
        return exif.get(ORIENTATION, 1)
    return 1


def _png_orientation(file: BinaryIO) -> int:
    """The orientation in the EXIF of a PNG, whose other chunks are passed over."""
    file.seek(len(PNG))
    while len(head := file.read(8)) == 8:
        length, kind = struct.unpack('>I4s', head)
        if kind == b'eXIf':
            exif = Image.Exif()
            with suppress(Exception):  # as above
                exif.load(file.read(length))
            return _orientation(exif)
        file.seek(length + 4, os.SEEK_CUR)
    return 1


class _Damaged(Exception):
    """What is wrong with a file, without its name."""


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise _Damaged(f'{width:,} x {height:,} px, a field may have {MAX_PIXELS:,}')


def _decode(data: bytes) -> np.ndarray:
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if image is None:
        raise _Damaged('not readable')
    return image


def png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Go through the chunks of a PNG file, checked: their kinds and contents.

    Raises:
        ValueError: a chunk is cut off or its checksum is wrong.
    """
    place, kind = len(PNG), b''
    while kind != b'IEND':
        length, kind = (
            struct.unpack_from('>I4s', data, place) if place + 8 < len(data) else (0, b'')
        )
        body = data[place + 8 : place + 8 + length]
        end = data[place + 8 + length : place + 12 + length]
        if len(end) < 4:
            raise ValueError(f'PNG without its end ({len(data):,} bytes)')
        if zlib.crc32(body, zlib.crc32(kind)) != int.from_bytes(end, 'big'):
            raise ValueError(f'damaged PNG (checksum of {kind.decode("latin1")!r})')
        yield kind, body
        place += 12 + length


def essential_png(data: bytes) -> tuple[bytes, int]:
    """Take from a PNG file what makes up its image: texts and profiles can be of any size.

    Returns:
        A PNG file with the same pixels, and the number of frames of the one given.

    Raises:
        ValueError: as ``png_chunks``.
    """
    kept, frames = [PNG], 1
    for kind, body in png_chunks(data):
        if kind in PNG_KEPT:
            kept += [len(body).to_bytes(4, 'big'), kind, body]
            kept.append(zlib.crc32(body, zlib.crc32(kind)).to_bytes(4, 'big'))
        elif kind == b'acTL':
            frames = int.from_bytes(body[:4], 'big')
    return b''.join(kept), frames


def _check_png(data: bytes) -> None:
    """Check size and checksums of a PNG, those of its pixels too, without keeping them."""
    unpacker = zlib.decompressobj()
    try:
        for kind, body in png_chunks(data):
            if kind == b'IHDR':
                _check_size(*struct.unpack_from('>II', body))
            if kind == b'IDAT':
                _unpack(unpacker, body)
    except (ValueError, struct.error, zlib.error) as error:
        raise _Damaged(str(error)) from None
    if not unpacker.eof:
        raise _Damaged('damaged PNG (pixels are missing)')


def _unpack(unpacker: 'zlib._Decompress', body: bytes) -> None:
    """Unpack without keeping anything, so that what does not unpack is known."""
    unpacked = 0
    while body and not unpacker.eof:
        unpacked += len(unpacker.decompress(body, 1 << 24))
        body = unpacker.unconsumed_tail
        if unpacked > 8 * MAX_PIXELS:
            raise _Damaged('damaged (more pixels than an image may have)')


def _decode_jpeg(data: bytes) -> np.ndarray:
    with Image.open(io.BytesIO(data)) as header:
        _check_size(*header.size)
    if damage := jpeg_damage(data):
        raise _Damaged(f'damaged JPEG ({damage})')
    return _decode(data)


def jpeg_damage(data: bytes) -> str | None:
    """What libjpeg says, when asked, of data that are corrupt; None where they are not."""
    try:  # at an eighth of the size, for which all data are read
        simplejpeg.decode_jpeg(data, 'GRAY', min_height=1, min_width=1, min_factor=8)
    except ValueError as error:
        said = str(error)
    else:
        return None
    spare = re.fullmatch(r'Corrupt JPEG data: (\d+) extraneous bytes before marker 0xd9', said)
    if spare and int(spare[1]) <= PADDING:
        return None
    return said if said.startswith(COMPLAINTS) else None


def _decode_tiff(data: bytes, indices: bool) -> np.ndarray:
    with tifffile.TiffFile(io.BytesIO(data)) as tiff:
        if len(tiff.pages) != 1:
            raise _Damaged(f'{len(tiff.pages)} pages, expected one image')
        page = tiff.pages.first
        if indices and page.compression in packed_sizes.JPEG:
            raise _Damaged(LOSSY)
        _check_size(page.imagewidth, page.imagelength)
        _check_segments(page, data)
        pixels = page.asarray()
        plain = page.photometric in (1, 2) and page.planarconfig == 1 and page.bitspersample >= 8
        if page.photometric == 2 and page.samplesperpixel < 3:  # some of its header is lost
            raise _Damaged('damaged TIFF (RGB colors of one channel)')
    if not plain and not (indices and page.photometric in ONE_NUMBER):
        if page.compression not in OPENCV:
            raise ValueError(_say_packed(page.compression))
        return _decode(data)  # colors of another kind, which OpenCV converts
    if pixels.ndim == 3 and pixels.shape[2] in (3, 4):
        order = [2, 1, 0, 3][: pixels.shape[2]]
        pixels = np.ascontiguousarray(pixels[..., order])
    return pixels


def _say_packed(compression: int) -> str:
    name = getattr(compression, 'name', compression)
    return f'compression {name}, which OpenCV does not unpack, expected LZW, deflate or none'


def _check_segments(page: tifffile.TiffPage, data: bytes) -> None:
    """Refuse a TIFF whose tiles or strips are not all there."""
    expected = int(np.prod(page.chunked))
    spans = list(zip(page.dataoffsets, page.databytecounts, strict=True))
    if len(spans) != expected:
        raise _Damaged(f'damaged TIFF ({len(spans)} tiles or strips, expected {expected})')
    if any(not (start and length) or start + length > len(data) for start, length in spans):
        raise _Damaged('damaged TIFF (a tile or strip is missing)')
    _check_size(int(np.prod(page.chunks)), 1)
    strip = page.imagewidth, min(page.rowsperstrip, page.imagelength)
    sides = (page.tilewidth, page.tilelength) if page.is_tiled else strip
    for start, length in spans:
        packed_sizes.check(page.compression, data[start : start + length], sides)
    if page.compression == 1 and sum(length for _, length in spans) < page.nbytes:
        raise _Damaged('damaged TIFF (pixels are missing)')
    if page.compression in DEFLATE:
        for start, length in spans:  # the decoder takes a stream without its end and checksum
            unpacker = zlib.decompressobj()
            _unpack(unpacker, data[start : start + length])
            if not unpacker.eof:
                raise _Damaged('damaged TIFF (a tile or strip is cut off)')


def write_png(path: Path, pixels: np.ndarray) -> None:
    """Write an image, uint8 or uint16, (H, W) or (H, W, 3), BGR, whole or not at all.

    Raises:
        UserError: the file cannot be written.
    """
    make_folder(path.parent)
    write_bytes(path, encode('.png', pixels))


def encode(suffix: str, pixels: np.ndarray, options: Sequence[int] = ()) -> bytes:
    """Pack an image, (H, W) or (H, W, C), BGR(A), as a file of this kind.

    Args:
        options: as of ``cv2.imencode``.

    Raises:
        ValueError: such an image cannot be packed so.
    """
    done, data = cv2.imencode(suffix, np.ascontiguousarray(pixels), options)
    if not done:
        raise ValueError(f'{pixels.shape} cannot be packed as {suffix}')
    return data.tobytes()


class PictureNames:
    """Names of pictures that are made of images: as of the image, below its folder, all different.

    Args:
        folder: of the images.
    """

    def __init__(self, folder: str | Path) -> None:
        self._folder = Path(folder)
        self._taken: dict[str, Path] = {}

    def name(self, image: str | Path) -> str:
        """The name for an image: ``x/a.png`` for ``x/a.jpg``, ``x/a.jpg.png`` if that is taken.

        If this is taken as well, ``x/a.jpg.2.png`` and so on.
        """
        image = Path(image)
        inside = image.is_relative_to(self._folder) and '..' not in image.parts
        name = image.relative_to(self._folder) if inside else Path(image.name)
        numbered = (f'{name}.{number}.png' for number in itertools.count(2))
        return next(
            candidate
            for candidate in itertools.chain(
                (f'{name.with_suffix("")}.png', f'{name}.png'), numbered
            )
            if self._taken.setdefault(candidate.casefold(), image) == image
        )
