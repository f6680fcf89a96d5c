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

    Two intervals of lengths a and b share (a + b) / 2 - d at most, if d is between their centers,
    and with an IoU above t more than (a + b) t / (1 + t). So d is below a (1 - t) / (2 t), as b
    is at most a / t.
    """
    if not len(boxes):
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    center = (boxes[:, :2] + boxes[:, 2:]) / 2
    reach = (boxes[:, 2:] - boxes[:, :2]).max() * (1 - iou_thr) / (2 * iou_thr) * 1.001
    # Centers are sorted by the cells of a grid; near ones are in the same cell or beside it.
    cell = np.floor((center - center.min(0)) / max(reach, 1e-3)).astype(np.int64) + 1
    line = cell[:, 0].max() + 2
    key = cell[:, 1] * line + cell[:, 0]
    order = np.argsort(key, kind='stable')
    key = key[order]
    firsts, seconds = [], []
    for below in (0, line):
        start = np.searchsorted(key, key + below - 1)
        count = np.searchsorted(key, key + below + 1, 'right') - start
        firsts.append(np.repeat(order, count))
        seconds.append(order[ragged.spans(start, count)])
    first, second = np.concatenate(firsts), np.concatenate(seconds)
    # Pairs of one line of cells were found from both sides.
    first, second = np.minimum(first, second), np.maximum(first, second)
    near = (first < second) & (np.abs(center[first] - center[second]) < reach).all(1)
    pairs = np.unique(first[near] * len(boxes) + second[near])
    first, second = np.divmod(pairs, len(boxes))

    low = np.maximum(boxes[first, :2], boxes[second, :2])
    high = np.minimum(boxes[first, 2:], boxes[second, 2:])
    shared = np.prod(np.maximum(high - low, 0), axis=1)
    area = areas(boxes)
    overlap = shared > np.float32(iou_thr) * (area[first] + area[second] - shared)
    return first[overlap], second[overlap]
