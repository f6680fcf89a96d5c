"""The formats of slide scanners, read through OpenSlide."""

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import openslide

from nucseg_mmdet.slides import pixel_size
from nucseg_mmdet.slides.base import RegionError, Slide, name_of, over, paste
from nucseg_mmdet.utils.errors import UserError

BLOCK = 1024  # px of a level that OpenSlide is asked for at once, see ``ScannerSlide``


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
        self._path, self._place = path, path.absolute()  # which a later chdir does not move
        # An error leaves a handle useless: each is used by one thread at a time and thrown
        # away after an error.
        self._idle: list[openslide.OpenSlide] = []
        self._lock = threading.Lock()
        try:
            handle = openslide.OpenSlide(self._place)
        except openslide.OpenSlideError as error:
            raise UserError(
                f'{path}: OpenSlide cannot open it ({error}), expected a whole slide'
            ) from None
        self._idle.append(handle)
        # A damaged slide may have names without a value.
        values = {name: handle.properties.get(name) for name in handle.properties}
        properties = {name: value for name, value in values.items() if value is not None}
        size = pixel_size.chosen(mpp, pixel_size.from_openslide(properties))
        super().__init__(name_of(path), list(handle.level_dimensions), size)
        self._downsamples = handle.level_downsamples
        self._background = '#' + properties.get('openslide.background-color', 'FFFFFF')
        with contextlib.suppress(KeyError, ValueError):
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
        handle = handle or openslide.OpenSlide(self._place)
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
        return over(region, self._background)
