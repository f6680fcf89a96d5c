"""Nuclei as a label image."""

import zlib
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import tifffile

from nucseg_mmdet.export.writer import Writer
from nucseg_mmdet.structures.nuclei import Nuclei
from nucseg_mmdet.structures.polygons import ring_runs
from nucseg_mmdet.utils import ragged

TILE = 256  # px; a row of tiles, all that is painted at once, is 100 MB at 100,000 px
PAINT = 1 << 20  # pixels painted together; bounds the memory

# A nucleus of a label image: vertices, score, first row and the one after the last, px.
KNOWN = np.dtype([('size', 'i4'), ('score', 'f4'), ('top', 'i4'), ('bottom', 'i4')])


class LabelImage(Writer):
    """A tiled BigTIFF, int32, deflate: 0 is background, a nucleus has its number in the tables.

    It has the size of the image, or of the region, so that both open on top of each other;
    the resolution tags say how large a pixel is. A contested pixel goes to the higher score,
    then to the lower number.

    The rings wait in a temporary file, so that nothing is assumed about the order in which
    nuclei come, and are painted at the end, one row of tiles after the other.
    """

    suffix = '.labels.tif'

    def _start(self) -> None:
        path = self._partial.with_suffix('.rings')
        self._rings = self._held.enter_context(path.open('w+b'))
        path.unlink()  # it stays until it is closed, by whatever end
        self._known: list[np.ndarray] = []

    def _write(self, nuclei: Nuclei, ids: np.ndarray) -> None:
        points = self.target.to_pixels(nuclei.points) - self.target.box[:2]
        self._rings.write(points.astype(np.int32).tobytes())
        first = ragged.starts(nuclei.sizes)
        y = points[:, 1]
        known = np.zeros(len(nuclei), KNOWN)
        known['size'], known['score'] = nuclei.sizes, nuclei.scores
        known['top'], known['bottom'] = np.minimum.reduceat(y, first), np.maximum.reduceat(y, first)
        self._known.append(known)

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
        _, _, width, height = self.target.box
        known = np.concatenate([np.zeros(0, KNOWN), *self._known])
        self._known = []
        self._rings.flush()
        if len(known):
            rings = np.memmap(self._rings, np.int32, 'r').reshape(-1, 2)
        first = ragged.starts(known['size'])
        order = np.argsort(known['top'], kind='stable')
        tops = known['top'][order]
        blank = zlib.compress(bytes(4 * TILE * TILE))
        strip = np.zeros((TILE, -(-width // TILE) * TILE), np.int32)
        active = order[:0]
        for top in range(0, height, TILE):
            new = order[slice(*np.searchsorted(tops, [top, top + TILE]))]
            active = np.concatenate([active, new])
            active = active[known['bottom'][active] > top]
            strip[:] = 0
            if len(active):
                # The last one painted keeps a pixel.
                painted = active[np.lexsort((-active, known['score'][active]))]
                sizes = known['size'][painted].astype(np.int64)
                points = rings[ragged.spans(first[painted], sizes)].astype(np.int64)
                points[:, 1] = np.clip(points[:, 1] - top, 0, TILE)
                _paint(strip, points, sizes, painted + 1)
            for left in range(0, width, TILE):
                tile = strip[:, left : left + TILE]
                yield zlib.compress(tile.tobytes()) if tile.any() else blank


def _paint(canvas: np.ndarray, points: np.ndarray, sizes: np.ndarray, labels: np.ndarray) -> None:
    """Fill rings in their order, in place."""
    owner, y, start, end = ring_runs(points, sizes, axis=0)
    first, length = y * canvas.shape[1] + start, end - start
    total = np.cumsum(length)
    cuts = np.searchsorted(total, np.arange(PAINT, total[-1] if len(total) else 0, PAINT))
    for low, high in pairwise([0, *(cuts + 1).tolist(), len(length)]):
        lengths = length[low:high]
        pixels = ragged.spans(first[low:high], lengths)
        canvas.reshape(-1)[pixels] = np.repeat(labels[owner[low:high]], lengths)
