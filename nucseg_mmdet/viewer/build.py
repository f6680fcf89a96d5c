"""Make the index of a slide's nuclei, ``NAME.view``, from the table and the outlines.

Both are read as streams; what stays in memory until the end is a hundred bytes a nucleus, while
the vertices, the bulk, go straight to disk. ``index`` reads what this writes.

Arrays, all of N nuclei in the order of the leaf tiles that their centroids lie in but for the
vertices, which stay in the order of the GeoJSON:

    points        int16, (P, 2): vertices, 1 / STEPS px from the nucleus' origin
    ring_sizes    int32, (R,): vertices of each ring
    first_points, first_rings   int64, (N,): where a nucleus' begin
    num_points, num_rings       int32, (N,): how many it has
    origins       int32, (N, 2): px;   centroids   float32, (N, 2): px
    ids, rows     int64, (N,): number, and byte of the row in the table
    kinds         uint8, (N,): index into ``info['classes']``
    value_<i>     float32, (N,): column ``info['columns'][i]``
    leaf_codes    int64, (L,), ascending: Morton codes of the leaf tiles with nuclei
    leaf_starts   int64, (L + 1,): their nuclei
"""

import contextlib
import gc
import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from nucseg_mmdet.utils import ragged
from nucseg_mmdet.utils.errors import UserError
from nucseg_mmdet.utils.files import new_file
from nucseg_mmdet.viewer import parquet_source
from nucseg_mmdet.viewer.container import ContainerWriter
from nucseg_mmdet.viewer.results import MAX_SIDE, Result
from nucseg_mmdet.viewer.sources import (
    SCORE,
    Outlines,
    Table,
    read_class,
    read_outlines,
    read_table,
)

FORMAT = 1  # of the index; an older one is made anew
LEAF = 1024  # px, side of the smallest tile
STEPS = 16  # of a vertex' coordinate, a px
THRESHOLDS = 1000  # scores are counted at each 1 / THRESHOLDS
OFF = 2.0  # px that a centroid may lie outside of its outline's box: both are rounded
RANGE = (1, 99)  # percentiles between which colors and histograms are spread
MAX_CLASSES = 255


