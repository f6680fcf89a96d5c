"""Nuclei of a slide for the page: tiles of them, density, numbers of a view, the one at a place.

Tiles form a quadtree: those of level 0 are ``LEAF`` px wide, each level's twice as wide as the
one's before. A nucleus belongs to the tile that its centroid lies in. Nuclei are stored in
Morton order, so that those of any tile of any level lie together.
"""

import contextlib
import tempfile
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np

from nucseg_mmdet.slides.pixel_size import ASSUMED_MPP
from nucseg_mmdet.utils import ragged
from nucseg_mmdet.utils.errors import UserError
from nucseg_mmdet.viewer import parquet_source
from nucseg_mmdet.viewer.build import LEAF, STEPS, build, digest, morton
from nucseg_mmdet.viewer.container import read_container
from nucseg_mmdet.viewer.results import Result
from nucseg_mmdet.viewer.sources import SCORE, read_header, read_row

SUFFIX = '.view'
CELL_UM = 32.0  # microns, side of a cell of the density: about three nuclei
MAX_CELLS = 1 << 20  # of the density of a slide
FULL = 0.995  # quantile of the density that is painted opaque
BINS = 40  # of a histogram


class Filter(NamedTuple):
    """Which nuclei are wanted.

    Attributes:
        score: the lowest.
        hidden: classes that are not.
    """

    score: float = 0.0
    hidden: frozenset[int] = frozenset()


