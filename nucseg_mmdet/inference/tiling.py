"""An image tile by tile: each nucleus once and whole, whichever tiles saw it.

Tiles overlap. The middle of each overlap is a *seam*; the seams around a tile bound its *core*,
and the cores cover the image without overlap. Of a tile only nuclei that reach into its core
count (``keep_core``): the others are a neighbor's, which sees them further from its border, and
whole if the overlap is twice as wide as they are. Two tiles can then give the same nucleus
only if it crosses their seam, and there it is matched by its shape (``join_parts``)::

    row = join_row(((column, nuclei), ...), grid, number)
    image = join_rows((read_row(path) for path in paths), grid)

Rows of tiles wait on disk as files, *shards*. ``join_rows`` streams: it holds two rows.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import shapely

from nucseg_mmdet.structures.nuclei import EMPTY, Nuclei, concatenate
from nucseg_mmdet.utils.errors import UserError

SAME = 0.5  # of the smaller one's area, shared by two views of one nucleus
PIECES = 0.1  # likewise, if both views are cut
EDGE = 1  # px; a mask that comes so close to its tile's border is cut by it


class Part(NamedTuple):
    """Nuclei as some tiles saw them, px of the whole working image.

    Attributes:
        nuclei: N nuclei.
        cut: bool, (N,); whether the border of a tile, not of the image, cuts the nucleus.
    """

    nuclei: Nuclei
    cut: np.ndarray

    def take(self, index: np.ndarray) -> 'Part':
        return Part(self.nuclei.take(index), self.cut[index])


NOTHING = Part(EMPTY, np.zeros(0, bool))


def concatenate_parts(parts: Iterable[Part]) -> Part:
    """Put the nuclei of parts one after the other."""
    nuclei, cut = zip(NOTHING, *parts, strict=True)
    return Part(concatenate(nuclei), np.concatenate(cut))


class Grid(NamedTuple):
    """Tiles that cover an image.

    Attributes:
        lefts: where the columns of tiles start, px.
        rights: where they end.
        tops: where the rows of tiles start, px.
        bottoms: where they end.
    """

    lefts: list[int]
    rights: list[int]
    tops: list[int]
    bottoms: list[int]

    @property
    def seams_x(self) -> list[int]:
        """Seams between the columns, px."""
        return _seams(self.lefts, self.rights)

    @property
    def seams_y(self) -> list[int]:
        """Seams between the rows, px."""
        return _seams(self.tops, self.bottoms)

    def tile(self, row: int, column: int) -> tuple[int, int, int, int]:
        """x, y, width, height of a tile, px."""
        left, top = self.lefts[column], self.tops[row]
        return left, top, self.rights[column] - left, self.bottoms[row] - top

    def cell(self, row: int, column: int) -> tuple[int, int, int, int]:
        """x, y, width, height of a tile's part between the seams, px; parts do not overlap."""
        x = [self.lefts[0], *self.seams_x, self.rights[-1]]
        y = [self.tops[0], *self.seams_y, self.bottoms[-1]]
        return x[column], y[row], x[column + 1] - x[column], y[row + 1] - y[row]


