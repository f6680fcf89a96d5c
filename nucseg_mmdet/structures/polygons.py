"""Masks of single nuclei as polygons on pixel edges and as COCO run lengths.

Coordinates are continuous with pixel edges at integers: the pixel in column 3,
row 5 covers x from 3 to 4 and y from 5 to 6. A polygon whose vertices lie on
pixel edges rasterizes back to exactly the mask that it was traced from; one
through pixel centers (``cv2.findContours``) loses half a pixel all around.
"""

from collections.abc import Sequence

import numpy as np

from nucseg_mmdet.structures.rle import coco_mask
from nucseg_mmdet.utils import ragged

Polygon = list[float]
# px around a polygon, far more than around any nucleus. pycocotools makes five points of each, and
# ends the process where there is no room for them.
MOST_AROUND = 1 << 22


def mask_to_polygons(mask: np.ndarray, origin: tuple[int, int] = (0, 0)) -> list[Polygon]:
    """Trace a mask along its pixel edges.

    Pixels that touch only at a corner belong to separate polygons, so no polygon
    touches itself there. A hole is joined to the outline around it by a bridge of
    zero width, because a list of COCO polygons is a union and cannot cut holes.

    Args:
        mask: bool, (H, W).
        origin: x, y of the mask's top left corner in the polygons' frame, px.

    Returns:
        One polygon ``[x0, y0, x1, y1, ...]`` for each 4-connected part, in px, with
        vertices at the corners only; an empty list for an empty mask.
    """
    padded, shift = _cut_out(mask, origin)
    outlines: list[list[tuple[int, int]]] = []
    for ring in _trace_rings(padded):
        x, y = ring[0]
        if padded[y, x]:  # the pixel below and right of the ring's top left corner
            outlines.append(ring)
        else:
            _bridge_hole(outlines, ring)
    return [_to_polygon(ring, shift) for ring in outlines]


def mask_to_outlines(mask: np.ndarray, origin: tuple[int, int] = (0, 0)) -> list[Polygon]:
    """Trace a mask for drawing: as ``mask_to_polygons``, but each hole is a ring of its own."""
    padded, shift = _cut_out(mask, origin)
    return [_to_polygon(ring, shift) for ring in _trace_rings(padded)]


