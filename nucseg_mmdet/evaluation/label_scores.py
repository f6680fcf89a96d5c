"""Scores of nuclei in label maps: AJI, AJI+, DQ, SQ, PQ, Dice, F1, precision, recall.

``count_image`` reduces one image to a ``Counts``, a small tuple of sums; ``scores``
turns such a tuple into numbers between 0 and 1; ``summarize`` does so for a set::

    counts = [count_image(truth, pred) for truth, pred in pairs]
    summarize(counts)['mean']['AJI']  # mean over the images, the headline
    summarize(counts)['pooled']['AJI']  # over all nuclei, as if the set were one image

``find_fates`` says of each true nucleus what became of it: found, or how it was lost;
``find_offset`` how far the found ones lie beside it.

Every score is a ratio, and a ratio with nothing below the line is NaN, "undefined":

=================  ==========================================================
image              undefined scores (the others are 0, or as usual)
=================  ==========================================================
no truth, no pred  all
no truth           SQ, recall
no pred            SQ, precision
no pair above 0.5  SQ
=================  ==========================================================

The mean leaves undefined values out; ``summarize`` says how many images went in.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.sparse import coo_array, hstack
from scipy.sparse.csgraph import min_weight_full_bipartite_matching

TOUCHED = 0.1  # from this IoU on a nucleus that is not found was seen, but badly cut
FATES = ('found', 'merged', 'split', 'cut', 'missed')


class Overlaps(NamedTuple):
    """The pairs of true and predicted nuclei that share pixels, and all areas.

    Attributes:
        truth: int64, (P,); index of the pair's true nucleus.
        pred: int64, (P,); index of the pair's predicted nucleus.
        shared: int64, (P,), px, >= 1; pixels that the two share.
        union: int64, (P,), px; pixels that either of the two covers.
        truth_area: int64, (T,), px, >= 1.
        pred_area: int64, (Q,), px, >= 1.
        truth_centroid: float64, (T, 2), x, y, px.
        pred_centroid: float64, (Q, 2), x, y, px.
    """

    truth: np.ndarray
    pred: np.ndarray
    shared: np.ndarray
    union: np.ndarray
    truth_area: np.ndarray
    pred_area: np.ndarray
    truth_centroid: np.ndarray
    pred_centroid: np.ndarray


class Counts(NamedTuple):
    """All that the scores of an image need; the sum over images gives pooled scores.

    Attributes:
        truth: true nuclei.
        pred: predicted nuclei.
        matched: pairs at IoU > 0.5.
        matched_75: pairs at IoU > 0.75.
        iou_sum: sum of the IoU of the pairs at IoU > 0.5.
        aji_shared: pixels above the line of AJI.
        aji_union: pixels below it.
        aji_plus_shared: pixels above the line of AJI+.
        aji_plus_union: pixels below it.
        truth_area: pixels of all true nuclei.
        pred_area: pixels of all predicted nuclei.
        shared_area: pixels of both.
    """

    truth: int
    pred: int
    matched: int
    matched_75: int
    iou_sum: float
    aji_shared: int
    aji_union: int
    aji_plus_shared: int
    aji_plus_union: int
    truth_area: int
    pred_area: int
    shared_area: int


def find_overlaps(truth: np.ndarray, pred: np.ndarray) -> Overlaps:
    """Tabulate which nuclei of two label maps share how many pixels.

    Args:
        truth: int, (H, W), >= 0 and below 2^31; 0 is background.
        pred: likewise, the same shape. Labels need not follow one another.

    Raises:
        ValueError: the shapes differ, or a map is no label map.
    """
    if truth.shape != pred.shape:
        raise ValueError(f'shapes differ: {truth.shape} and {pred.shape}')
    for name, labels in (('truth', truth), ('pred', pred)):
        if labels.ndim != 2 or not np.issubdtype(labels.dtype, np.integer):
            raise ValueError(
                f'{name} is {labels.dtype} with {labels.ndim} axes, expected integers with 2'
            )
        if labels.size and not 0 <= labels.min() <= labels.max() < 2**31:
            raise ValueError(
                f'{name} has labels from {labels.min()} to {labels.max()}, expected 0 to 2147483647'
            )
    truth_ids, truth_area, truth_centroid = _measure(truth)
    pred_ids, pred_area, pred_centroid = _measure(pred)
    both = (truth != 0) & (pred != 0)
    codes, shared = np.unique(
        truth[both].astype(np.int64) << 32 | pred[both].astype(np.int64), return_counts=True
    )
    truth_index = np.searchsorted(truth_ids, codes >> 32)
    pred_index = np.searchsorted(pred_ids, codes & 0xFFFFFFFF)
    union = truth_area[truth_index] + pred_area[pred_index] - shared
    return Overlaps(
        truth_index,
        pred_index,
        shared,
        union,
        truth_area,
        pred_area,
        truth_centroid,
        pred_centroid,
    )


def count_image(truth: np.ndarray, pred: np.ndarray) -> Counts:
    """Reduce one image to the sums that its scores are made of.

    Args:
        truth: int, (H, W), >= 0 and below 2^31; 0 is background.
        pred: likewise, the same shape.

    Raises:
        ValueError: the shapes differ, or a map is no label map.
    """
    return count_overlaps(find_overlaps(truth, pred))


def count_overlaps(overlaps: Overlaps) -> Counts:
    """Reduce one image to the sums that its scores are made of, from its pairs of nuclei."""
    iou = overlaps.shared / overlaps.union
    # Labels cannot overlap, so a nucleus has at most one partner above 0.5.
    matched = iou > 0.5
    return Counts(
        len(overlaps.truth_area),
        len(overlaps.pred_area),
        int(matched.sum()),
        int((iou > 0.75).sum()),
        float(iou[matched].sum()),
        *_aggregate(overlaps, _best_for_each_truth(overlaps)),
        *_aggregate(overlaps, _best_one_to_one(overlaps)),
        int(overlaps.truth_area.sum()),
        int(overlaps.pred_area.sum()),
        int(overlaps.shared.sum()),
    )


def find_fates(overlaps: Overlaps) -> np.ndarray:
    """Say of each true nucleus what became of it, the first of these that holds.

    ``found``: a prediction has IoU > 0.5 with it. ``merged``: a prediction
    covers at least half of it, and at least half of another nucleus too. ``split``:
    two or more predictions lie in it with at least half of their pixels. ``cut``: a
    prediction has IoU of ``TOUCHED`` or more with it, so it was seen but badly outlined.
    ``missed``: all others.

    Returns:
        int64, (T,); indices into ``FATES``.
    """
    truth, pred, shared = overlaps.truth, overlaps.pred, overlaps.shared
    iou = shared / overlaps.union
    best = np.zeros(len(overlaps.truth_area))
    np.maximum.at(best, truth, iou)
    covers = 2 * shared >= overlaps.truth_area[truth]  # the prediction half of the nucleus
    covered = np.bincount(pred[covers], minlength=len(overlaps.pred_area))
    inside = 2 * shared >= overlaps.pred_area[pred]
    pieces = np.bincount(truth[inside], minlength=len(best))
    merged = np.zeros(len(best), bool)
    merged[truth[covers & (covered[pred] > 1)]] = True
    return np.select([best > 0.5, merged, pieces > 1, best >= TOUCHED], range(4), 4)


def find_offset(overlaps: Overlaps) -> tuple[float, float]:
    """Say how far predicted nuclei lie beside their truth, by the mean of the centroids.

    Where all images give about the same, the truth lies beside the nuclei, or the model's masks do.

    Returns:
        x, y, px: positive where predictions lie to the right of, below the truth that they have
        an IoU > 0.5 with. NaN without such a pair.
    """
    matched = overlaps.shared / overlaps.union > 0.5
    pred = overlaps.pred_centroid[overlaps.pred[matched]]
    x, y = (pred - overlaps.truth_centroid[overlaps.truth[matched]]).sum(0)
    return _ratio(x, matched.sum()), _ratio(y, matched.sum())


def scores(counts: Counts) -> dict[str, float]:
    """Turn the counts of an image, or their sum over images, into scores from 0 to 1.

    ``F1``, ``precision`` and ``recall`` are at IoU > 0.5 (so ``F1`` equals ``DQ``), those
    with ``@75`` at IoU > 0.75. ``Dice`` is that of the foreground. Undefined ones are NaN.

    Source:
        AJI: Kumar et al., "A Dataset and a Technique for Generalized Nuclear
        Segmentation for Computational Pathology", IEEE TMI 36 (2017), algorithm 1.
        AJI+: Graham et al., "HoVer-Net", Medical Image Analysis 58 (2019).
        DQ, SQ, PQ: Kirillov et al., "Panoptic Segmentation", CVPR 2019.
    """
    nuclei = counts.truth + counts.pred
    area = counts.truth_area + counts.pred_area
    return {
        'AJI': _ratio(counts.aji_shared, counts.aji_union),
        'AJI+': _ratio(counts.aji_plus_shared, counts.aji_plus_union),
        'DQ': _ratio(2 * counts.matched, nuclei),
        'SQ': _ratio(counts.iou_sum, counts.matched),
        'PQ': _ratio(2 * counts.iou_sum, nuclei),
        'Dice': _ratio(2 * counts.shared_area, area),
        'F1': _ratio(2 * counts.matched, nuclei),
        'precision': _ratio(counts.matched, counts.pred),
        'recall': _ratio(counts.matched, counts.truth),
        'F1@75': _ratio(2 * counts.matched_75, nuclei),
        'precision@75': _ratio(counts.matched_75, counts.pred),
        'recall@75': _ratio(counts.matched_75, counts.truth),
    }


def pool(counts: Sequence[Counts]) -> Counts:
    """Add the counts of several images; of none they are all 0."""
    return Counts(*(sum(column) for column in zip(*counts, strict=True))) if counts else _NOTHING


def summarize(counts: Sequence[Counts]) -> dict[str, dict[str, float]]:
    """Score a set of images.

    Returns:
        Three dictionaries with the keys of ``scores``: ``mean`` over the images where the
        score is defined, ``pooled`` over all nuclei, and ``images``, the number of images
        that went into the mean. A score that no image defines is NaN.
    """
    per_image = [scores(item) for item in counts]
    pooled = scores(pool(counts))
    defined = {key: [item[key] for item in per_image if not np.isnan(item[key])] for key in pooled}
    return {
        'mean': {key: _ratio(sum(values), len(values)) for key, values in defined.items()},
        'pooled': pooled,
        'images': {key: len(values) for key, values in defined.items()},
    }


def ap_ceiling(truth_counts: Sequence[int], max_dets: int = 100) -> float:
    """Find the COCO AP of a perfect submission when few detections an image count.

    Every returned detection is right, so precision is 1 up to the highest recall that can
    be reached and 0 beyond; COCO averages it over 101 recalls. The same at every IoU.

    Args:
        truth_counts: true nuclei of each image.
        max_dets: detections that count in each image.

    Returns:
        0 to 1; NaN without any true nucleus.

    Source:
        ``COCOeval.accumulate`` and ``Params.recThrs`` of pycocotools.
    """
    total = sum(truth_counts)
    if not total:
        return float('nan')
    recall = sum(min(count, max_dets) for count in truth_counts) / total
    return float(np.mean(np.linspace(0, 1, 101) <= recall))


_NOTHING = Counts(*(0 for _ in Counts._fields))


def _ratio(above: float, below: float) -> float:
    return above / below if below else float('nan')


def _measure(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Find the labels of a map, their areas and centroids (x, y), in ascending order."""
    y, x = np.nonzero(labels)
    ids, index, area = np.unique(labels[y, x], return_inverse=True, return_counts=True)
    centroid = np.stack([np.bincount(index, x), np.bincount(index, y)], axis=1) / area[:, None]
    return ids, area, centroid