class NucleiIndex:
    """The nuclei of one slide.

    Args:
        result: of the slide.
        progress: called with the nuclei done and their number while the index is made.

    Attributes:
        info: numbers of the whole slide, for the page.

    Raises:
        UserError: the index has to be made, and the files are not as expected.
    """

    def __init__(self, result: Result, progress: Callable[[int, int], None] | None = None) -> None:
        self._result = result
        self.info, self._arrays = open_index(result, progress)
        self._header = read_header(result.table) if result.table.suffix == '.csv' else []
        self._columns = {column['name']: i for i, column in enumerate(self.info['columns'])}
        codes = np.asarray(self._arrays['leaf_codes'])
        self._leaf_x, self._leaf_y = _gather(codes), _gather(codes >> 1)

    def is_stale(self) -> bool:
        """Whether the files are others than those that the index was made of, by size and time.

        Raises:
            UserError: one is gone.
        """
        return digest(self._result) != self.info['source']

    def check(self) -> None:
        """Refuse to go on with the numbers of files that have been replaced.

        Raises:
            UserError: the files have changed, or one is gone.
        """
        if self.is_stale():
            name = self._result.name
            raise UserError(f'{name}: the results have changed, load the page again')

    def column(self, name: str) -> np.ndarray:
        """Values of a measurement, float32, (N,).

        Raises:
            KeyError: there is none of this name.
        """
        return self._arrays[f'value_{self._columns[name]}']

    def tile(self, level: int, x: int, y: int, column: str | None, outlines: bool) -> bytes:
        """Nuclei of a tile, as ``static/tiles.js`` reads them.

        n nuclei, r rings and p vertices (r and p are 0 without outlines), little-endian: n, r,
        p, 0 as uint32; centroids, float32, (n, 2), px from the tile's corner; scores, float32,
        (n,); values of the column, or zeros, float32, (n,); ring sizes, uint32, (r,); owner of
        each ring, uint32, (r,); vertices, int16, (p, 2), 1 / STEPS px from the tile's corner;
        classes, uint8, (n,).

        Args:
            level: 0 if outlines are wanted: int16 does not reach further.
            x: of the tile, from 0.
            y: likewise.
            column: the measurement whose values are wanted.
            outlines: are wanted too.

        Raises:
            KeyError: there is no such column.
        """
        at, arrays = self._range(level, x, y), self._arrays
        num = at.stop - at.start
        corner = np.array([x, y], np.int64) * (LEAF << level)
        rings = owner = np.zeros(0, np.uint32)
        points = np.zeros((0, 2), np.int16)
        if outlines and num:
            rings, owner, absolute = self._outlines(np.arange(at.start, at.stop))
            steps = absolute - corner * STEPS
            points = np.clip(steps, -(1 << 15), (1 << 15) - 1).astype(np.int16)
        parts = [
            np.array([num, len(rings), len(points), 0], np.uint32),
            (arrays['centroids'][at] - corner).astype(np.float32),
            self._scores(at),
            self.column(column)[at] if column else np.zeros(num, np.float32),
            rings.astype(np.uint32),
            owner.astype(np.uint32),
            points,
            arrays['kinds'][at],
        ]
        return b''.join(part.astype(part.dtype.newbyteorder('<')).tobytes() for part in parts)

    def density(self, wanted: Filter, column: str | None) -> tuple[float, np.ndarray, np.ndarray]:
        """Nuclei by area over the whole slide, a little smoothed.

        Args:
            wanted: nuclei.
            column: whose mean is wanted too.

        Returns:
            Side of a cell, px; nuclei per mm2, float32, (h, w); mean of the column in each
            cell, float32, (h, w), NaN where there is none.

        Raises:
            KeyError: there is no such column.
        """
        result, mpp = self._result, self._result.mpp or ASSUMED_MPP
        cell = max(CELL_UM / mpp, (result.width * result.height / MAX_CELLS) ** 0.5)
        shape = int(result.height / cell) + 1, int(result.width / cell) + 1
        keep = self._keep(slice(0, self.info['num']), wanted)
        last = np.array([[shape[1] - 1], [shape[0] - 1]])
        x, y = np.clip(self._arrays['centroids'][keep].T // cell, 0, last)
        place = (y * shape[1] + x).astype(np.int64)

        def spread(weights: np.ndarray | None) -> np.ndarray:
            counts = np.bincount(place, weights, shape[0] * shape[1]).reshape(shape)
            # Mirrored at the border, nothing is lost there.
            return cv2.GaussianBlur(
                counts.astype(np.float32), (0, 0), 1.0, borderType=cv2.BORDER_REFLECT
            )

        counts = spread(None)
        mean = np.full(shape, np.nan, np.float32)
        if column:
            values = self.column(column)[keep]
            known = np.isfinite(values)
            total, num = spread(np.where(known, values, 0)), spread(known.astype(float))
            np.divide(total, num, out=mean, where=num > 1e-3)
        return cell, counts / (cell * mpp / 1000) ** 2, mean

    @cached_property
    def full_density(self) -> float:
        """Nuclei per mm2 that the heat map paints opaque: of all nuclei, whichever are shown."""
        _, counts, _ = self.density(Filter(), None)
        counts = counts[counts > 1]
        return max(1.0, float(np.quantile(counts, FULL, method='lower'))) if counts.size else 1.0

    def view(
        self, box: tuple[float, float, float, float], wanted: Filter, column: str
    ) -> dict[str, Any]:
        """Count the nuclei of a view, and how a measurement is spread over them.

        Args:
            box: xyxy, px; a nucleus belongs to it by its centroid.
            wanted: nuclei.
            column: the measurement; values beyond the histogram count at its ends.

        Raises:
            KeyError: there is no such column.
        """
        at = self._within(box)
        at = at[self._keep(at, wanted)]
        values = self.column(column)[at]
        values = values[np.isfinite(values)].astype(float)
        about = self.info['columns'][self._columns[column]]
        low, high = about['low'], about['high']
        bins, _ = np.histogram(np.clip(values, low, high), BINS, (low, high))
        middle = float(np.median(values)) if len(values) else None
        mean = float(values.mean()) if len(values) else None
        return dict(count=len(at), low=low, high=high, bins=bins.tolist(), median=middle, mean=mean)

    def nucleus_at(self, x: float, y: float, radius: float, wanted: Filter) -> int | None:
        """Find the nucleus around a point, else the nearest one.

        Args:
            x: px.
            y: px.
            radius: how far the nearest one's centroid may be, px.
            wanted: nuclei.
        """
        reach = max(self.info['reach'] + 1, radius)
        at = self._within((x - reach, y - reach, x + reach, y + reach))
        at = at[self._keep(at, wanted)]
        if not len(at):
            return None
        distance = np.hypot(*(self._arrays['centroids'][at] - (x, y)).T)
        order = np.argsort(distance, kind='stable')
        for index in at[order].tolist():
            rings = [np.array(ring, np.float32) for ring in self.outline(index)]
            crossings = sum(cv2.pointPolygonTest(ring, (x, y), False) >= 0 for ring in rings)
            if crossings % 2:
                return index
        return int(at[order[0]]) if distance[order[0]] <= radius else None

    def nucleus_of(self, number: int) -> int | None:
        """Find a nucleus by its id in the table."""
        found = np.flatnonzero(np.asarray(self._arrays['ids']) == number)
        return int(found[0]) if found.size else None

    def outline(self, index: int) -> list[list[list[float]]]:
        """The rings of a nucleus, each a list of x, y, px."""
        rings, _, points = self._outlines(np.array([index]))
        return [ring.tolist() for ring in np.split(points / STEPS, np.cumsum(rings)[:-1])]

    def row(self, index: int) -> dict[str, str]:
        """A nucleus' row of the table, as it stands there.

        Raises:
            UserError: as ``check``.
        """
        at = int(self._arrays['rows'][index])
        try:
            if not self._header:
                return parquet_source.read_row(self._result.table, at)
            return read_row(self._result.table, self._header, at)
        finally:
            self.check()  # after the reading: files that changed meanwhile are found as well

    def centroid(self, index: int) -> list[float]:
        """x, y, px."""
        return self._arrays['centroids'][index].tolist()

    def _range(self, level: int, x: int, y: int) -> slice:
        """Where the nuclei of a tile lie."""
        code = int(morton(np.array([x]), np.array([y]))[0])
        bounds = [code << 2 * level, (code + 1) << 2 * level]
        return slice(*self._arrays['leaf_starts'][self._arrays['leaf_codes'].searchsorted(bounds)])

    def _within(self, box: tuple[float, float, float, float]) -> np.ndarray:
        """Indices of the nuclei that have their centroid in a box, xyxy, px."""
        x0, y0, x1, y1 = box
        touched = (self._leaf_x >= x0 // LEAF) & (self._leaf_x <= x1 // LEAF)
        touched &= (self._leaf_y >= y0 // LEAF) & (self._leaf_y <= y1 // LEAF)
        leaves = np.flatnonzero(touched)
        starts = np.asarray(self._arrays['leaf_starts'])
        at = ragged.spans(starts[leaves], starts[leaves + 1] - starts[leaves])
        x, y = self._arrays['centroids'][at].T
        return at[(x >= x0) & (x < x1) & (y >= y0) & (y < y1)]

    def _keep(self, at: slice | np.ndarray, wanted: Filter) -> np.ndarray:
        """Which of some nuclei are wanted: bool."""
        keep = self._scores(at) >= np.float32(wanted.score)
        if wanted.hidden:
            keep &= ~np.isin(self._arrays['kinds'][at], sorted(wanted.hidden))
        return keep

    def _scores(self, at: slice | np.ndarray) -> np.ndarray:
        if SCORE in self._columns:
            return np.asarray(self.column(SCORE)[at])
        return np.ones(len(self._arrays['kinds'][at]), np.float32)

    def _outlines(self, at: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Ring sizes, their owners (index into ``at``), and vertices, int64, 1 / STEPS px."""
        arrays = self._arrays
        num = arrays['num_rings'][at].astype(np.int64)
        sizes = arrays['ring_sizes'][ragged.spans(arrays['first_rings'][at], num)]
        num_points = arrays['num_points'][at].astype(np.int64)
        points = arrays['points'][ragged.spans(arrays['first_points'][at], num_points)]
        origins = np.repeat(arrays['origins'][at].astype(np.int64) * STEPS, num_points, axis=0)
        return sizes, ragged.owners(num), points + origins


def open_index(
    result: Result, progress: Callable[[int, int], None] | None = None
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Open the index beside the results; make it where there is none or its sources changed.

    In a folder that can't be written to, the index lasts only as long as this process.

    Raises:
        UserError: the files that it is made of are not as expected.
    """
    source = digest(result)
    path = result.table.with_name(f'{result.name}{SUFFIX}')
    with contextlib.suppress(UserError, OSError, ValueError, KeyError, TypeError):
        info, arrays = read_container(path)
        if info['source'] == source and _is_sound(info, arrays):
            return info, arrays
    try:
        build(result, path, progress)
        return read_container(path)
    except UserError:
        # The folder may be read-only. Where the files are at fault the error comes again.
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, 'index')
            build(result, path, progress)
            return read_container(path)  # stays mapped when the file is gone


def _is_sound(info: dict[str, Any], arrays: dict[str, np.ndarray]) -> bool:
    """Whether an index that was there has its arrays, whose places lie in one another.

    Raises:
        KeyError: an array or a number is missing.
        TypeError: a number is none.
    """
    num, classes, columns = info['num'], info['classes'], info['columns']
    each = ['origins', 'centroids', 'ids', 'rows', 'kinds']
    each += [f'value_{index}' for index in range(len(columns))]
    sizes = arrays['ring_sizes']
    sound = all(len(arrays[name]) == num for name in each) and info['reach'] >= 0
    for name, length in (('points', len(arrays['points'])), ('rings', len(sizes))):
        first, many = arrays[f'first_{name}'], arrays[f'num_{name}']
        inside = (first >= 0) & (many >= 0) & (first + many.astype(np.int64) <= length)
        sound &= len(first) == len(many) == num and bool(inside.all())
    starts, codes = arrays['leaf_starts'], arrays['leaf_codes']
    sound &= len(starts) == len(codes) + 1 and starts[0] == 0 and starts[-1] == num
    sound &= bool((np.diff(starts) >= 0).all() and (np.diff(codes) > 0).all())
    sound &= len(info['counts']) == len(classes) and bool((sizes >= 0).all())
    return bool(sound and sizes.sum(dtype=np.int64) == len(arrays['points']))


def _gather(codes: np.ndarray) -> np.ndarray:
    """Every other bit of Morton codes: the tiles' x."""
    number = np.zeros_like(codes)
    for bit in range(24):
        number |= (codes >> (2 * bit) & 1) << bit
    return number


def parse_hidden(text: str) -> frozenset[int]:
    """Classes from '1,4'; none from ''."""
    return frozenset(int(part) for part in text.split(',') if part)
