"""Masks that a network found in a tile become nuclei: disjoint, whole, traced and measured."""

from collections.abc import Sequence

import cv2
import numpy as np

from nucseg_mmdet.imaging.measure import measure
from nucseg_mmdet.structures import rle
from nucseg_mmdet.structures.nuclei import EMPTY, Nuclei
from nucseg_mmdet.structures.polygons import mask_to_outlines
from nucseg_mmdet.utils import ragged

LEFT = 0.5  # of a mask's pixels, that more certain ones must leave it


def to_nuclei(
    rles: Sequence[dict],
    scores: np.ndarray,
    image: np.ndarray,
    mpp: float,
    labels: np.ndarray | None = None,
) -> Nuclei:
    """Turn the masks of a tile into nuclei.

    The network lets masks overlap, and without ``mask_nms`` lie on each other. Here, as in the
    label maps that the scores are made of, a contested pixel belongs to the most certain mask:
    areas add up, no stain is measured twice, and polygons, tables and label image show the same
    nuclei. A mask that more certain ones leave less than half of its pixels is their duplicate
    and is dropped, and takes none from others; a label map would keep a sliver of it. A nucleus is
    one ring, so a hole in it is filled, and a nucleus within the hole is dropped, however certain.

    Args:
        rles: N masks of the tile's size, COCO run lengths.
        scores: float, (N,), 0 to 1.
        image: uint8, (H, W, 3), RGB; the tile.
        mpp: microns per pixel of the tile.
        labels: int, (N,), below 256, of the classes; by default all of one.
    """
    painted, kept = paint_without_duplicates(rles, np.asarray(scores), image.shape[:2])
    if not kept.size:
        return EMPTY
    boxes = rle.boxes([rles[index] for index in kept])
    strip, starts = _lay_out(painted, kept + 1, boxes)
    _keep_whole_parts(strip, starts)

    height = boxes[:, 3]
    masks = [
        strip[1 : 1 + rows, start : start + columns].astype(bool)
        for start, columns, rows in zip(starts, boxes[:, 2], height, strict=True)
    ]
    centroids, measurements = measure(masks, boxes[:, :2], image, mpp)
    points, sizes = _trace(strip, starts)
    points += np.repeat(boxes[:, :2] - np.stack([starts, np.ones_like(starts)], 1), sizes, axis=0)
    nuclei = Nuclei(
        points.astype(np.int32),
        sizes.astype(np.int32),
        np.asarray(scores, np.float32)[kept],
        centroids,
        measurements,
        np.zeros(len(kept), np.uint8) if labels is None else labels[kept].astype(np.uint8),
    )
    return nuclei.take(_outermost(masks, boxes, painted.shape))


def paint_without_duplicates(
    rles: Sequence[dict], scores: np.ndarray, shape: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """Paint the most certain masks last, without the duplicates.

    A duplicate may be none once another one that lies on it is left out. So those alone go at a
    time on which no more certain one lies; all others win pixels by that, and none loses any.

    Args:
        rles: N masks, COCO run lengths.
        scores: float, (N,).
        shape: height and width of all masks, px.

    Returns:
        painted: int32, (H, W), 0 is background, ``i + 1`` mask ``i``.
        kept: int64, (M,), ascending; the masks in it.
    """
    areas, order = rle.areas(rles), rle.painting_order(scores)
    while True:
        painted = rle.label_map(rles, *shape, order=order)
        left = np.bincount(painted.ravel(), minlength=len(rles) + 1)[1:]
        duplicates = order[(left < LEFT * areas)[order] | (left == 0)[order]][::-1]
        if not duplicates.size:
            return painted, np.sort(order)
        boxes = rle.boxes([rles[index] for index in duplicates])
        first = ~np.tril(_meet(boxes), -1).any(axis=1)
        order = order[~np.isin(order, duplicates[first])]


def _meet(boxes: np.ndarray) -> np.ndarray:
    """Which boxes, (N, 4), xywh, share pixels: bool, (N, N)."""
    low, high = boxes[:, :2], boxes[:, :2] + boxes[:, 2:]
    return (np.maximum(low, low[:, None]) < np.minimum(high, high[:, None])).all(axis=2)


def _lay_out(
    labels: np.ndarray, values: np.ndarray, boxes: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Put nuclei of a label map side by side, one empty pixel around each.

    Args:
        labels: int, (H, W).
        values: int, (N,), of the nuclei in the map.
        boxes: int, (N, 4), xywh, px, around them.

    Returns:
        strip: uint8, (tallest + 2, all widths + N + 1), 0 or 1.
        starts: int64, (N,), ascending; each nucleus' first column in the strip.
    """
    widths = boxes[:, 2] + 1
    starts = ragged.starts(widths) + 1
    strip = np.zeros((boxes[:, 3].max() + 2, widths.sum() + 1), np.uint8)
    for value, start, (x, y, width, height) in zip(
        values.tolist(), starts.tolist(), boxes.tolist(), strict=True
    ):
        window = labels[y : y + height, x : x + width]
        strip[1 : 1 + height, start : start + width] = window == value
    return strip, starts


def _keep_whole_parts(strip: np.ndarray, starts: np.ndarray) -> None:
    """Leave of each nucleus its largest 4-connected part, and fill that part's holes, in place."""
    count, parts, stats, _ = cv2.connectedComponentsWithStats(strip, connectivity=4)
    area, owner = stats[1:, cv2.CC_STAT_AREA], stats[1:, cv2.CC_STAT_LEFT]
    owner = np.searchsorted(starts, owner, 'right')
    order = np.lexsort((np.arange(count - 1), -area, owner))  # of equal ones the first
    _, first = np.unique(owner[order], return_index=True)
    keeps = np.zeros(count, np.uint8)
    keeps[order[first] + 1] = 1
    np.take(keeps, parts, out=strip)
    # Background that does not reach the empty border is a hole.
    _, parts = cv2.connectedComponents(1 - strip, connectivity=4)
    strip[parts != parts[0, 0]] = 1


def _outermost(
    masks: Sequence[np.ndarray], boxes: np.ndarray, shape: tuple[int, int]
) -> np.ndarray:
    """Which masks do not lie in a hole, now filled, of another.

    Apart from that they are disjoint.

    Args:
        masks: N bool arrays, (h, w).
        boxes: int, (N, 4), xywh, px; where they lie.
        shape: height and width of the tile, px.

    Returns:
        bool, (N,).
    """
    labels = np.zeros(shape, np.int32)
    areas = [np.count_nonzero(mask) for mask in masks]
    for index in np.argsort(areas, kind='stable').tolist():  # the larger covers the smaller
        x, y, width, height = boxes[index].tolist()
        labels[y : y + height, x : x + width][masks[index]] = index + 1
    return np.bincount(labels.ravel(), minlength=len(masks) + 1)[1:] > 0


def _trace(strip: np.ndarray, starts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Trace each nucleus of a strip, which has one part without holes.

    Returns:
        points: int64, (P, 2); x, y in the strip, one nucleus after the other.
        sizes: int64, (N,); vertices of each.
    """
    rings = mask_to_outlines(strip)
    order = np.argsort(np.searchsorted(starts, [ring[0] for ring in rings], 'right'))
    rings = [rings[index] for index in order]
    points = np.concatenate([np.array(ring, np.int64) for ring in rings]).reshape(-1, 2)
    return points, np.array([len(ring) // 2 for ring in rings])
