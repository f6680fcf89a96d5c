"""All scores of COCO results against COCO truth, over the set and for each image.

``mean_scores`` gives those of the set: COCO's average precisions and the means of the scores of
label maps. ``make_report`` adds the pooled ones, and every image's own.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from nucseg_mmdet.evaluation.class_scores import class_scores, count_classes, flatten
from nucseg_mmdet.evaluation.coco_ap import BANDS, coco_scores
from nucseg_mmdet.evaluation.label_scores import (
    FATES,
    Counts,
    Overlaps,
    count_overlaps,
    find_fates,
    find_offset,
    find_overlaps,
    scores,
    summarize,
)
from nucseg_mmdet.structures import rle
from nucseg_mmdet.structures.coco import Detections, TruthImage

SCORE_THR = 0.5  # a label map shows nuclei from this score on, unless something else is said


def paint(image: TruthImage, found: Detections, score_thr: float = -np.inf) -> np.ndarray:
    """Paint the detections of an image as a label map; detection ``i`` gets the value ``i + 1``.

    Where detections overlap, the higher score keeps the pixel; equal scores, the one
    that comes first in the file.

    Args:
        image: the truth, for its size.
        found: the detections.
        score_thr: detections below this score are left out.

    Returns:
        int32, (height, width); 0 is background.
    """
    ascending = rle.painting_order(found.scores)
    order = ascending[found.scores[ascending] >= score_thr]
    return rle.label_map(found.rles, image.height, image.width, order)


def paint_truth(image: TruthImage, label: int | None = None) -> np.ndarray:
    """Paint the true nuclei of an image as a label map; nucleus ``i`` gets the value ``i + 1``.

    The largest first, so that one that lies in another is seen, whatever the order in the file.

    Args:
        image: the truth.
        label: of the class whose nuclei alone are painted; all by default.

    Returns:
        int32, (height, width); 0 is background.
    """
    chosen = range(len(image.rles)) if label is None else np.flatnonzero(image.labels == label)
    order = sorted(chosen, key=lambda index: (-image.areas[index], image.rles[index]['counts']))
    return rle.label_map(image.rles, image.height, image.width, order)


def note_on_hidden(images: Sequence[TruthImage]) -> str | None:
    """A line about true nuclei that are empty, or lie under others, if there are any."""
    seen = sum(np.unique(labels[labels != 0]).size for labels in map(paint_truth, images))
    nuclei = sum(len(image.rles) for image in images)
    if seen == nuclei:
        return None
    return (
        f'{nuclei - seen:,} of {nuclei:,} true nuclei have no pixel of their own, left out of the '
        'label-map scores'
    )


def tell_apart(names: Sequence[str], file_names: Sequence[str]) -> list[str]:
    """The short names of files, but the whole path of those that share theirs."""
    shared = Counter(names)
    pairs = zip(names, file_names, strict=True)
    return [name if shared[name] == 1 else file_name for name, file_name in pairs]


def overlap_images(
    images: Sequence[TruthImage], detections: Mapping[int, Detections], score_thr: float
) -> list[Overlaps]:
    """Paint truth and detections as label maps and tabulate which nuclei share pixels.

    By ``paint`` and ``paint_truth``; a nucleus left without pixels does not count.

    Args:
        images: the truth.
        detections: of each image.
        score_thr: detections below this score are left out.
    """
    overlaps = []
    for image in images:
        pred = paint(image, detections[image.id], score_thr)
        overlaps.append(find_overlaps(paint_truth(image), pred))
    return overlaps


def count_images(
    images: Sequence[TruthImage], detections: Mapping[int, Detections], score_thr: float
) -> list[Counts]:
    """Count the matches of truth and detections, see ``overlap_images`` for the arguments."""
    return [count_overlaps(pairs) for pairs in overlap_images(images, detections, score_thr)]


def count_fates(overlaps: Overlaps) -> dict[str, dict[str, int]]:
    """Count the fates of the true nuclei of an image, in all and by size.

    Returns:
        For ``all`` and each of ``BANDS``, how many nuclei have each of ``FATES``.
    """
    fates, areas = find_fates(overlaps), overlaps.truth_area
    bands = dict(all=[0, np.inf], **BANDS)
    return {
        # Bands of COCO include both limits; a nucleus on one counts in the smaller band.
        name: dict(
            zip(
                FATES,
                np.bincount(fates[(low < areas) & (areas <= high)], minlength=len(FATES)).tolist(),
                strict=True,
            )
        )
        for name, (low, high) in bands.items()
    }


def score_classes(
    images: Sequence[TruthImage],
    detections: Mapping[int, Detections],
    score_thr: float,
    names: Sequence[str],
) -> dict[str, Any]:
    """Score nuclei of several classes, see ``class_scores``.

    The predictions are painted together, as for all other scores: a pixel has one class. A true
    nucleus keeps its pixels, as PanNuke's types have a map each.

    Args:
        images: the truth.
        detections: of each image.
        score_thr: detections below this score are left out.
        names: of the classes.
    """
    counts = []
    for image in images:
        found = detections[image.id]
        painted = paint(image, found, score_thr)
        label_of = np.append(-1, found.labels)[painted]
        truth, pred = [], []
        for label in range(len(names)):
            truth.append(paint_truth(image, label))
            pred.append(np.where(label_of == label, painted, 0))
        counts.append(count_classes(truth, pred))
    return class_scores(counts, names)


def mean_scores(
    images: Sequence[TruthImage],
    detections: Mapping[int, Detections],
    score_thr: float,
    names: Sequence[str] = (),
) -> dict[str, float]:
    """Score a whole set: those of ``coco_scores`` and the means of ``summarize``.

    Of nuclei of any class; with several ``names`` of classes also those of ``class_scores``.
    """
    by_class = {}
    if len(names) > 1:
        by_class = flatten(score_classes(images, detections, score_thr, names))
    counts = count_images(images, detections, score_thr)
    return coco_scores(images, detections) | summarize(counts)['mean'] | by_class


def make_report(
    images: Sequence[TruthImage],
    detections: Mapping[int, Detections],
    score_thr: float,
    names: Sequence[str] = (),
) -> dict[str, Any]:
    """Score a results file in every way.

    Returns:
        ``images``, ``nuclei``, ``results``, ``results_kept`` (numbers), ``score_thr``;
        ``scores``: as ``mean_scores``;
        ``pooled`` and ``images_in_mean``: the other parts of ``label_scores.summarize``;
        ``per_image``: for each image ``image_id``, ``file_name``, ``nuclei``,
        ``results``, ``results_kept``, ``fates`` (see ``count_fates``), ``offset`` (see
        ``label_scores.find_offset``) and all scores;
        ``types``: with several ``names`` of classes, as ``class_scores``; all others are of nuclei
        of any class.
    """
    overlaps = overlap_images(images, detections, score_thr)
    counts = [count_overlaps(pairs) for pairs in overlaps]
    summary = summarize(counts)
    per_image = []
    for image, pairs, count in zip(images, overlaps, counts, strict=True):
        values = detections[image.id].scores
        per_image.append(
            dict(
                image_id=image.id,
                file_name=image.file_name,
                nuclei=len(image.rles),
                results=values.size,
                results_kept=int((values >= score_thr).sum()),
                fates=count_fates(pairs),
                offset=list(find_offset(pairs)),
                **coco_scores([image], detections),
                **scores(count),
            )
        )
    totals = {
        key: sum(row[key] for row in per_image) for key in ('nuclei', 'results', 'results_kept')
    }
    types = dict(types=score_classes(images, detections, score_thr, names)) if names[1:] else {}
    return dict(
        images=len(images),
        **totals,
        score_thr=score_thr,
        scores=coco_scores(images, detections) | summary['mean'],
        pooled=summary['pooled'],
        images_in_mean=summary['images'],
        per_image=per_image,
        **types,
    )