def _cut_out(mask: np.ndarray, origin: tuple[int, int]) -> tuple[np.ndarray, tuple[int, int]]:
    """Cut out the foreground with a border of one pixel; x, y of the cut's corner, px."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not rows.size:
        return np.zeros((2, 2), dtype=bool), origin
    top, left = int(rows[0]), int(columns[0])
    padded = np.pad(mask[top : rows[-1] + 1, left : columns[-1] + 1].astype(bool), 1)
    return padded, (origin[0] + left - 1, origin[1] + top - 1)


def _to_polygon(ring: list[tuple[int, int]], shift: tuple[int, int]) -> Polygon:
    return (np.array(ring) + shift).ravel().astype(float).tolist()


def _trace_rings(padded: np.ndarray) -> list[list[tuple[int, int]]]:
    """Follow the boundary of a mask that has an empty border of one pixel.

    In every row of corners the 1st and 2nd, 3rd and 4th, ... are joined by a
    horizontal edge, in every column likewise by a vertical one; the rings follow.

    Returns:
        Rings of (x, y) corners, in the array's own pixel edges. A ring starts at its
        top left corner, goes right first, and comes in the order of these corners.
    """
    top_left, top_right = padded[:-1, :-1], padded[:-1, 1:]
    bottom_left, bottom_right = padded[1:, :-1], padded[1:, 1:]
    single = top_left ^ top_right ^ bottom_left ^ bottom_right  # one or three of the four
    falling = top_left & bottom_right & ~top_right & ~bottom_left  # like a backslash
    rising = top_right & bottom_left & ~top_left & ~bottom_right
    # Where two pixels touch diagonally, two corners share the place. The first of
    # them has the edge to the left, so in its column it comes first if it belongs to
    # the upper pixel (falling) and second if it belongs to the lower one (rising).
    y, x = np.nonzero(single | falling | rising)
    copies = 1 + (falling | rising)[y, x]
    swap = np.repeat(rising[y, x], copies)
    y, x = np.repeat(y, copies), np.repeat(x, copies)
    count = y.size
    second = np.zeros(count, dtype=bool)
    second[1:] = (y[1:] == y[:-1]) & (x[1:] == x[:-1])
    by_column = np.lexsort((second ^ swap, y, x))
    rank = np.empty(count, dtype=np.int64)
    rank[by_column] = np.arange(count)
    partner_in_column = by_column[rank ^ 1].tolist()

    points = list(zip((x + 1).tolist(), (y + 1).tolist(), strict=True))
    seen = bytearray(count)
    rings = []
    for start in range(count):
        if seen[start]:
            continue
        ring, corner = [], start
        while not seen[corner]:
            along = corner ^ 1
            seen[corner] = seen[along] = 1
            ring += points[corner], points[along]
            corner = partner_in_column[along]
        rings.append(ring)
    return rings


def _bridge_hole(outlines: list[list[tuple[int, int]]], hole: list[tuple[int, int]]) -> None:
    """Join a hole to the outline above it, in place.

    The bridge goes straight up from the hole's top left corner, over foreground only,
    to the next horizontal edge. That edge is part of an outline in the list: rings
    come from top to bottom, so a hole in between is joined already.
    """
    x, y = hole[0]
    nearest = None
    for outline in outlines:
        for index, (start, end) in enumerate(zip(outline, outline[1:] + outline[:1], strict=True)):
            spans = start[1] == end[1] and min(start[0], end[0]) <= x < max(start[0], end[0])
            if spans and start[1] < y and (nearest is None or start[1] > nearest[0]):
                nearest = (start[1], outline, index)
    if nearest is None:
        raise ValueError('a hole that lies in no outline')
    edge_y, outline, index = nearest
    bridge = [(x, edge_y), (x, y), *reversed(hole[1:]), (x, y), (x, edge_y)]
    outline[index + 1 : index + 1] = bridge


def polygons_to_rle(polygons: Sequence[Polygon], height: int, width: int) -> dict:
    """Rasterize the union of polygons as COCO does.

    Args:
        polygons: ``[x0, y0, x1, y1, ...]``, px.
        height: of the image, px.
        width: of the image, px.

    Returns:
        A COCO RLE ``{'size': [height, width], 'counts': bytes}``.

    Raises:
        ValueError: a polygon is longer around than ``MOST_AROUND``.
    """
    if not polygons:
        return coco_mask.encode(np.zeros((height, width), dtype=np.uint8, order='F'))
    for polygon in polygons:
        points = np.asarray(polygon, float).reshape(-1, 2)
        around = np.abs(points - np.roll(points, -1, axis=0)).max(axis=1).sum()
        if not around <= MOST_AROUND:
            raise ValueError(
                f'polygon of {around:,.0f} px around, expected at most {MOST_AROUND:,}'
            )
    return coco_mask.merge(coco_mask.frPyObjects(list(polygons), height, width))


def segmentation_to_rle(segmentation: list | dict, height: int, width: int) -> dict:
    """Turn any COCO ``segmentation`` into a compressed RLE.

    Args:
        segmentation: polygons, an RLE with a list of counts, or one with a compressed
            string of counts (text or bytes).
        height: of the image, px.
        width: of the image, px.

    Returns:
        ``{'size': [height, width], 'counts': bytes}``.

    Raises:
        ValueError: the RLE has another size than the image, or as ``polygons_to_rle``.
    """
    if isinstance(segmentation, list):
        return polygons_to_rle(segmentation, height, width)
    size = list(segmentation['size'])
    if size != [height, width]:
        raise ValueError(f'RLE of size {size}, expected {[height, width]} (height, width)')
    counts = segmentation['counts']
    if isinstance(counts, list):
        return coco_mask.frPyObjects(segmentation, height, width)
    return dict(size=size, counts=counts.encode() if isinstance(counts, str) else counts)


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
    owner = np.repeat(ragged.owners(sizes), count)
    crossing = (owner << 40) | (ragged.spans(low, count) << 20) | np.repeat(along, count)
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


def fill_rings(rings: Sequence[np.ndarray], height: int, width: int) -> np.ndarray:
    """Find the pixels whose center lies within rings of any form, by the even-odd rule.

    A ring in another is a hole, so that the rings of a polygon or of several apart make one mask.
    A center on a side belongs to the area on its right, on a level one to that below.

    Args:
        rings: float, (P, 2) each; x, y, px; they may reach beyond the mask.
        height: of the mask, px.
        width: of the mask, px.

    Returns:
        bool, (height, width).
    """
    crossings = np.zeros((height, width + 1), np.int32)
    for ring in rings:
        start, end = np.asarray(ring, float), np.roll(ring, -1, axis=0)
        low, high = (np.ceil(y - 0.5) for y in np.sort([start[:, 1], end[:, 1]], axis=0))
        low, high = (np.clip(row, 0, height).astype(np.int64) for row in (low, high))
        side = np.repeat(np.arange(len(start)), high - low)
        row = np.arange(len(side)) + np.repeat(low - np.cumsum(high - low) + high - low, high - low)
        (x, y), (dx, dy) = start[side].T, (end - start)[side].T
        column = np.ceil(x + (row + 0.5 - y) * dx / dy - 0.5)
        np.add.at(crossings, (row, np.clip(column, 0, width).astype(np.int64)), 1)
    return np.cumsum(crossings, axis=1)[:, :width] % 2 == 1
