"""Nuclei as pixels at full resolution: a label image, COCO results, an overlay."""

import json
import zlib
from collections.abc import Iterator
from itertools import pairwise

import cv2
import numpy as np
import tifffile

from nucseg_mmdet.export.base import Target, Writer
from nucseg_mmdet.imaging.draw import draw_outlines
from nucseg_mmdet.inference.tiling import Nuclei
from nucseg_mmdet.structures import rle

TILE = 256  # px; a row of tiles, all that is painted at once, is 100 MB at 100,000 px
PAINT = 1 << 20  # pixels painted together; bounds the memory
COCO_LIMIT = 1 << 32  # px; pycocotools counts them in 32 bits
OVERLAY_LIMIT = 4096 * 4096  # px; the drawing is twice as wide and high, 200 MB

# A nucleus of a label image: vertices, score, first row and the one after the last, px.
KNOWN = np.dtype([('size', 'i4'), ('score', 'f4'), ('top', 'i4'), ('bottom', 'i4')])


def ring_runs(points: np.ndarray, sizes: np.ndarray, axis: int) -> tuple[np.ndarray, ...]:
    """Cut the inside of rings into runs of pixels.

    A line of pixels is inside between its 1st and 2nd crossing of the ring, its 3rd and 4th, ...

    Args:
        points: int, (P, 2); x, y of vertices on pixel edges, sides upright or level, all within
            1,048,575 px of one another.
        sizes: int, (N,); vertices of each ring, P in total; N is below 8 million.
        axis: 0 for runs along x in rows, 1 for runs along y in columns.

    Returns:
        owner, line, start, end: int64, (R,), sorted in this order. ``line`` is y for rows and x
        for columns; a run has the pixels from ``start`` to before ``end``.
    """
    ends = np.cumsum(sizes)
    after = np.arange(1, len(points) + 1)
    after[ends - 1] = ends - sizes
    corner = points.min(0) if len(points) else np.zeros(2, np.int64)
    along, line = (points - corner).T[[axis, 1 - axis]].astype(np.int64)
    low, high = np.minimum(line, line[after]), np.maximum(line, line[after])
    count = high - low  # lines that a side crosses, none if it runs along them
    place = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    owner = np.repeat(np.repeat(np.arange(len(sizes)), sizes), count)
    crossing = (owner << 40) | ((np.repeat(low, count) + place) << 20) | np.repeat(along, count)
    crossing.sort()
    start, end = crossing[0::2], crossing[1::2]
    start, end = start[end > start], end[end > start]
    part = (1 << 20) - 1  # number, line and crossing were packed into one integer
    return (
        start >> 40,
        ((start >> 20) & part) + corner[1 - axis],
        (start & part) + corner[axis],
        (end & part) + corner[axis],
    )


class CocoResults(Writer):
    """COCO results with run lengths at the size of the slide, as its truth has."""

    suffix = '.coco.json'

    @classmethod
    def obstacle(cls, target: Target) -> str | None:
        if target.width * target.height >= COCO_LIMIT:
            return f'{target.width} x {target.height} px are more than pycocotools can count'
        return None

    def _start(self) -> None:
        self._empty = True

    def _write(self, nuclei: Nuclei, ids: np.ndarray) -> None:
        height, width = self.target.height, self.target.width
        points = self.target.to_pixels(nuclei.points)
        owner, x, top, bottom = ring_runs(points, nuclei.sizes, axis=1)
        if not len(owner):
            return
        masks = rle.from_runs(x * height + top, bottom - top, owner, nuclei.num, height, width)
        kept = np.unique(owner)  # at low resolution a nucleus may have no pixel
        first = np.flatnonzero(np.diff(owner, prepend=-1))
        last = np.append(first[1:], len(owner)) - 1
        low, high = np.minimum.reduceat(top, first), np.maximum.reduceat(bottom, first)
        boxes = np.stack([x[first], low, x[last] + 1 - x[first], high - low], 1).tolist()
        head = f'{{"image_id":{self.target.image_id},"category_id":1,"bbox":'
        lines = [
            f'{head}{box},"score":{score:.6g},"segmentation":{{"size":[{height},{width}],'
            f'"counts":{json.dumps(masks[index]["counts"].decode())}}}}}'
            for index, box, score in zip(
                kept.tolist(), boxes, nuclei.scores[kept].tolist(), strict=True
            )
        ]
        text = ('[\n' if self._empty else ',\n') + ',\n'.join(lines)
        self._file.write(text.encode())
        self._empty = False

    def _finish(self) -> None:
        self._file.write(b'[]\n' if self._empty else b'\n]\n')


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
        first = np.cumsum(nuclei.sizes) - nuclei.sizes
        y = points[:, 1]
        known = np.zeros(nuclei.num, KNOWN)
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
        first = np.cumsum(known['size'], dtype=np.int64) - known['size']
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
                index = np.repeat(first[painted] - np.cumsum(sizes) + sizes, sizes)
                points = rings[index + np.arange(len(index))].astype(np.int64)
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
        shift = np.repeat(first[low:high] - np.cumsum(lengths) + lengths, lengths)
        canvas.reshape(-1)[shift + np.arange(len(shift))] = np.repeat(
            labels[owner[low:high]], lengths
        )


class Overlay(Writer):
    """A PNG of the image, or the region, with the outlines of the nuclei."""

    suffix = '.overlay.png'

    def _start(self) -> None:
        if self.options.image is None:
            raise ValueError('format overlay needs the image')
        self._outlines: list[list[list[float]]] = []

    @classmethod
    def obstacle(cls, target: Target) -> str | None:
        _, _, width, height = target.box
        if width * height > OVERLAY_LIMIT:
            return f'{width} x {height} px are more than {OVERLAY_LIMIT / 1e6:.0f} million'
        return None

    def _write(self, nuclei: Nuclei, ids: np.ndarray) -> None:
        points = self.target.to_slide(nuclei.points) - self.target.box[:2]
        points = points.reshape(-1).tolist()
        ends = (2 * np.cumsum(nuclei.sizes)).tolist()
        self._outlines += [[points[start:end]] for start, end in pairwise([0, *ends])]

    def _finish(self) -> None:
        drawn = draw_outlines(self.options.image()[..., ::-1], self._outlines)
        self._file.write(cv2.imencode('.png', drawn)[1])
