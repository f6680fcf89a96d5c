"""Boxes in NumPy: decoding and non-maximum suppression among neighbors.

Boxes are xyxy, float32, (N, 4). The arithmetic is mmdet's, so that a model finds the same here.
"""

import numpy as np

from nucseg_mmdet.utils import ragged

MAX_LOG_RATIO = np.float32(abs(np.log(16 / 1000)))  # of sizes, mmdet's ``wh_ratio_clip``


def decode(boxes: np.ndarray, deltas: np.ndarray, width: int, height: int) -> np.ndarray:
    """Move and stretch boxes as a network says.

    Args:
        boxes: float32, (N, 4).
        deltas: float32, (N, 4); way of the center in sizes of the box, logarithms of the sizes'
            ratios.
        width: of the image, px; boxes are clipped to it.
        height: likewise.
    """
    size = boxes[:, 2:] - boxes[:, :2]
    center = (boxes[:, :2] + boxes[:, 2:]) * np.float32(0.5) + size * deltas[:, :2]
    half = size * np.exp(np.clip(deltas[:, 2:], -MAX_LOG_RATIO, MAX_LOG_RATIO)) * np.float32(0.5)
    return np.clip(
        np.hstack([center - half, center + half]), 0, np.array([width, height] * 2, np.float32)
    )


def areas(boxes: np.ndarray) -> np.ndarray:
    """Areas: float32, (N,)."""
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def enlarge(boxes: np.ndarray, factor: float) -> np.ndarray:
    """Boxes larger about their centers: float32, (N, 4)."""
    if factor == 1:  # not even rounded
        return boxes
    corner, far = boxes[:, :2], boxes[:, 2:]
    center = (corner + far) * np.float32(0.5)
    half = (far - corner) * np.float32(factor) * np.float32(0.5)
    return np.hstack([center - half, center + half])


def suppress(boxes: np.ndarray, scores: np.ndarray, iou_thr: float) -> np.ndarray:
    """Greedy non-maximum suppression: of boxes that overlap, the one with the highest score.

    Only boxes whose centers are near enough for such an overlap are compared, so that the time
    grows with their number and not with its square.

    Args:
        boxes: float32, (N, 4).
        scores: float, (N,).
        iou_thr: a box with a higher IoU than this with a better one that is kept is dropped;
            above 0.

    Returns:
        int64, (M,); the boxes that are kept, by descending score.
    """
    order = np.argsort(-scores, kind='stable')
    boxes = boxes[order]
    better, worse = _overlaps(boxes, iou_thr)
    kept, undecided = np.zeros(len(boxes), bool), np.ones(len(boxes), bool)
    while undecided.any():
        best = undecided.copy()  # of those near them, nothing better is undecided
        best[worse] = False
        kept |= best
        undecided &= ~best
        undecided[worse[best[better]]] = False
        left = undecided[better] & undecided[worse]
        better, worse = better[left], worse[left]
    return order[kept]


def _overlaps(boxes: np.ndarray, iou_thr: float) -> tuple[np.ndarray, np.ndarray]:
    """All pairs with a higher IoU: two int64, (P,), indices of which the first is the smaller.

    Widths of such boxes differ by less than the factor t = ``iou_thr``, so that boxes are compared
    with those of their own octave of width and of a few above it. Two intervals of lengths a and b
    share (a + b) / 2 - d at most, if d is between their centers, and more than (a + b) t / (1 + t)
    with an IoU above t. So d is below (1 - t) / (1 + t) of the longer one.
    """
    center = (boxes[:, :2] + boxes[:, 2:]) / 2
    sides = np.maximum(boxes[:, 2:] - boxes[:, :2], np.float32(1e-3))
    octave = np.floor(np.log2(sides[:, 0])).astype(np.int64)
    members = {value: np.flatnonzero(octave == value) for value in np.unique(octave).tolist()}
    firsts: list[np.ndarray] = [np.zeros(0, np.int64)]
    seconds: list[np.ndarray] = [np.zeros(0, np.int64)]
    for value, narrow in members.items():
        for step in range(1 + int(np.ceil(np.log2(1 / iou_thr)))):
            wide = members.get(value + step)
            if wide is None:
                continue
            reach = np.maximum(sides[narrow].max(0), sides[wide].max(0))
            reach *= 1.001 * (1 - iou_thr) / (1 + iou_thr)
            reach = np.maximum(reach, 1e-3)  # of an IoU of 1 it would be 0
            one, other = _near(center[narrow], center[wide], reach)
            one, other = narrow[one], wide[other]
            if step == 0:  # each pair has come twice, and each box with itself
                one, other = one[one < other], other[one < other]
            firsts.append(np.minimum(one, other))
            seconds.append(np.maximum(one, other))
    first, second = np.concatenate(firsts), np.concatenate(seconds)

    low = np.maximum(boxes[first, :2], boxes[second, :2])
    high = np.minimum(boxes[first, 2:], boxes[second, 2:])
    shared = np.prod(np.maximum(high - low, 0), axis=1)
    area = areas(boxes)
    overlap = shared > np.float32(iou_thr) * (area[first] + area[second] - shared)
    return first[overlap], second[overlap]


def _near(
    points: np.ndarray, others: np.ndarray, reach: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Pairs of points within ``reach`` along each axis: indices of points and others, (P,)."""
    origin = np.minimum(points.min(0), others.min(0))
    cell, other_cell = (((some - origin) / reach).astype(np.int64) + 1 for some in (points, others))
    line = max(cell[:, 0].max(), other_cell[:, 0].max()) + 2
    key, other_key = (some[:, 1] * line + some[:, 0] for some in (cell, other_cell))
    order = np.argsort(other_key, kind='stable')
    other_key = other_key[order]
    found = []
    for row in (-line, 0, line):  # of cells: a point's own, and those beside it
        start = np.searchsorted(other_key, key + row - 1)
        count = np.searchsorted(other_key, key + row + 1, 'right') - start
        found.append((ragged.owners(count), order[ragged.spans(start, count)]))
    one, other = (np.concatenate(part) for part in zip(*found, strict=True))
    near = (np.abs(points[one] - others[other]) <= reach).all(1)
    return one[near], other[near]