def _best_for_each_truth(overlaps: Overlaps) -> np.ndarray:
    """Pick for each true nucleus the pair of largest IoU: int, indices of pairs.

    Equal IoUs are told apart by the larger overlap; labels play a part only where both are equal.
    """
    iou = overlaps.shared / overlaps.union
    order = np.lexsort((overlaps.shared, iou, overlaps.truth))
    is_last = np.diff(overlaps.truth[order], append=-1) != 0
    return order[is_last]


def _best_one_to_one(overlaps: Overlaps) -> np.ndarray:
    """Pick pairs that share no nucleus and have the largest total IoU: int, indices of pairs."""
    num = len(overlaps.shared)
    if not num:
        return np.zeros(0, np.int64)
    rows, cols = len(overlaps.truth_area), len(overlaps.pred_area)
    iou = overlaps.shared / overlaps.union
    # Each true nucleus may take a partner of its own that stands for "none", so that an
    # assignment of all of them exists. The matching refuses weights of 0, hence 1 + IoU.
    weights = coo_array((1 + iou, (overlaps.truth, overlaps.pred)), shape=(rows, cols))
    none = coo_array((np.ones(rows), (np.arange(rows), np.arange(rows))), shape=(rows, rows))
    truth, pred = min_weight_full_bipartite_matching(
        hstack([weights, none], format='csr'), maximize=True
    )
    real = pred < cols
    # Pairs are in ascending order of (truth, pred), see find_overlaps.
    codes = overlaps.truth * cols + overlaps.pred
    return np.searchsorted(codes, truth[real] * cols + pred[real])


def _aggregate(overlaps: Overlaps, pairs: np.ndarray) -> tuple[int, int]:
    """Sum pixels over chosen pairs: shared ones; union ones and those of unpaired nuclei."""
    truth_alone = np.ones(len(overlaps.truth_area), bool)
    pred_alone = np.ones(len(overlaps.pred_area), bool)
    truth_alone[overlaps.truth[pairs]] = False
    pred_alone[overlaps.pred[pairs]] = False
    union = (
        overlaps.union[pairs].sum()
        + overlaps.truth_area[truth_alone].sum()
        + overlaps.pred_area[pred_alone].sum()
    )
    return int(overlaps.shared[pairs].sum()), int(union)
