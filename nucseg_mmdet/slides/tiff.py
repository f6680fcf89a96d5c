"""TIFF images, read tile by tile: plain, BigTIFF, OME-TIFF, pyramids."""

import logging
import threading
import weakref
from functools import partial
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tifffile

from nucseg_mmdet.imaging import packed_sizes
from nucseg_mmdet.imaging.image_files import jpeg_damage
from nucseg_mmdet.slides import pixel_size
from nucseg_mmdet.slides.base import MAX_WHOLE, ONE_CHANNEL, RegionError, Slide, name_of, paste
from nucseg_mmdet.utils.byte_cache import ByteCache
from nucseg_mmdet.utils.errors import UserError

CACHE = 128_000_000  # bytes of decoded tiles and strips that are kept for the next region
# The tag PhotometricInterpretation.
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, YCBCR = 0, 1, 2, 3, 6
HEADER = 8  # bytes at the start of a file; where they are more, nothing else ends earlier
JPEG = 7
JPEG_CODES = (6, JPEG)  # the tag Compression; the decoder turns their YCbCr into RGB
CONTIGUOUS = 1  # the tag PlanarConfiguration
PREMULTIPLIED, TRANSPARENCY = 1, 2  # the tag ExtraSamples

# Nothing is printed beside our one line, unless the program sets up logging.
tifffile.logger().addHandler(logging.NullHandler())


# A level is compared with the one above it at so many places a side, by the mean colors of squares:
# writers mark labels as levels, and leave out the rest of a level when they are ended. Rounding,
# sharpening and JPEG change them by less than 3 gray levels, two fields of one slide differ by 20
# and more somewhere.
PLACES, PLACE_SIDE, MAX_DIFFERENCE = 5, 32, 10  # number, px of the level, gray levels


Page = tifffile.TiffPage | tifffile.TiffFrame


class Plane(NamedTuple):
    """One or all channels of a level, as a page of the file stores them.

    Attributes:
        page: of the file.
        keyframe: the page with the tags of that page, which may be itself.
        number: of the plane in the page, where the page stores its channels apart.
    """

    page: Page
    keyframe: tifffile.TiffPage
    number: int


