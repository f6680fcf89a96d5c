"""A model in torch, by MMDetection: on a CPU or a GPU."""

import copy
import hashlib
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmcv.transforms import Compose
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from pycocotools import mask as coco_mask

from nucseg_mmdet.engine import config_edits
from nucseg_mmdet.engine.checkpoint import load_fit, load_weights_only
from nucseg_mmdet.engine.config_parts import score_threshold
from nucseg_mmdet.engine.model_zoo import model_files
from nucseg_mmdet.engine.types_of_nuclei import fit_types
from nucseg_mmdet.inference.predictor import (
    LIMITS_SIDE,
    MIN_OBJECTNESS,
    ModelOptions,
    Prediction,
    tile_step,
)
from nucseg_mmdet.models import one_type_bbox_head, rpn_head  # noqa: F401, register
from nucseg_mmdet.models.half_precision import prepare_for_inference
from nucseg_mmdet.structures.rle_masks import RLEMasks
from nucseg_mmdet.utils.errors import UserError

FIELD = 1_000  # px; side of the fields that a config resizes to a fixed size


class MMDetPredictor:
    """See ``Predictor``; by default on a GPU if there is one, in bf16, else in fp32.

    Raises:
        UserError: a file is missing or does not fit, or a value is not possible.
    """

    def __init__(self, options: ModelOptions) -> None:
        config, checkpoint = model_files(options.config, options.checkpoint)
        self._device = find_device(options.device)
        if options.threads:
            torch.set_num_threads(options.threads)
        self.device = str(self._device)
        self.precision = options.precision or ('fp32' if self._device.type == 'cpu' else 'bf16')
        cfg = config_edits.load_config(config, {}, None)
        weights = load_weights_only(str(checkpoint), 'cpu')
        self.classes = fit_types(cfg, weights, str(checkpoint))
        init_default_scope(cfg.get('default_scope', 'mmdet'))
        pipeline = prepare_config(cfg, options.score_thr, options.tile)
        self._score_thr = cfg.model.test_cfg.rcnn.score_thr
        self._pipeline = Compose(pipeline)
        normalize = next((t for t in self._pipeline.transforms if hasattr(t, 'measure')), None)
        self.measure_colors = normalize and normalize.measure
        self.step = tile_step(resize_factor(pipeline))
        self.identity = dict(
            model=_digest(str(cfg.model.to_dict()).encode()),
            pipeline=_digest(str(pipeline).encode()),
            checkpoint=_digest(checkpoint.read_bytes()),
            classes=[one.name for one in self.classes],
            score_thr=self._score_thr,
            precision=self.precision,
        )
        model = build_model(cfg, weights, checkpoint)
        self._model = prepare_for_inference(model.to(self._device), self.precision)

    def prepare(self, tile: np.ndarray, colors: Any = None) -> dict:
        results = dict(img=np.ascontiguousarray(tile[..., ::-1]), img_id=0)
        if colors is not None:
            results['measured'] = colors
        return self._pipeline(results)

    def predict(self, prepared: Sequence[dict]) -> list[Prediction]:
        data = {name: [item[name] for item in prepared] for name in ('inputs', 'data_samples')}
        try:
            with torch.no_grad():
                samples = self._model.test_step(data)
        except torch.OutOfMemoryError:
            raise UserError(
                f'{self.device}: out of memory with {len(prepared)} tiles together, expected a '
                'smaller batch or tile'
            ) from None
        found = [sample.pred_instances for sample in samples]
        # Mask NMS lowers scores below the threshold.
        found = [nuclei[nuclei.scores >= self._score_thr] for nuclei in found]
        return [
            Prediction(
                nuclei.bboxes.cpu().numpy(),
                nuclei.scores.cpu().numpy(),
                _to_rles(nuclei.masks),
                nuclei.labels.cpu().numpy(),
            )
            for nuclei in found
        ]


def find_device(name: str | None) -> torch.device:
    """The device of a name; without one a GPU where there is one.

    Raises:
        UserError: there is no such device.
    """
    try:
        device = torch.device(name or ('cuda' if torch.cuda.is_available() else 'cpu'))
    except RuntimeError:
        raise UserError(f'device is {name!r}, expected cpu, cuda or cuda:N') from None
    if device.type == 'cuda' and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(f'device is {name}, but torch finds {torch.cuda.device_count()} GPUs')
    return device


def prepare_config(cfg: Config, score_thr: float | None, tile: int) -> list[dict]:
    """Set a config for tiles of slides, in place.

    Args:
        cfg: of a Mask R-CNN.
        score_thr: less certain nuclei are left out; by default those that the config's
            ``test_evaluator`` leaves out.
        tile: largest side of a tile, px.

    Returns:
        The steps from a tile to the network's input.
    """
    cfg.model.backbone.init_cfg = None
    cfg.model.test_cfg.rcnn.pop('truth_offset', None)  # nuclei where the image has them
    # In the network, so that what is less certain gets no mask.
    cfg.model.test_cfg.rcnn.score_thr = score_threshold(cfg) if score_thr is None else score_thr
    if cfg.model.rpn_head.type == 'RPNHead':
        cfg.model.rpn_head.type = 'ObjectnessRPNHead'
    cfg.model.test_cfg.rpn.setdefault('min_score', MIN_OBJECTNESS)
    raise_limits(cfg, tile)
    return tile_pipeline(cfg)


def tile_pipeline(cfg: Config) -> list[dict]:
    """The model's own test pipeline, for tiles in memory.

    A step that brings an image to a fixed size would enlarge a small tile more than a large
    one. It becomes the factor that it is for a field of 1,000 px.
    """
    steps = copy.deepcopy(cfg.test_dataloader.dataset.pipeline)
    for step in steps:
        if step['type'] == 'LoadImageFromFile':
            step['type'] = 'mmdet.LoadImageFromNDArray'
        elif step['type'] == 'Resize' and step.get('scale'):
            short, long = sorted(step.pop('scale'))
            step['scale_factor'] = min(short, long) / FIELD
    return [step.to_dict() for step in steps]


def resize_factor(pipeline: Sequence[dict]) -> float:
    """How much a pipeline of ``tile_pipeline`` enlarges tiles."""
    return math.prod(step['scale_factor'] for step in pipeline if step['type'] == 'Resize')


def raise_limits(cfg: Config, tile: int) -> None:
    """Give a tile of more than 512 px as many proposals and nuclei for its area, in place.

    A config's limits are for an image, whatever its size: where they bind, large tiles miss
    nuclei that small ones find.
    """
    more = max(1.0, (tile / LIMITS_SIDE) ** 2)
    for stage in cfg.model.test_cfg.values():
        for key in ('nms_pre', 'max_per_img'):
            if key in stage:
                stage[key] = round(stage[key] * more)


def build_model(cfg: Config, checkpoint: dict, path: Path) -> torch.nn.Module:
    """Build a model with the weights of a checkpoint, as loaded from a file.

    Raises:
        UserError: they are not those of this model.
    """
    model = MODELS.build(cfg.model)
    load_fit(model, checkpoint, path)
    return model


def _to_rles(masks: RLEMasks | torch.Tensor) -> list[dict]:
    """Masks of ``RLEMaskHead`` as they are; mmdet's own heads give bitmaps."""
    if isinstance(masks, RLEMasks):
        return [dict(mask) for mask in masks]
    return [coco_mask.encode(np.asfortranarray(mask, np.uint8)) for mask in masks.cpu().numpy()]


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
