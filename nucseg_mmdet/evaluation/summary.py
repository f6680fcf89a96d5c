"""Scores of COCO results against COCO truth: average precisions and label-map scores.

``coco_scores`` gives the average precisions, ``count_images`` the label-map counts of
``scores``, and ``make_report`` all of it together, over the set and for each image.

Boxes play no part. With them ``COCO.loadRes`` of pycocotools takes the area of the box
for that of the mask and so moves detections between the size bands.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from faster_coco_eval.core.coco import COCO
from faster_coco_eval.core.faster_eval_api import COCOeval_faster

from nucseg_mmdet.evaluation.label_scores import (
    FATES,
    Counts,
    Overlaps,
    ap_ceiling,
    count_overlaps,
    find_fates,
    find_offset,
    find_overlaps,
    scores,
    summarise,
)  # fmt: skip
from nucseg_mmdet.structures import rle
from nucseg_mmdet.structures.coco import CATEGORY_ID, Detections, TruthImage

FEW_DETS = 100  # an image: COCO's own limit, and the competition's
SCORE_THR = 0.5  # from which on a label map shows a nucleus, where nothing else is said
ALL_DETS = 3_000  # an image: above any real count, the densest training image has 1,862 nuclei
# Band limits in px at 40x (0.25 um a px; 11 and 24 um2). The terciles of the 14,598 masks of
# the 24 training images are 177 and 376 px; these limits hold 34 %, 33 % and 33 % of them.
# COCO's own (32^2 and 96^2 px) would call 95 % of them small.
SMALL, LARGE = 180, 380
BANDS = dict(small=[0, SMALL], medium=[SMALL, LARGE], large=[LARGE, 1e10])


def coco_scores(
    images: Sequence[TruthImage], detections: Mapping[int, Detections]
) -> dict[str, float]:
    """Compute COCO's average precisions of masks.

    Returns:
        ``AP50@100``: at IoU 0.5 with the best 100 detections of each image, as in the
        competition; ``AP50@100_ceiling``: what a perfect submission would get. With all
        detections, up to 3,000 an image: ``AP`` (mean over IoU 0.5, 0.55, ... 0.95),
        ``AP50``, ``AP75``, and ``AP_small``, ``AP_medium``, ``AP_large`` by area. From 0
        to 1; NaN where the truth has no nucleus (pycocotools says -1).

    Source:
        Lin et al., "Microsoft COCO", ECCV 2014, and ``COCOeval`` of pycocotools.
    """
    infos = [dict(id=image.id, height=image.height, width=image.width) for image in images]
    truth, found = [], []
    for image in images:
        truth += _annotations(image.id, image.rles, image.areas, len(truth))
        of_image = detections[image.id]
        new = _annotations(image.id, of_image.rles, of_image.areas, len(found))
        for annotation, score in zip(new, of_image.scores.tolist(), strict=True):
            annotation['score'] = score
        found += new
    shared = dict(images=infos, categories=[dict(id=CATEGORY_ID, name='nucleus')])
    apis = (COCO(dict(shared, annotations=part)) for part in (truth, found))
    evaluation = COCOeval_faster(*apis, 'segm', ranges=BANDS, print_function=_be_silent)
    evaluation.params.maxDets = [FEW_DETS, ALL_DETS]
    evaluation.evaluate()
    evaluation.accumulate()

    # Axes: 10 IoUs, 101 recalls, 1 category, areas (all, then BANDS), maxDets.
    precision = evaluation.eval['precision']
    iou50, iou75 = (evaluation.params.iouThrs.round(2).tolist().index(iou) for iou in (0.5, 0.75))
    result = {
        'AP50@100': _mean(precision[iou50, :, :, 0, 0]),
        'AP50@100_ceiling': ap_ceiling([len(image.rles) for image in images], FEW_DETS),
        'AP': _mean(precision[:, :, :, 0, 1]),
        'AP50': _mean(precision[iou50, :, :, 0, 1]),
        'AP75': _mean(precision[iou75, :, :, 0, 1]),
    }
    for index, band in enumerate(BANDS):
        result[f'AP_{band}'] = _mean(precision[:, :, :, index + 1, 1])
    return result


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
    ascending = np.argsort(-found.scores, kind='stable')[::-1]
    order = ascending[found.scores[ascending] >= score_thr]
    return rle.label_map(found.rles, image.height, image.width, order)


def overlap_images(
    images: Sequence[TruthImage], detections: Mapping[int, Detections], score_thr: float
) -> list[Overlaps]:
    """Paint truth and detections as label maps and tabulate which nuclei share pixels.

    Detections are painted by ``paint``; one left without pixels does not count.

    Args:
        images: the truth.
        detections: of each image.
        score_thr: detections below this score are left out.
    """
    overlaps = []
    for image in images:
        truth = rle.label_map(image.rles, image.height, image.width)
        overlaps.append(find_overlaps(truth, paint(image, detections[image.id], score_thr)))
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
                np.bincount(fates[(low < areas) & (areas <= high)], minlength=5).tolist(),
                strict=True,
            )
        )
        for name, (low, high) in bands.items()
    }


def make_report(
    images: Sequence[TruthImage], detections: Mapping[int, Detections], score_thr: float
) -> dict[str, Any]:
    """Score a results file in every way.

    Returns:
        ``images``, ``nuclei``, ``results``, ``results_kept`` (numbers), ``score_thr``;
        ``scores``: those of ``coco_scores`` and the means of ``scores.summarise``;
        ``pooled`` and ``images_in_mean``: the other parts of ``scores.summarise``;
        ``per_image``: for each image ``image_id``, ``file_name``, ``nuclei``,
        ``results``, ``results_kept``, ``fates`` (see ``count_fates``), ``offset`` (see
        ``scores.find_offset``) and all scores.
    """
    overlaps = overlap_images(images, detections, score_thr)
    counts = [count_overlaps(pairs) for pairs in overlaps]
    summary = summarise(counts)
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
    return dict(
        images=len(images),
        **totals,
        score_thr=score_thr,
        scores=coco_scores(images, detections) | summary['mean'],
        pooled=summary['pooled'],
        images_in_mean=summary['images'],
        per_image=per_image,
    )


def _annotations(
    image_id: int, rles: Sequence[dict], areas: np.ndarray, before: int
) -> list[dict[str, Any]]:
    """Make COCO annotations, numbered from ``before`` + 1: an id of 0 means "no match"."""
    return [
        dict(
            id=before + 1 + index,
            image_id=image_id,
            category_id=CATEGORY_ID,
            segmentation=mask,
            area=area,
            iscrowd=0,
        )
        for index, (mask, area) in enumerate(zip(rles, areas.tolist(), strict=True))
    ]


def _mean(precision: np.ndarray) -> float:
    """Average what COCO computed; -1 marks what it could not."""
    computed = precision[precision > -1]
    return float(computed.mean()) if computed.size else float('nan')


def _be_silent(*args: Any) -> None:
    """Take the place of the evaluation's ``print``."""
