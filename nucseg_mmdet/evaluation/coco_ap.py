"""COCO's average precisions of masks, as the competition and the literature quote them.

Boxes play no part. With them ``COCO.loadRes`` of pycocotools takes the area of the box
for that of the mask and so moves detections between the size bands.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from faster_coco_eval.core.coco import COCO
from faster_coco_eval.core.faster_eval_api import COCOeval_faster

from nucseg_mmdet.evaluation.label_scores import ap_ceiling
from nucseg_mmdet.structures.coco import Detections, TruthImage
from nucseg_mmdet.structures.coco_entries import make_annotation, make_categories, make_image

FEW_DETS = 100  # an image: COCO's own limit, and the competition's
ALL_DETS = 3_000  # an image: above any real count, the densest training image has 1,862 nuclei
# Band limits in px at 40x (0.25 um a px; 11 and 24 um2). The terciles of the 14,598 masks of
# the 24 training images are 177 and 376 px; these limits hold 34 %, 33 % and 33 % of them.
# COCO's own (32^2 and 96^2 px) would call 95 % of them small.
SMALL, LARGE = 180, 380
BANDS = dict(small=[0, SMALL], medium=[SMALL, LARGE], large=[LARGE, 1e10])
IOUS = np.linspace(0.5, 0.95, 10).round(2).tolist()  # at which COCO judges detections
RECALLS = np.linspace(0, 1, 101)  # where COCO reads the precision


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
    precision = _precision(images, detections)
    result = {
        'AP50@100': _mean(precision[IOUS.index(0.5), :, 0, 0]),
        'AP50@100_ceiling': ap_ceiling([len(image.rles) for image in images], FEW_DETS),
        'AP': _mean(precision[:, :, 0, 1]),
        'AP50': _mean(precision[IOUS.index(0.5), :, 0, 1]),
        'AP75': _mean(precision[IOUS.index(0.75), :, 0, 1]),
    }
    for index, band in enumerate(BANDS):
        result[f'AP_{band}'] = _mean(precision[:, :, index + 1, 1])
    return result


def precision_curves(
    images: Sequence[TruthImage], detections: Mapping[int, Detections]
) -> dict[str, np.ndarray]:
    """Compute the curves whose means are ``AP50`` and ``AP75`` of ``coco_scores``.

    Returns:
        By these names, float64, (101,): the highest precision at each recall of ``RECALLS`` or
        beyond, 0 beyond the last one reached; NaN without any true nucleus.
    """
    precision = _precision(images, detections)
    precision[precision < 0] = np.nan
    return {
        name: precision[IOUS.index(iou), :, 0, 1] for name, iou in (('AP50', 0.5), ('AP75', 0.75))
    }


def _precision(images: Sequence[TruthImage], detections: Mapping[int, Detections]) -> np.ndarray:
    """Let COCO compute its precisions.

    Returns:
        float64, (10, 101, 4, 2): by ``IOUS``, ``RECALLS``, areas (all, then ``BANDS``), and number
        of detections (``FEW_DETS``, ``ALL_DETS``); -1 where the truth has no nucleus.
    """
    truth, found = [], []
    for image in images:
        _add(truth, image.id, image.rles, image.areas)
        of_image = detections[image.id]
        _add(found, image.id, of_image.rles, of_image.areas, of_image.scores)
    infos = [make_image(image.id, image.file_name, image.height, image.width) for image in images]
    shared = dict(images=infos, categories=make_categories())
    evaluation = COCOeval_faster(
        COCO(dict(shared, annotations=truth)),
        COCO(dict(shared, annotations=found)),
        'segm',
        ranges=BANDS,
        print_function=_be_silent,
    )
    evaluation.params.maxDets = [FEW_DETS, ALL_DETS]
    evaluation.evaluate()
    evaluation.accumulate()
    return evaluation.eval['precision'][:, :, 0]  # of the one category


def _add(
    annotations: list[dict[str, Any]],
    image_id: int,
    rles: Sequence[dict],
    areas: np.ndarray,
    scores: np.ndarray | None = None,
) -> None:
    """Append the nuclei of an image, numbered from 1: an id of 0 means "no match"."""
    for index, (mask, area) in enumerate(zip(rles, areas.tolist(), strict=True)):
        annotation = make_annotation(len(annotations) + 1, image_id, mask, area)
        if scores is not None:
            annotation['score'] = scores[index].item()
        annotations.append(annotation)


def _mean(precision: np.ndarray) -> float:
    """Average what COCO computed; -1 marks what it could not."""
    computed = precision[precision > -1]
    return float(computed.mean()) if computed.size else float('nan')


def _be_silent(*args: Any) -> None:
    """Take the place of the evaluation's ``print``."""
