"""Nuclei painted as labels, strip by strip, in the memory of one strip."""

from collections.abc import Iterator
from itertools import pairwise
from typing import BinaryIO

import numpy as np

from nucseg_mmdet.export.writer import Target
from nucseg_mmdet.structures.nuclei import Nuclei
from nucseg_mmdet.structures.polygons import ring_runs
from nucseg_mmdet.utils import ragged

PAINT = 1 << 20  # pixels painted together; bounds the memory

# A nucleus of a label image: vertices, score, first row and the one after the last, px.
KNOWN = np.dtype([('size', 'i4'), ('score', 'f4'), ('top', 'i4'), ('bottom', 'i4')])


class LabelStrips:
    """Outlines that wait in a file, and are painted one strip of rows after the other.

    Nothing is assumed about the order in which nuclei come. A contested pixel goes to the higher
    score, then to the lower number. Nuclei are numbered from 1.

    Args:
        file: open for reading and writing, not closed here.
        target: whose full-resolution pixels, or those of its region, are painted.
    """

    def __init__(self, file: BinaryIO, target: Target) -> None:
        self._rings, self._target = file, target
        self._known: list[np.ndarray] = []

    def add(self, nuclei: Nuclei) -> None:
        """Keep nuclei, at least one, to be painted."""
        points = self._target.to_pixels(nuclei.points) - self._target.box[:2]
        self._rings.write(points.astype(np.int32).tobytes())
        first = ragged.starts(nuclei.sizes)
        y = points[:, 1]
        known = np.zeros(len(nuclei), KNOWN)
        known['size'], known['score'] = nuclei.sizes, nuclei.scores
        known['top'], known['bottom'] = np.minimum.reduceat(y, first), np.maximum.reduceat(y, first)
        self._known.append(known)

    def strips(self, rows: int, multiple: int = 1) -> Iterator[np.ndarray]:
        """Paint, once, from top to bottom.

        Args:
            rows: of a strip; the last one reaches beyond the image.
            multiple: of the strips' width, which may reach beyond the image.

        Yields:
            int32, (rows, width), 0 is background; overwritten by the next one.
        """
        _, _, width, height = self._target.box
        known = np.concatenate([np.zeros(0, KNOWN), *self._known])
        self._known = []
        self._rings.flush()
        # An empty file cannot be mapped.
        flat = np.memmap(self._rings, np.int32, 'r') if len(known) else np.zeros(0, np.int32)
        rings = flat.reshape(-1, 2)
        first = ragged.starts(known['size'])
        order = np.argsort(known['top'], kind='stable')
        tops = known['top'][order]
        strip = np.zeros((rows, -(-width // multiple) * multiple), np.int32)
        active = order[:0]
        for top in range(0, height, rows):
            new = order[slice(*np.searchsorted(tops, [top, top + rows]))]
            active = np.concatenate([active, new])
            active = active[known['bottom'][active] > top]
            strip[:] = 0
            if len(active):
                # The last one painted keeps a pixel.
                painted = active[np.lexsort((-active, known['score'][active]))]
                sizes = known['size'][painted].astype(np.int64)
                points = rings[ragged.spans(first[painted], sizes)].astype(np.int64)
                points[:, 1] = np.clip(points[:, 1] - top, 0, rows)
                paint(strip, points, sizes, painted + 1)
            yield strip


def paint(canvas: np.ndarray, points: np.ndarray, sizes: np.ndarray, labels: np.ndarray) -> None:
    """Fill rings in their order, in place; what lies beyond the canvas must be cut off before.

    Args:
        canvas: int32, (H, W), contiguous.
        points: int64, (P, 2); x, y of vertices on pixel edges, px of the canvas.
        sizes: int64, (N,); vertices of each ring, P in total.
        labels: int, (N,); the value of each ring's pixels.
    """
    owner, y, start, end = ring_runs(points, sizes, axis=0)
    first, length = y * canvas.shape[1] + start, end - start
    total = np.cumsum(length)
    cuts = np.searchsorted(total, np.arange(PAINT, total[-1] if len(total) else 0, PAINT))
    for low, high in pairwise([0, *(cuts + 1).tolist(), len(length)]):
        lengths = length[low:high]
        pixels = ragged.spans(first[low:high], lengths)
        canvas.reshape(-1)[pixels] = np.repeat(labels[owner[low:high]], lengths)
