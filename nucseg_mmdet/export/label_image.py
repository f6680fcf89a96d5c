"""Nuclei as a label image."""

import zlib
from collections.abc import Iterator

import numpy as np
import tifffile

from nucseg_mmdet.export.painting import LabelStrips
from nucseg_mmdet.export.writer import Writer
from nucseg_mmdet.structures.nuclei import Nuclei

TILE = 256  # px; a row of tiles, all that is painted at once, is 100 MB at 100,000 px


class LabelImage(Writer):
    """A tiled BigTIFF, int32, deflate: 0 is background, a nucleus has its number in the tables.

    It has the size of the image, or of the region, so that both open on top of each other;
    the resolution tags say how large a pixel is. A contested pixel goes to the higher score,
    then to the lower number.
    """

    suffix = '.labels.tif'

    def _start(self) -> None:
        self._painter = LabelStrips(self._open_scratch(), self.target)

    def _write(self, nuclei: Nuclei, ids: np.ndarray) -> None:
        self._painter.add(nuclei)

    def _finish(self) -> None:
        _, _, width, height = self.target.box
        per_cm = 1e4 / self.target.slide_mpp
        with tifffile.TiffWriter(self._file, bigtiff=True) as tiff:
            tiff.write(
                self._tiles(),
                shape=(height, width),
                dtype=np.int32,
                photometric='minisblack',
                tile=(TILE, TILE),
                compression='zlib',
                resolution=(per_cm, per_cm),
                resolutionunit='CENTIMETER',
                metadata=dict(mpp=self.target.slide_mpp, origin=self.target.box[:2]),
            )

    def _tiles(self) -> Iterator[bytes]:
        """Compressed tiles, row by row."""
        blank = zlib.compress(bytes(4 * TILE * TILE))
        for strip in self._painter.strips(TILE, multiple=TILE):
            for left in range(0, strip.shape[1], TILE):
                tile = strip[:, left : left + TILE]
                yield zlib.compress(tile.tobytes()) if tile.any() else blank