def make_grid(width: int, height: int, tile: int, overlap: int, step: int = 1) -> Grid:
    """Cover an image with as few tiles as it takes, all as small as that allows.

    Args:
        width: of the image, px.
        height: of the image, px.
        tile: largest side of a tile, px.
        overlap: of neighbors at least, px; twice the largest nucleus.
        step: tiles start at multiples of it, or of a half, a quarter, ... if the overlap does
            not leave room, px. A network sees the same at places that differ by its stride.

    Raises:
        UserError: the overlap is negative or more than half a tile.
    """
    if not 0 <= 2 * overlap <= tile or tile < 1:
        raise UserError(
            f'tiles of {tile} px overlap by {overlap} px, expected 0 to {max(tile, 0) // 2} px'
        )
    while step > 1 and not 2 * -(-overlap // step) <= tile // step > 0:
        step //= 2
    return Grid(*_cover(width, tile, overlap, step), *_cover(height, tile, overlap, step))


def _cover(length: int, tile: int, overlap: int, step: int) -> tuple[list[int], list[int]]:
    """Where the tiles along an axis start and end."""
    if length <= tile:
        return [0], [length]
    # In steps; the last tile may end within one.
    total, tile, overlap = -(-length // step), tile // step, -(-overlap // step)
    count = -(-(total - overlap) // (tile - overlap))
    size = -(-(total + (count - 1) * overlap) // count)
    starts = [index * (total - size) // max(1, count - 1) * step for index in range(count)]
    return starts, [min(start + size * step, length) for start in starts]


def _seams(starts: list[int], ends: list[int]) -> list[int]:
    return [(end + start) // 2 for end, start in zip(ends, starts[1:], strict=False)]


def join_row(tiles: Iterable[tuple[int, Nuclei]], grid: Grid, row: int) -> Part:
    """Make one part of the tiles of a row.

    Args:
        tiles: column and nuclei, px of the tile, of each tile that was looked at.
        grid: all tiles.
        row: of these.
    """
    parts = [NOTHING] * len(grid.lefts)
    for column, nuclei in tiles:
        parts[column] = keep_core(nuclei, grid, row, column)
    return concatenate_parts(join_parts(parts, grid.seams_x, axis=0))


def join_rows(rows: Iterable[Part], grid: Grid) -> Iterator[Part]:
    """Join all rows of a grid, one after the other, see ``join_parts``."""
    return join_parts(rows, grid.seams_y, axis=1)


def keep_core(nuclei: Nuclei, grid: Grid, row: int, column: int) -> Part:
    """Keep of a tile's nuclei those that reach into its core.

    Args:
        nuclei: what was found in the tile, px of the tile.
        grid: all tiles.
        row: of the tile.
        column: of the tile.
    """
    *corner, width, height = grid.tile(row, column)
    low, high = np.split(nuclei.boxes(), 2, axis=1)
    reaches, cut = np.ones(len(nuclei), bool), np.zeros(len(nuclei), bool)
    for axis, (index, seams, side) in enumerate(
        [(column, grid.seams_x, width), (row, grid.seams_y, height)]
    ):
        if index > 0:
            reaches &= high[:, axis] > seams[index - 1] - corner[axis]
            cut |= low[:, axis] <= EDGE
        if index < len(seams):
            reaches &= low[:, axis] < seams[index] - corner[axis]
            cut |= high[:, axis] >= side - EDGE
    return Part(nuclei.moved(*corner), cut).take(np.flatnonzero(reaches))


def join_parts(parts: Iterable[Part], seams: Sequence[int], axis: int) -> Iterator[Part]:
    """Join neighboring parts over the seams between them; a nucleus that both have counts once.

    Two views are of one nucleus if they share more than half the area of the smaller one. That
    is so for every IoU above 1/3, and for a piece inside a whole. Of the two stays the whole
    one rather than the cut one, then that whose center is on its own side of the seam, then the
    one with the higher score, then the first.

    Args:
        parts: one more than there are seams, in order, made by ``keep_core`` or joined along the
            other axis. A part is asked for when the one before has been joined.
        seams: px.
        axis: that the parts follow one another along, 0 for x, 1 for y.

    Yields:
        The parts without what their neighbors have.
    """
    parts = iter(parts)
    first = next(parts)
    for seam, second in zip(seams, parts, strict=True):
        dropped = _find_repeated(first, second, seam, axis)
        stays = np.ones(len(first.nuclei) + len(second.nuclei), bool)
        stays[dropped] = False
        stays_first, stays_second = np.split(stays, [len(first.nuclei)])
        yield first.take(np.flatnonzero(stays_first))
        first = second.take(np.flatnonzero(stays_second))
    yield first


def _find_repeated(first: Part, second: Part, seam: int, axis: int) -> list[int]:
    """Of nuclei that two parts have, which to drop: indices into both, the second's after."""
    reach = first.nuclei.boxes()[:, axis + 2]
    start = second.nuclei.boxes()[:, axis]
    # Only what crosses the seam meets nuclei of the other part.
    near_first = np.flatnonzero(reach > start.min(initial=seam))
    near_second = np.flatnonzero(start < reach.max(initial=seam))
    near = concatenate_parts([first.take(near_first), second.take(near_second)])
    index = np.append(near_first, near_second + len(first.nuclei))
    is_second = np.arange(index.size) >= near_first.size

    polygons = near.nuclei.polygons()
    one, other = shapely.STRtree(polygons[is_second]).query(
        polygons[~is_second], predicate='intersects'
    )
    other = other + near_first.size
    areas = shapely.area(polygons)
    shared = shapely.area(shapely.intersection(polygons[one], polygons[other]))
    limit = np.where(near.cut[one] & near.cut[other], PIECES, SAME)
    same = shared > limit * np.minimum(areas[one], areas[other])

    at_home = (near.nuclei.centroids[:, axis] >= seam) == is_second
    order = np.lexsort((index, -near.nuclei.scores, ~at_home, near.cut))
    rank = np.empty_like(order)
    rank[order] = np.arange(order.size)
    pairs = np.sort(rank[np.stack([one[same], other[same]], axis=1)], axis=1)
    dropped: set[int] = set()
    for better, worse in pairs[np.lexsort(pairs.T[::-1])].tolist():
        if better not in dropped:
            dropped.add(worse)
    return index[order[sorted(dropped)]].tolist()
