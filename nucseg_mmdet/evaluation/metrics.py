"""Evaluators: unpack mmdet's samples, leave the arithmetic to others."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from mmdet.registry import METRICS
from mmengine.evaluator import BaseMetric
from pycocotools import mask as coco_mask

from nucseg_mmdet.evaluation import submission
from nucseg_mmdet.evaluation.summary import SCORE_THR, make_report
from nucseg_mmdet.structures.coco import parse_results, read_truth
from nucseg_mmdet.utils.errors import UserError


def to_results(sample: dict) -> list[dict]:
    """Unpack one predicted sample into COCO results.

    Args:
        sample: ``img_id`` and ``pred_instances`` with ``bboxes`` (N, 4) xyxy px, ``scores``
            (N,) and ``masks``, N RLE dicts or a bool tensor (N, H, W).

    Returns:
        N dicts: image_id, bbox xywh px, score, category_id 1, segmentation as RLE text.
    """
    pred = sample['pred_instances']
    boxes = pred['bboxes'].cpu().double().numpy().round(2)
    boxes[:, 2:] -= boxes[:, :2]
    masks = pred['masks']
    if isinstance(masks, torch.Tensor):
        masks = [coco_mask.encode(np.asfortranarray(mask)) for mask in masks.cpu().numpy()]
    return [
        dict(
            image_id=sample['img_id'],
            bbox=box,
            score=score,
            category_id=1,
            segmentation=dict(size=list(mask['size']), counts=mask['counts'].decode()),
        )
        for box, score, mask in zip(
            boxes.round(2).tolist(), pred['scores'].cpu().tolist(), masks, strict=True
        )
    ]


class ResultsMetric(BaseMetric):
    """Base of the evaluators that work on the COCO results of all images.

    Args:
        ann_file: COCO JSON with the images to predict.
    """

    def __init__(self, ann_file: str, **kwargs) -> None:
        super().__init__(**kwargs)
        self.ann_file = ann_file

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        # One entry an image: across processes mmengine cuts off repeated images by count.
        self.results += [(sample['img_id'], to_results(sample)) for sample in data_samples]


@METRICS.register_module()
class SubmissionMetric(ResultsMetric):
    """Writes ``answer.json`` and ``answer.zip``; computes no score.

    Args:
        ann_file: COCO JSON with the images to predict.
        out: the file to write, e.g. ``work_dirs/<config>/answer.json``.
    """

    default_prefix = 'submission'

    def __init__(self, ann_file: str, out: str, **kwargs) -> None:
        super().__init__(ann_file, **kwargs)
        self.out = out

    def compute_metrics(self, results: list[tuple[int, list[dict]]]) -> dict[str, float]:
        images = submission.read_images(Path(self.ann_file))
        seen = [image_id for image_id, _ in results]
        if sorted(seen) != sorted(images):
            raise UserError(f'{self.out}: predicted images {sorted(seen)}, expected {list(images)}')
        flat = [result for _, of_image in results for result in of_image]
        submission.write(flat, images, Path(self.out))
        return dict(detections=len(flat))


@METRICS.register_module()
class NucleiMetric(ResultsMetric):
    """All scores of ``tools/score.py`` in one pass: COCO's, AJI, DQ, SQ, PQ, Dice, F1.

    Args:
        ann_file: COCO truth.
        score_thr: label maps leave out predictions below this score.
        out: where to keep the COCO results, for the report; by default nowhere.
    """

    default_prefix = 'nuclei'

    def __init__(
        self, ann_file: str, score_thr: float = SCORE_THR, out: str | None = None, **kwargs
    ) -> None:
        super().__init__(ann_file, **kwargs)
        self.score_thr = score_thr
        self.out = out

    def compute_metrics(self, results: list[tuple[int, list[dict]]]) -> dict[str, float]:
        truth = read_truth(Path(self.ann_file))
        flat = [result for _, of_image in results for result in of_image]
        if self.out:
            partial = Path(f'{self.out}.partial')
            partial.write_text(json.dumps(flat))
            os.replace(partial, self.out)
        detections = parse_results(flat, truth, 'predictions')
        return make_report(truth, detections, self.score_thr)['scores']
