"""Masks that lie on another of the same class."""

from collections.abc import Sequence

import numpy as np

from nucseg_mmdet.structures import rle
from nucseg_mmdet.structures.rle import coco_mask

ROWS = 256  # masks compared with all others together; bounds the memory


def find_doubles(rles: Sequence[dict], labels: np.ndarray, iom_thr: float) -> np.ndarray:
    """Find masks that lie on another of their class, by greedy non-maximum suppression.

    IoM is the intersection over the smaller of two masks: 1 if one lies in the other.

    Args:
        rles: N masks by descending score.
        labels: int, (N,).
        iom_thr: a double has a higher IoM with a mask before it that is none, 0 to 1.

    Returns:
        bool, (N,).
    """
    rles = [dict(mask) for mask in rles]  # pycocotools refuses what is derived from dict
    area = np.maximum(rle.areas(rles), 1)  # an empty mask meets none
    doubles = np.zeros(len(rles), bool)
    for start in range(0, len(rles), ROWS):
        rows = slice(start, start + ROWS)
        end = min(start + ROWS, len(rles))
        # With a crowd pycocotools divides by the area of the first mask alone.
        inside = coco_mask.iou(rles[rows], rles[:end], [True] * end)
        shared = np.rint(inside * area[rows, None])  # px, as the quotients are rounded
        iom = shared / np.minimum(area[rows, None], area[:end])
        meets = (iom > iom_thr) & (labels[rows, None] == labels[:end])
        for index in range(start, end):
            earlier = np.flatnonzero(meets[index - start, :index])
            doubles[index] = not doubles[earlier].all()
    return doubles
