"""Sizes that the tiles and strips of a TIFF say in headers of their own."""

import math
import struct
from collections.abc import Iterator
from contextlib import suppress

# Values of the tag Compression.
JPEG, JPEG_2000, PNG, WEBP = (6, 7), (33003, 33004, 33005, 34712), 34933, 50001
BLOCK = 32  # px, the most that a JPEG's blocks have, of 4:1:1
CODESTREAM = b'\xff\x4f\xff\x51'  # how one of JPEG 2000 starts, whatever it is wrapped in


def check(compression: int, data: bytes, sides: tuple[int, int]) -> None:
    """Refuse a tile or strip with a header of its own that says it is larger than its place.

    Decoders allocate what it says: four thousand million px for a few bytes.

    Args:
        compression: the tag of the TIFF.
        data: of the tile or strip.
        sides: of its place, px.

    Raises:
        ValueError: it is larger.
    """
    block = BLOCK if compression in JPEG else 1  # which may be padded to whole ones
    most = math.prod(-(-side // block) * block for side in sides)
    for width, height in _sizes(compression, data):
        if width * height > most:
            raise ValueError(f'a tile or strip of {width:,} x {height:,} px')


def _sizes(compression: int, data: bytes) -> Iterator[tuple[int, int]]:
    """Width and height, px, in the headers of a tile or strip; none where it has no header."""
    with suppress(struct.error):  # cut off, so that nothing is decoded
        if compression in JPEG_2000:
            # The first: its bytes may stand among the packed pixels as well.
            start = data.find(CODESTREAM, max(0, data.find(b'jp2c')))
            if start >= 0:
                right, bottom, left, top = struct.unpack_from('>IIII', data, start + 8)
                yield right - left, bottom - top
        elif compression in JPEG:
            yield from _jpeg_sizes(data)
        elif compression == PNG:
            yield struct.unpack_from('>II', data, 16)
        elif compression == WEBP:
            if data[12:16] == b'VP8X':
                low, middle, high = struct.unpack_from('<HHH', data, 24)
                yield (low | (middle & 255) << 16) + 1, (middle >> 8 | high << 8) + 1
            elif data[12:16] == b'VP8L':
                (bits,) = struct.unpack_from('<I', data, 21)
                yield (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
            else:
                width, height = struct.unpack_from('<HH', data, 26)
                yield width & 0x3FFF, height & 0x3FFF


def _jpeg_sizes(data: bytes) -> Iterator[tuple[int, int]]:
    place = 2
    while (place := data.find(b'\xff', place)) >= 0:
        (kind,) = struct.unpack_from('B', data, place + 1)
        if kind in (0xD9, 0xDA):  # its end, or pixels
            return
        if 0xC0 <= kind <= 0xCF and kind not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack_from('>HH', data, place + 5)
            yield width, height
        bare = kind in (0, 1, 0xFF) or 0xD0 <= kind <= 0xD8  # without a length
        place += 1 if bare else 2 + struct.unpack_from('>H', data, place + 2)[0]
