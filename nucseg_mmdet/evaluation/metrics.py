"""Evaluators: unpack mmdet's samples, leave the arithmetic to others."""

import contextlib
import pickle
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmdet.registry import METRICS
from mmengine.evaluator import BaseMetric
from mmengine.logging import print_log
from pycocotools import mask as coco_mask

from nucseg_mmdet.evaluation import submission
from nucseg_mmdet.evaluation.summary import SCORE_THR, mean_scores, note_on_hidden
from nucseg_mmdet.structures import rle
from nucseg_mmdet.structures.coco import Detections, TruthImage, read_categories, read_truth
from nucseg_mmdet.structures.coco_entries import CATEGORY_ID, make_results
from nucseg_mmdet.utils.errors import UserError
from nucseg_mmdet.utils.files import make_folder, new_file, write_json

with contextlib.redirect_stdout(None):  # it prints that another product of its makers is missing
    from mmdet.evaluation import DumpDetResults


@dataclass(frozen=True)  # of a tuple mmengine would make a plain one
class Predicted:
    """What a model found in one image.

    Attributes:
        image_id: of the image.
        boxes: float32, (N, 4), xyxy, px.
        scores: float64, (N,).
        rles: N masks, compressed COCO run lengths.
        labels: int64, (N,), of the classes.
    """

    image_id: int
    boxes: np.ndarray
    scores: np.ndarray
    rles: list[dict]
    labels: np.ndarray

    def results(self, category_ids: Sequence[int] | None = None) -> list[dict[str, Any]]:
        """Make COCO results of them; the ids of categories by label are 1, 2, ... by default."""
        ids = [
            category_ids[label] if category_ids else CATEGORY_ID + label
            for label in self.labels.tolist()
        ]
        return make_results(self.image_id, self.boxes, self.scores, self.rles, ids)


def unpack(sample: dict[str, Any]) -> Predicted:
    """Unpack one predicted sample.

    Args:
        sample: ``img_id`` and ``pred_instances`` with ``bboxes`` (N, 4) xyxy px, ``scores``
            (N,), ``labels`` (N,) and ``masks``, N RLE dicts or a bool tensor (N, H, W).
    """
    pred = sample['pred_instances']
    masks = pred['masks']
    if isinstance(masks, torch.Tensor):
        masks = [coco_mask.encode(np.asfortranarray(mask)) for mask in masks.cpu().numpy()]
    return Predicted(
        sample['img_id'],
        pred['bboxes'].cpu().numpy(),
        pred['scores'].cpu().double().numpy(),
        [dict(mask) for mask in masks],
        pred['labels'].cpu().numpy(),
    )


class ResultsMetric(BaseMetric):
    """Base of the evaluators that work on the nuclei of all images.

    Args:
        ann_file: COCO JSON with the images to predict.
    """

    def __init__(self, ann_file: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.ann_file = ann_file

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        # One entry an image: across processes mmengine cuts off repeated images by count.
        self.results += [unpack(sample) for sample in data_samples]


@METRICS.register_module()
class SubmissionMetric(ResultsMetric):
    """Writes ``answer.json`` and ``answer.zip``; computes no score.

    Args:
        ann_file: COCO JSON with the images to predict.
        out: the file to write, e.g. ``work_dirs/<config>/answer.json``.
    """

    default_prefix = 'submission'

    def __init__(self, ann_file: str, out: str, **kwargs: Any) -> None:
        super().__init__(ann_file, **kwargs)
        self.out = out

    def compute_metrics(self, results: list[Predicted]) -> dict[str, float]:
        images = submission.read_images(Path(self.ann_file))
        seen = [of_image.image_id for of_image in results]
        if sorted(seen) != sorted(images):
            raise UserError(f'{self.out}: predicted images {sorted(seen)}, expected {list(images)}')
        flat = [result for of_image in results for result in of_image.results()]
        submission.write(flat, images, Path(self.out))
        return dict(detections=len(flat))


@METRICS.register_module()
class PredictionsMetric(DumpDetResults):
    """mmdet's ``DumpDetResults``, whose file is there whole or not at all.

    Args:
        out_file_path: the file to write, .pkl.
    """

    default_prefix = 'predictions'

    def compute_metrics(self, results: list) -> dict:
        path = Path(self.out_file_path)
        make_folder(path.parent)
        with new_file(path) as file:
            pickle.dump(results, file)
        return {}


@METRICS.register_module()
class NucleiMetric(ResultsMetric):
    """All scores of ``tools/score.py`` in one pass: COCO's, AJI, DQ, SQ, PQ, Dice, F1.

    They are of nuclei of any class; where the truth has several, also mPQ+, mPQ, F_d, and PQ and
    F_c of each.

    Args:
        ann_file: COCO truth.
        score_thr: label maps leave out predictions below this score.
        out: where to keep the COCO results, for ``tools/analysis_tools/report.py``; by default
            nowhere.
    """

    default_prefix = 'nuclei'

    def __init__(
        self, ann_file: str, score_thr: float = SCORE_THR, out: str | None = None, **kwargs: Any
    ) -> None:
        super().__init__(ann_file, **kwargs)
        self.score_thr = score_thr
        self.out = out
        self._truth: list[TruthImage] | None = None  # read once, for every validation
        self._categories: dict[int, str] = {}

    def compute_metrics(self, results: list[Predicted]) -> dict[str, float]:
        if self._truth is None:
            self._truth = read_truth(Path(self.ann_file))
            self._categories = read_categories(Path(self.ann_file))
            if note := note_on_hidden(self._truth):
                print_log(f'{self.ann_file}: {note}', 'current')
        category_ids = list(self._categories)
        if self.out:
            # With the threshold, so that tools/score.py makes the same label maps of them.
            flat = [
                result | dict(score_thr=self.score_thr)
                for of_image in results
                for result in of_image.results(category_ids)
            ]
            write_json(Path(self.out), flat, indent=None)
        names = list(self._categories.values())
        return mean_scores(self._truth, self._detections(results), self.score_thr, names)

    def _detections(self, results: list[Predicted]) -> dict[int, Detections]:
        """The nuclei of each image of the truth; none where an image was not looked at."""
        sizes = {image.id: [image.height, image.width] for image in self._truth or []}
        none = np.zeros(0, np.int64)
        found = {image_id: Detections([], none, np.zeros(0), none) for image_id in sizes}
        for of_image in results:
            size = sizes.get(of_image.image_id)
            if size is None or any(list(mask['size']) != size for mask in of_image.rles):
                raise UserError(
                    f'{self.ann_file}: has no image {of_image.image_id} of the size of its masks, '
                    'expected the truth of these images'
                )
            rles = of_image.rles
            found[of_image.image_id] = Detections(
                rles, rle.areas(rles), of_image.scores, of_image.labels
            )
        return found