@contextlib.contextmanager
def no_garbage_collection() -> Iterator[None]:
    """Keep Python from looking for cycles, which JSON has none of: a third of the time is left."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def digest(result: Result) -> str:
    """What an index depends on: the sizes and times of its sources, and its own format.

    Not their bytes: a large slide's outlines are gigabytes, and a run replaces its files whole.

    Raises:
        UserError: one is gone.
    """
    stats = []
    for path in (result.table, result.outlines):
        try:
            stats.append(path.stat())
        except OSError as error:
            raise UserError(f'{path}: {error.strerror}, expected a file of the run') from None
    known = [FORMAT, *((stat.st_size, stat.st_mtime_ns) for stat in stats)]
    return hashlib.sha256(repr(known).encode()).hexdigest()


def build(result: Result, path: Path, progress: Callable[[int, int], None] | None = None) -> None:
    """Make the index of a slide.

    Args:
        result: whose files are read.
        path: of the index; it appears once it is complete.
        progress: called with the nuclei done and their number.

    Raises:
        UserError: the files are not as expected or do not belong together, or the index cannot
            be written.
    """
    source = digest(result)  # before the reading: files that change meanwhile make it stale
    table, all_outlines = _read(result)
    num = len(table.ids)
    places = dict(points=np.zeros(num, np.int32), rings=np.zeros(num, np.int32))
    kinds, classes = np.zeros(num, np.uint8), {}
    ring_sizes, done, reach = [np.zeros(0, np.int32)], 0, 0.0
    _check_range(result.table, table.centroids)
    if not np.isfinite(table.values.get(SCORE, 0.0)).all():
        raise UserError(f'{result.table}: a nucleus without a score, expected one of each')
    origins = np.round(table.centroids).astype(np.int32)
    with no_garbage_collection(), new_file(path) as file:
        writer = ContainerWriter(file)
        writer.append('points', np.zeros((0, 2), np.int16))
        for part in all_outlines:
            stop = done + len(part.rings)
            if stop > num:
                break
            owner = np.repeat(ragged.owners(part.rings), part.ring_sizes)
            _check_range(result.outlines, part.points)
            reach = max(reach, _check_places(result, part, owner, table.centroids[done:stop]))
            steps = np.round((part.points - origins[done + owner]) * STEPS)
            writer.append('points', np.clip(steps, -(1 << 15), (1 << 15) - 1).astype(np.int16))
            places['points'][done:stop] = np.bincount(owner, minlength=stop - done)
            places['rings'][done:stop] = part.rings
            ring_sizes.append(part.ring_sizes.astype(np.int32))
            for index, kind in enumerate(part.classes, done):
                kinds[index] = classes.setdefault(kind, min(len(classes), MAX_CLASSES))
            done = stop
            if progress:
                progress(done, num)
        else:
            stop = done
        if stop != num:
            more = 'more' if stop > num else f'only {stop:,}'
            raise UserError(
                f'{result.outlines}: {more} outlines, expected {num:,} as {result.table.name} has '
                'rows'
            )
        writer.append('ring_sizes', np.concatenate(ring_sizes))
        _write_columns(writer, table, origins, places, kinds)
        shown = list(classes)
        if len(shown) > MAX_CLASSES + 1:  # each would take its counts, and time
            shown[MAX_CLASSES:] = [(f'{len(shown) - MAX_CLASSES:,} further classes', None)]
        writer.finish(dict(source=source, reach=reach, **_describe(table, kinds, shown)))


def _read(result: Result) -> tuple[Table, Iterator[Outlines]]:
    """The table, and the outlines in px of the slide, as they are read."""
    if result.table.suffix != '.csv':
        # In QuPath's form, as the GeoJSON has it.
        known = [dict(classification=one) for one in result.summary.get('classes') or []]
        colors = dict(map(read_class, known))
        outlines = parquet_source.read_outlines(result.outlines, colors)
        return parquet_source.read_table(result.table), outlines
    corner = result.summary.get('qupath_corner', [0, 0])
    moved = (part._replace(points=part.points + corner) for part in read_outlines(result.outlines))
    return read_table(result.table), moved


def _check_range(path: Path, points: np.ndarray) -> None:
    """Refuse places that are on no slide; NaN is none."""
    if not (np.abs(points) <= MAX_SIDE).all():
        raise UserError(f'{path}: places that are not finite or too large, expected px of a slide')


def _check_places(
    result: Result, part: Outlines, owner: np.ndarray, centroids: np.ndarray
) -> float:
    """How far vertices lie from their centroid, px; refuses those of other nuclei."""
    first = np.searchsorted(owner, np.arange(len(part.rings)))
    low, high = (side.reduceat(part.points, first) for side in (np.minimum, np.maximum))
    off = np.flatnonzero(((centroids < low - OFF) | (centroids > high + OFF)).any(axis=1))
    if off.size:
        x, y = centroids[off[0]]
        raise UserError(
            f'{result.outlines}: no outline around the nucleus at {x:.0f},{y:.0f} of '
            f'{result.table.name}, expected files of the same run'
        )
    return float(max(np.max(centroids - low), np.max(high - centroids)))


def _write_columns(
    writer: ContainerWriter,
    table: Table,
    origins: np.ndarray,
    places: dict[str, np.ndarray],
    kinds: np.ndarray,
) -> None:
    codes = morton(*np.maximum(np.floor(table.centroids / LEAF), 0).astype(np.int64).T)
    order = np.argsort(codes, kind='stable')
    leaf_codes, starts = np.unique(codes[order], return_index=True)
    for name, sizes in places.items():
        writer.append(f'first_{name}', ragged.starts(sizes)[order])
        writer.append(f'num_{name}', sizes[order])
    columns = dict(origins=origins, centroids=table.centroids.astype(np.float32))
    columns |= dict(ids=table.ids, rows=table.rows, kinds=kinds)
    for name, column in columns.items():
        writer.append(name, column[order])
    for index, column in enumerate(table.values.values()):
        writer.append(f'value_{index}', column[order])
    writer.append('leaf_codes', leaf_codes)
    writer.append('leaf_starts', np.append(starts, len(order)))


def _describe(table: Table, kinds: np.ndarray, classes: list) -> dict[str, Any]:
    """What the page shows before any nucleus is loaded, such as counts by score and class."""
    scores = table.values.get(SCORE, np.ones(len(kinds), np.float32))
    # In float32 on both sides: 0.7 of the table is not below the threshold 0.7.
    thresholds = (np.arange(THRESHOLDS + 1) / THRESHOLDS).astype(np.float32)
    counts = []
    for kind in range(len(classes)):
        ranked = np.sort(scores[kinds == kind])
        counts.append((len(ranked) - np.searchsorted(ranked, thresholds)).tolist())
    columns = []
    for name, column in table.values.items():
        known = column[np.isfinite(column)]
        low, high = np.percentile(known.astype(float), RANGE) if known.size else (0.0, 1.0)
        around = max(0.5, abs(low) / 1000)
        low, high = (low, high) if high > low else (low - around, low + around)
        columns.append(dict(name=name, low=float(low), high=float(high)))
    return dict(
        num=len(kinds),
        columns=columns,
        classes=[dict(name=name, color=color) for name, color in classes],
        counts=counts,
        lowest_score=float(scores.min()) if len(scores) else 0.0,
    )


def morton(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Interleave the bits of tile coordinates.

    The tiles in a tile four, sixteen, ... times as large have neighboring codes.

    Args:
        x: int64, (N,), from 0 to below 2^24.
        y: likewise.

    Returns:
        int64, (N,).
    """
    return _spread(x) | (_spread(y) << 1)


def _spread(number: np.ndarray) -> np.ndarray:
    spread = np.zeros_like(number)
    for bit in range(24):
        spread |= (number >> bit & 1) << (2 * bit)
    return spread