class TiffSlide(Slide):
    """A TIFF image: 8 bits a channel, RGB, RGBA, gray or by a palette.

    Uncompressed strips are read row by row, others are decoded as they are stored, and the
    last ones kept: the next region mostly needs them again.

    Args:
        path: of the image.
        mpp: microns per level-0 px, if the user gives it.

    Attributes:
        orientation: tag, 1 to 8, of how the image is to be shown; it is read as it is stored.

    Raises:
        UserError: the file is damaged, or holds something else.
    """

    def __init__(self, path: Path, mpp: float | None) -> None:
        self._path = path
        self._file_lock = threading.Lock()
        self._cache = ByteCache[np.ndarray](CACHE)  # tiles and strips
        # A damaged file makes tifffile stumble in any way: struct.error, SyntaxError of XML, ...
        try:
            self._tiff = tifffile.TiffFile(path, _multifile=False)
        except Exception as error:
            raise UserError(
                f'{path}: damaged TIFF ({_one_line(error)}), expected a whole one'
            ) from None
        try:
            self._open(mpp)
        except UserError:
            self.close()
            raise
        except Exception as error:
            self.close()
            raise UserError(
                f'{path}: damaged TIFF ({_one_line(error)}), expected a whole one'
            ) from None

    def _open(self, mpp: float | None) -> None:
        if not self._tiff.pages:
            raise UserError(f'{self._path}: damaged TIFF (no image), expected a whole one')
        description = self._tiff.pages.first.description
        if '<!ENTITY' in description:
            raise UserError(f'{self._path}: its XML defines entities, expected plain OME-XML')
        images = self._tiff.series
        number = max(range(len(images)), key=lambda index: _rank(images[index]))
        series = images[number]
        page = series.keyframe
        self._check_values(series)
        sizes, self._planes = [], []
        for level in series.levels:
            size = level.keyframe.imagewidth, level.keyframe.imagelength
            if not sizes or (level.axes == series.axes and max(size) < max(sizes[-1])):
                sizes.append(size)
                self._planes.append(self._find_planes(level))
        found = pixel_size.from_tiff(
            (_resolution(page, 'XResolution'), _resolution(page, 'YResolution')),
            int(page.tags.valueof('ResolutionUnit', default=2)),
            (self._tiff.imagej_metadata or {}).get('unit', ''),
            pixel_size.OmeImage(description, number, sizes[0]) if self._tiff.is_ome else None,
            page.description,
        )
        super().__init__(name_of(self._path), sizes, pixel_size.chosen(mpp, found))
        self.orientation = int(page.tags.valueof('Orientation', default=1))
        self.images = len(images)
        if self.images > 1:
            size = f'{self.width} x {self.height} px'
            self.notes.append(f'{self.images} images in the file, the largest is read, {size}')
        tiles = [length for plane in self._planes[0] for length in plane.page.databytecounts]
        self.missing = tiles.count(0) if page.is_tiled else 0
        if self.missing:
            many = f'{self.missing:,} of {len(tiles):,} tiles'
            self.notes.append(f'{many} are not in the file, nothing was scanned there')
        self._palette = _palette(page.colormap) if page.photometric == PALETTE else None
        self._inverted = page.photometric == WHITE_IS_ZERO
        self._alpha = page.extrasamples[0] if page.extrasamples else None
        self._leave_out_other_pages()
        if self._palette is None and series.axes == 'YX':
            self.notes.append(ONE_CHANNEL)
        elif self._alpha in (PREMULTIPLIED, TRANSPARENCY):
            self.notes.append('has an alpha channel, what is transparent is laid over white')
        elif self._alpha is not None:
            self.notes.append('the fourth channel is left out')

    def close(self) -> None:
        self._tiff.close()
        self._cache.clear()

    def close_when_dropped(self) -> None:
        weakref.finalize(self, self._tiff.close)

    def _check_values(self, series: tifffile.TiffPageSeries) -> None:
        """Refuse what is no RGB or gray image of 8 bits."""
        page = series.keyframe
        if series.dtype != np.uint8 or page.bitspersample != 8:
            raise UserError(
                f'{self._path}: {series.dtype} values of {page.bitspersample} bits, expected '
                'uint8 of 8 bits a channel'
            )
        shape = ' x '.join(map(str, series.shape))
        channels = dict(zip(series.axes, series.shape, strict=True))
        allowed = dict(YX=(1,), YXS=(3, 4), SYX=(3, 4), CYX=(3,)).get(series.axes, ())
        if channels.get('S', channels.get('C', 1)) not in allowed:
            raise UserError(
                f'{self._path}: {shape} values on the axes {series.axes}, expected one RGB, RGBA '
                'or gray image'
            )
        colors = page.photometric
        if colors == RGB and series.axes == 'YX':  # some of its header is lost
            raise UserError(
                f'{self._path}: damaged TIFF (RGB colors of one channel), expected a whole one'
            )
        if not (
            colors in (RGB, BLACK_IS_ZERO)
            or (colors in (WHITE_IS_ZERO, PALETTE) and series.axes == 'YX')
            or (colors == YCBCR and page.compression in JPEG_CODES)
        ):
            raise UserError(
                f'{self._path}: {getattr(colors, "name", colors)} colors, expected RGB or gray'
            )

    def _find_planes(self, series: tifffile.TiffPageSeries) -> list[Plane]:
        """Where the channels of a level are; refuse what is cut off or too large to decode."""
        pages = [page for page in series.pages if page is not None]
        if series.axes == 'SYX':
            planes = [Plane(pages[0], _keyframe(pages[0]), i) for i in range(series.shape[0])]
        elif series.axes == 'CYX':
            planes = [Plane(page, _keyframe(page), 0) for page in pages]
        else:
            planes = [Plane(pages[0], _keyframe(pages[0]), 0)]
        if len(planes) not in (1, 3, 4) or len(pages) < len(series.pages):
            raise UserError(
                f'{self._path}: damaged TIFF (a channel is missing), expected a whole one'
            )
        for page in pages:
            self._check_places(page)
        keyframe = series.keyframe
        width, height = _segment_size(keyframe)
        across, down = -(-keyframe.imagewidth // width), -(-keyframe.imagelength // height)
        needed = across * down * (len(planes) if series.axes == 'SYX' else 1)
        for page in pages:
            found = min(len(page.dataoffsets), len(page.databytecounts))
            if found < needed and not _is_plain(page):
                raise UserError(
                    f'{self._path}: damaged TIFF ({keyframe.imagewidth} x {keyframe.imagelength} '
                    f'px are {needed} tiles or strips, found {found}), expected a whole one'
                )
        if width * height > MAX_WHOLE and not _is_plain(pages[0]):
            raise UserError(
                f'{self._path}: {width} x {height} px in one piece, expected at most '
                f'{MAX_WHOLE // 1_000_000} million px in each tile or strip'
            )
        return planes

    def _check_places(self, page: Page) -> None:
        """Refuse a page whose tiles or strips are not all in the file; tiles may be left out."""
        places = list(zip(page.dataoffsets, page.databytecounts, strict=True))
        end, needed = self._tiff.filehandle.size, max(map(sum, places))
        if needed > end:
            raise UserError(f'{self._path}: cut off, {end} bytes, expected {needed} or more')
        kind = 'tile' if _keyframe(page).is_tiled else 'strip'
        odd = [start for start, length in places if start < HEADER and (start or length)]
        if odd:
            raise UserError(
                f'{self._path}: damaged TIFF (a {kind} at byte {odd[0]}), expected a whole one'
            )
        empty = sum(not length for _, length in places)
        if empty and kind == 'strip' and not _is_plain(page):
            raise UserError(
                f'{self._path}: damaged TIFF (strips of 0 bytes: {empty:,} of {len(places):,}), '
                'expected a whole one'
            )

    def _leave_out_other_pages(self) -> None:
        """Keep only what shows the same as the level above, whatever it is marked as."""
        index = 1
        while index < len(self.levels):
            if self._is_reduction(index):
                index += 1
                continue
            size = f'{self.levels[index].width} x {self.levels[index].height} px'
            self.notes.append(f'a page of {size} is no reduction of the first, it is left out')
            del self.levels[index], self._planes[index]
            self._cache.clear()  # whose keys have the index of the level

    def _is_reduction(self, index: int) -> bool:
        """Whether a level shows what the one above it shows, by colors of places all over it."""
        level, above = self.levels[index], self.levels[index - 1]
        width, height = min(PLACE_SIDE, level.width), min(PLACE_SIDE, level.height)
        ratios = above.width / level.width, above.height / level.height
        for row, column in product(range(PLACES), repeat=2):
            x = (level.width - width) * column // (PLACES - 1)
            y = (level.height - height) * row // (PLACES - 1)
            left, right = round(x * ratios[0]), round((x + width) * ratios[0])
            top, bottom = round(y * ratios[1]), round((y + height) * ratios[1])
            try:
                small = self._read_level(index, x, y, width, height)
                large = self._read_level(index - 1, left, top, right - left, bottom - top)
            except RegionError:
                continue
            if large.min() == 255:  # tiles left out are white there, and glass in other levels
                continue
            if np.abs(small.mean((0, 1)) - large.mean((0, 1))).max() > MAX_DIFFERENCE:
                return False
        return True

    def _read_level(self, index: int, x: int, y: int, width: int, height: int) -> np.ndarray:
        planes = self._planes[index]
        try:
            read = [
                (self._read_rows if _is_plain(plane.page) else self._read_segments)(
                    (index, number), plane, x, y, width, height
                )
                for number, plane in enumerate(planes)
            ]
        except Exception as error:  # each decoder has its own
            raise RegionError(
                f'{self._path}: x {x}, y {y}, {width} x {height} px of level {index} '
                f'cannot be read ({_one_line(error)})'
            ) from None
        return self._to_rgb(read[0] if len(read) == 1 else np.concatenate(read, axis=2))

    def _to_rgb(self, values: np.ndarray) -> np.ndarray:
        channels = values.shape[2]
        if self._palette is not None:
            return self._palette[values[..., 0]]
        if channels == 1:
            return np.repeat(255 - values if self._inverted else values, 3, axis=2)
        if channels == 3 or self._alpha not in (PREMULTIPLIED, TRANSPARENCY):
            return values[..., :3]
        color, alpha = values[..., :3].astype(np.uint16), values[..., 3:].astype(np.uint16)
        if self._alpha == TRANSPARENCY:
            color = (color * alpha + 127) // 255
        return np.minimum(color + 255 - alpha, 255).astype(np.uint8)

    def _read_rows(
        self, key: tuple[int, int], plane: Plane, x: int, y: int, width: int, height: int
    ) -> np.ndarray:
        """Read uncompressed pixels where they lie in the file."""
        page = plane.keyframe
        samples = _samples(page)
        row = page.imagewidth * samples
        start = plane.page.dataoffsets[0] + plane.number * row * page.imagelength + x * samples
        values = np.empty((height, width * samples), np.uint8)
        file = self._tiff.filehandle
        with self._file_lock:
            for line in range(height):
                file.seek(start + (y + line) * row)
                values[line] = np.frombuffer(file.read(width * samples), np.uint8)
        return values.reshape(height, width, samples)

    def _read_segments(
        self, key: tuple[int, int], plane: Plane, x: int, y: int, width: int, height: int
    ) -> np.ndarray:
        """Decode the tiles or strips that a region touches."""
        page = plane.keyframe
        across, down = _segment_size(page)
        columns, rows = -(-page.imagewidth // across), -(-page.imagelength // down)
        values = np.empty((height, width, _samples(page)), np.uint8)
        for row in range(y // down, -(-(y + height) // down)):
            for column in range(x // across, -(-(x + width) // across)):
                number = (plane.number * rows + row) * columns + column
                decode = partial(self._segment, plane, number)
                part = self._cache.get((*key, number), decode)
                paste(values, part, column * across - x, row * down - y)
        return values

    def _segment(self, plane: Plane, number: int) -> np.ndarray:
        """Decode a tile or a strip."""
        page, keyframe, _ = plane
        decode, tables = keyframe.decode, page.jpegtables
        offset, count = page.dataoffsets[number], page.databytecounts[number]
        with self._file_lock:
            self._tiff.filehandle.seek(offset)
            data = self._tiff.filehandle.read(count)
        sides = _segment_size(keyframe)
        packed_sizes.check(keyframe.compression, data if count else b'', sides)
        if count and keyframe.compression == JPEG:
            whole = tables[:-2] + data[2:] if tables else data
            if damage := jpeg_damage(whole):
                raise ValueError(damage)
        decoded, _, shape = decode(
            data if count else None, number, jpegtables=tables, jpegheader=keyframe.jpegheader
        )
        if decoded is None:  # left out by the writer: nothing was scanned there
            decoded = np.full(shape, 0 if self._inverted else 255, np.uint8)
        return decoded.reshape(decoded.shape[-3:])


def _rank(series: tifffile.TiffPageSeries) -> tuple[int, bool, bool]:
    """The main image ranks highest: the largest, as overviews and photographs may come along.

    Of several as large it is the one of 8 bits, in color, as the others are of labels.
    """
    page = series.keyframe
    area = page.imagewidth * page.imagelength
    return area, series.dtype == np.uint8, page.photometric in (RGB, YCBCR)


def _palette(colors: np.ndarray | None) -> np.ndarray:
    """The tag ColorMap, uint16, (3, 256), as uint8, (256, 3); some writers leave it at 8 bits."""
    if colors is None:
        raise ValueError('no palette')
    return (colors >> 8 if colors.max() > 255 else colors).astype(np.uint8).T


def _one_line(error: Exception) -> str:
    return ' '.join(f'{type(error).__name__}: {error}'.split())


def _resolution(page: tifffile.TiffPage, tag: str) -> float:
    """Pixels per unit, 0 if the file does not say."""
    above, below = page.tags.valueof(tag, default=(0, 1))
    return above / below if below else 0.0


def _segment_size(page: tifffile.TiffPage) -> tuple[int, int]:
    """Width and height of the tiles or strips, px."""
    if page.is_tiled:
        return page.tilewidth, page.tilelength
    return page.imagewidth, min(page.rowsperstrip, page.imagelength)


def _samples(page: tifffile.TiffPage) -> int:
    """Values that are stored together for a pixel."""
    return page.samplesperpixel if page.planarconfig == CONTIGUOUS else 1


def _keyframe(page: Page) -> tifffile.TiffPage:
    """The page with the tags of a page, of which many may have the same."""
    if page.keyframe is None:
        raise ValueError('a page without tags')
    return page.keyframe


def _is_plain(page: Page) -> bool:
    """Whether all values lie in the file as they are, row after row."""
    keyframe = _keyframe(page)
    return bool(page.is_contiguous and keyframe.compression == 1 and not keyframe.is_tiled)
