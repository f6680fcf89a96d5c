"""Scores of nuclei of several types: PQ of each, mPQ+, mPQ, F_d, F_c.

``count_classes`` reduces one image to a ``ClassCounts``; ``class_scores`` makes of those of a set
what the papers report. All scores go from 0 to 1; a ratio with nothing below the line is NaN,
and means leave it out.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import linear_sum_assignment

from nucseg_mmdet.evaluation.label_scores import find_overlaps

PAIR_PX = 12  # between centroids of one nucleus, px of 0.25 microns, as in HoVer-Net's code


class ClassCounts(NamedTuple):
    """What the scores of an image with K classes are made of; sums over images are those of a set.

    Attributes:
        truth: int64, (K,); true nuclei of each class.
        pred: int64, (K,); predicted ones.
        matched: int64, (K,); pairs of one class at IoU > 0.5.
        iou_sum: float64, (K,); of these pairs.
        pairs: int64, (K, K); nuclei that were found, by true class (rows) and predicted class,
            paired by their centroids whatever the class.
    """

    truth: np.ndarray
    pred: np.ndarray
    matched: np.ndarray
    iou_sum: np.ndarray
    pairs: np.ndarray


def count_classes(truth: Sequence[np.ndarray], pred: Sequence[np.ndarray]) -> ClassCounts:
    """Compare the nuclei of an image class by class.

    Args:
        truth: K label maps, int, (H, W); one for each class, which may overlap.
        pred: likewise.

    Raises:
        ValueError: shapes or numbers differ, or a map is no label map.
    """
    overlaps = [find_overlaps(*maps) for maps in zip(truth, pred, strict=True)]
    iou = [one.shared / one.union for one in overlaps]
    sides = []
    for parts in (
        [one.truth_centroid for one in overlaps],
        [one.pred_centroid for one in overlaps],
    ):
        kinds = np.repeat(np.arange(len(parts)), [len(part) for part in parts])
        sides.append((np.concatenate(parts), kinds))
    (true_points, true_kinds), (pred_points, pred_kinds) = sides
    one, other = pair_points(true_points, pred_points)
    pairs = np.zeros((len(overlaps),) * 2, np.int64)
    np.add.at(pairs, (true_kinds[one], pred_kinds[other]), 1)
    return ClassCounts(
        np.bincount(true_kinds, minlength=len(overlaps)),
        np.bincount(pred_kinds, minlength=len(overlaps)),
        np.array([(values > 0.5).sum() for values in iou]),
        np.array([values[values > 0.5].sum() for values in iou]),
        pairs,
    )


def pair_points(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pair points so that the sum of distances is least, and keep pairs up to ``PAIR_PX``.

    Args:
        first: float, (N, 2), px.
        second: float, (M, 2), px.

    Returns:
        Indices of the pairs' points, int64, (P,) each.

    Source:
        ``pair_coordinates`` of HoVer-Net's ``compute_stats.py``: Kuhn and Munkres' assignment of
        all, then the radius, 12 px at 40x.
    """
    distance = np.linalg.norm(first[:, None] - second[None], axis=2)
    one, other = linear_sum_assignment(distance)
    near = distance[one, other] <= PAIR_PX
    return one[near], other[near]


def class_scores(counts: Sequence[ClassCounts], names: Sequence[str]) -> dict[str, Any]:
    """Score a set of images with nuclei of several types.

    ``mPQ+``: the mean over the classes of PQ, made of true positives, false positives, false
    negatives and IoUs summed over all images. ``mPQ``: the mean over the images of each image's
    mean PQ over the classes that its truth has. ``F_d``: of nuclei paired by centroids, whatever
    their class. ``F_c`` of a class c, which is F_d and the right class in one: with TP pairs of
    class c on both sides, FP and FN pairs where the prediction or the truth alone is, FP_d and FN_d
    nuclei of class c without a partner, 2 TP / (2 TP + 2 FP + 2 FN + FP_d + FN_d).

    Args:
        counts: of each image.
        names: of the classes.

    Returns:
        ``mPQ+``, ``mPQ``, ``F_d``; ``classes``: a dict a class with ``name``, ``nuclei``,
        ``results``, ``PQ``, ``DQ``, ``SQ``, ``precision``, ``recall`` (at IoU > 0.5), ``F_c``;
        ``pairs``: as ``ClassCounts.pairs``, lists.

    Source:
        PQ: Kirillov et al., "Panoptic Segmentation", CVPR 2019.
        mPQ: Gamper et al., "PanNuke Dataset Extension, Insights and Baselines" (2020), which takes
        the mean within each tissue first; a class that an image's truth lacks is left out there.
        mPQ+: Graham et al., "CoNIC Challenge", Medical Image Analysis 92 (2024), which counts a
        class that nobody has seen as 0; here it is left out.
        F_d, F_c: Graham et al., "HoVer-Net", Medical Image Analysis 58 (2019), section 4.2, with
        the weights 2, 2, 1, 1. As in its authors' code TN is 0: pairs of two other classes do not
        count for class c.
    """
    zeros = np.zeros(len(names), np.int64)
    empty = ClassCounts(zeros, zeros, zeros, zeros.astype(float), np.diag(zeros))
    total = ClassCounts(*(np.sum(one, axis=0) for one in zip(empty, *counts, strict=True)))
    nuclei, right = total.truth + total.pred, np.diag(total.pairs)
    false, other = total.pairs.sum(0) - right, total.pairs.sum(1) - right
    alone = nuclei - total.pairs.sum(0) - total.pairs.sum(1)
    columns = dict(
        PQ=_ratio(2 * total.iou_sum, nuclei),
        DQ=_ratio(2 * total.matched, nuclei),
        SQ=_ratio(total.iou_sum, total.matched),
        precision=_ratio(total.matched, total.pred),
        recall=_ratio(total.matched, total.truth),
        F_c=_ratio(2 * right, 2 * right + 2 * false + 2 * other + alone),
    )
    per_image = [_mean_pq(one) for one in counts]
    return {
        'mPQ+': _mean(columns['PQ']),
        'mPQ': _mean(np.array(per_image)),
        'F_d': float(_ratio(2 * total.pairs.sum(), nuclei.sum())),
        'classes': [
            dict(
                name=name,
                nuclei=int(total.truth[index]),
                results=int(total.pred[index]),
                **{key: float(column[index]) for key, column in columns.items()},
            )
            for index, name in enumerate(names)
        ],
        'pairs': total.pairs.tolist(),
    }


def _mean_pq(image: ClassCounts) -> float:
    """The mean PQ of the classes that an image's truth has."""
    return _mean(_ratio(2 * image.iou_sum, image.truth + image.pred)[image.truth > 0])


def flatten(scores: dict[str, Any]) -> dict[str, float]:
    """Single numbers of what ``class_scores`` returns, for a log: ``PQ_<name>``, ``F_c_<name>``."""
    flat = {key: scores[key] for key in ('mPQ+', 'mPQ', 'F_d')}
    for one in scores['classes']:
        flat |= {f'{key}_{one["name"]}': one[key] for key in ('PQ', 'F_c')}
    return flat


def _ratio(above: Any, below: Any) -> np.ndarray:
    return np.divide(
        above, below, out=np.full(np.shape(below), np.nan), where=np.asarray(below) != 0
    )


def _mean(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float('nan')
