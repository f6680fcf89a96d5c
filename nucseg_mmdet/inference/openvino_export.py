"""A trained Mask R-CNN of MMDetection as a file for OpenVINO, compared with torch first."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from mmdet.models import FPN, FCNMaskHead, MaskRCNN, ResNet, RPNHead, Shared2FCBBoxHead
from mmdet.models.task_modules import DeltaXYWHBBoxCoder
from mmengine.config import Config
from mmengine.registry import init_default_scope

from nucseg_mmdet import __version__
from nucseg_mmdet.engine.checkpoint import load_weights_only
from nucseg_mmdet.engine.config_edits import load_config
from nucseg_mmdet.engine.types_of_nuclei import fit_types
from nucseg_mmdet.evaluation.label_scores import count_image, summarize
from nucseg_mmdet.inference import openvino_model, openvino_networks
from nucseg_mmdet.inference.mmdet_predictor import MMDetPredictor, build_model, prepare_config
from nucseg_mmdet.inference.openvino_int8 import measure_ranges
from nucseg_mmdet.inference.openvino_model import FORMAT, RuntimeModel
from nucseg_mmdet.inference.openvino_predictor import OpenVinoPredictor, Prepared
from nucseg_mmdet.inference.predictor import LIMITS_SIDE, RUNTIME_SUFFIX, ModelOptions, Prediction
from nucseg_mmdet.models.efficientnet_lite import EfficientNetLite
from nucseg_mmdet.models.one_type_bbox_head import OneTypeBBoxHead
from nucseg_mmdet.structures.classes import ONE_CLASS, NucleusClass
from nucseg_mmdet.structures.rle import label_map, painting_order
from nucseg_mmdet.synthetic.fields import synthesize
from nucseg_mmdet.utils.errors import UserError

MAX_BOX, MAX_SCORE = 0.01, 1e-4  # px; how far a rebuilt model may be from torch
MIN_INT8 = 0.99  # PQ of nuclei in int8 against those in fp32 that is worth no more time
EXACT = (1, 6, 12, 18)  # convolutions that may have to stay in fp32 for it, fewest first
PARTS = dict(
    backbone=(ResNet, EfficientNetLite),
    neck=FPN,
    rpn_head=RPNHead,
    bbox_head=Shared2FCBBoxHead,
    mask_head=FCNMaskHead,
)
NORMALIZATIONS = dict(ReinhardNormalize='reinhard', MacenkoNormalize='macenko')


class Differences(NamedTuple):
    """How far the nuclei of a rebuilt model are from those of torch.

    Attributes:
        nuclei: that were compared.
        box: the largest difference of a box in fp32, px.
        score: the largest of a score in fp32.
        int8: PQ of the nuclei in int8 against those in fp32; None without images that have some.
    """

    nuclei: int
    box: float
    score: float
    int8: float | None


def export(
    config: Path, checkpoint: Path, out: Path, images: Sequence[np.ndarray] = ()
) -> Differences:
    """Write a trained model for OpenVINO, if it finds there what it finds in torch.

    Args:
        config: of the model.
        checkpoint: its weights.
        out: the file.
        images: uint8, (H, W, 3), RGB, of tissue: the first one is where both are compared in
            fp32, by default a made-up field; ranges for int8 are measured on all, if any.

    Raises:
        UserError: a file is missing or does not fit, the model cannot be rebuilt, or differs.
    """
    cfg = load_config(config, {}, None)
    init_default_scope(cfg.get('default_scope', 'mmdet'))
    weights = load_weights_only(str(checkpoint), 'cpu')
    classes = fit_types(cfg, weights, str(checkpoint))
    pipeline = prepare_config(cfg, None, LIMITS_SIDE)
    rebuilt = convert(build_model(cfg, weights, checkpoint), cfg, pipeline, checkpoint, classes)
    image = images[0] if images else synthesize(0, 256, 256, 60)[0]
    beside = out.with_name(f'.{out.name}.unchecked{RUNTIME_SUFFIX}')
    try:
        openvino_model.write(beside, rebuilt)
        options = ModelOptions(config, checkpoint, 'cpu', 'fp32')
        in_torch, here = (
            MMDetPredictor(options),
            OpenVinoPredictor(options._replace(checkpoint=beside)),
        )
        one, other = (model.predict([model.prepare(image)])[0] for model in (in_torch, here))
        box, score = compare(one, other)
        int8, prepared = None, [here.prepare(image) for image in images]
        expected = here.predict(prepared)
        if any(len(one.scores) for one in expected):
            rounded = options._replace(checkpoint=beside, precision='int8')
            int8 = _prepare_int8(rebuilt, rounded, prepared, expected)
        beside.replace(out)
    except OSError as error:
        raise UserError(f'{out}: cannot be written ({error.strerror})') from None
    finally:
        beside.unlink(missing_ok=True)
    return Differences(len(one.scores), box, score, int8)


def _prepare_int8(
    model: RuntimeModel,
    options: ModelOptions,
    prepared: Sequence[Prepared],
    expected: Sequence[Prediction],
) -> float:
    """Measure what int8 has to know, and write it into the file of ``options``.

    As many convolutions stay in float32 as it takes to find nearly the same.

    Args:
        model: gets ``ranges`` and ``exact``.
        options: of the model in int8.
        prepared: tiles of tissue.
        expected: what is found there in fp32.

    Returns:
        PQ against ``expected``.
    """
    images = (tile.image for tile in prepared)
    model.meta['ranges'] = measure_ranges(model.networks['features'], images)
    shapes = [(tile.height, tile.width) for tile in prepared]
    for exact in EXACT:
        model.meta['exact'] = exact
        openvino_model.write(options.checkpoint, model)
        int8 = agreement(expected, OpenVinoPredictor(options).predict(prepared), shapes)
        if int8 >= MIN_INT8:
            break
    return int8


def agreement(
    expected: Sequence[Prediction], found: Sequence[Prediction], shapes: Sequence[tuple[int, int]]
) -> float:
    """PQ of predictions against others of the same tiles, over all nuclei.

    Args:
        expected: of each tile.
        found: likewise.
        shapes: height and width of each tile, px.

    Returns:
        0 to 1; NaN if there is no nucleus in either.
    """
    counts = []
    for *pair, shape in zip(expected, found, shapes, strict=True):
        # The likelier ones lie over the others.
        counts.append(
            count_image(
                *(label_map(one.masks, *shape, order=painting_order(one.scores)) for one in pair)
            )
        )
    return summarize(counts)['pooled']['PQ']


def compare(one: Prediction, other: Prediction) -> tuple[float, float]:
    """The largest differences of boxes, px, and of scores, between two predictions of a tile.

    Raises:
        UserError: the numbers of nuclei differ, or a difference is above what rounding makes.
    """
    if len(one.scores) != len(other.scores):
        raise UserError(f'{len(other.scores)} nuclei, expected {len(one.scores)} as in torch')
    if not len(one.scores):
        return 0.0, 0.0
    away = np.abs(one.boxes[:, None] - other.boxes).max(axis=2)
    nearest = away.argmin(axis=1)
    box = float(away.min(axis=1).max())
    score = float(np.abs(one.scores - other.scores[nearest]).max())
    if (one.labels != other.labels[nearest]).any():
        raise UserError('nuclei of other classes than in torch, expected the same')
    if box > MAX_BOX or score > MAX_SCORE or len(set(nearest.tolist())) < len(nearest):
        raise UserError(
            f'boxes differ by up to {box:.2g} px and scores by {score:.2g} from torch, expected '
            f'at most {MAX_BOX} px and {MAX_SCORE}'
        )
    return box, score


def convert(
    model: MaskRCNN,
    cfg: Config,
    pipeline: list[dict],
    weights: Path,
    classes: Sequence[NucleusClass] = ONE_CLASS,
) -> RuntimeModel:
    """Rebuild a model.

    Args:
        model: with its weights loaded, not prepared for inference.
        cfg: that it was built from.
        pipeline: the steps from a tile to the network's input.
        weights: file that they are from, for the record.
        classes: of nuclei.

    Raises:
        UserError: a part of the model or a step of the pipeline is of a kind that cannot be
            rebuilt.
    """
    _check(model)
    model.eval()
    return RuntimeModel(
        openvino_networks.networks(model), describe(model, cfg, pipeline, weights, classes)
    )


def _check(model: MaskRCNN) -> None:
    heads = dict(bbox_head=model.roi_head.bbox_head, mask_head=model.roi_head.mask_head)
    for name, kind in PARTS.items():
        part = heads.get(name) or getattr(model, name)
        if not isinstance(part, kind):
            kinds = ' or '.join(one.__name__ for one in np.atleast_1d(kind))
            raise UserError(f'{name} is {type(part).__name__}, expected {kinds}')
    if (
        getattr(model.backbone, 'deep_stem', False)
        or model.neck.add_extra_convs
        or model.rpn_head.num_convs > 1
    ):
        raise UserError('backbone, neck or rpn_head has layers that a plain Mask R-CNN has not')
    for coder in (model.rpn_head.bbox_coder, heads['bbox_head'].bbox_coder):
        if type(coder) is not DeltaXYWHBBoxCoder or any(coder.means) or coder.add_ctr_clamp:
            raise UserError(f'bbox_coder is {coder}, expected DeltaXYWHBBoxCoder with means of 0')


def describe(
    model: MaskRCNN,
    cfg: Config,
    pipeline: list[dict],
    weights: Path,
    classes: Sequence[NucleusClass],
) -> dict:
    """What the runtime has to know beside the networks."""
    roi_head, rpn = model.roi_head, model.rpn_head
    resize, normalize = _read_pipeline(pipeline)
    generator = rpn.prior_generator
    rcnn = model.test_cfg.rcnn
    scale = getattr(roi_head, 'mask_scale', 1.0)
    return dict(
        format=FORMAT if scale != 1 else 2 if len(classes) > 1 else 1,
        version=__version__,
        weights=hashlib.sha256(weights.read_bytes()).hexdigest(),
        config=Path(cfg.filename).stem,
        field=LIMITS_SIDE,  # by the name that files of models have for it
        classes=[one._asdict() for one in classes],
        score_thr=rcnn.score_thr,
        resize=resize,
        normalize=normalize,
        anchors=[
            dict(stride=stride[0], base=base.tolist())
            for stride, base in zip(generator.strides, generator.base_anchors, strict=True)
        ],
        rpn=dict(
            nms_pre=model.test_cfg.rpn.nms_pre,
            max_per_img=model.test_cfg.rpn.max_per_img,
            iou_threshold=model.test_cfg.rpn.nms.iou_threshold,
            min_score=model.test_cfg.rpn.min_score,
            stds=list(rpn.bbox_coder.stds),
        ),
        roi=dict(
            strides=list(roi_head.bbox_roi_extractor.featmap_strides),
            finest_scale=roi_head.bbox_roi_extractor.finest_scale,
            mask_scale=scale,
            sizes=dict(
                boxes=roi_head.bbox_roi_extractor.roi_layers[0].output_size[0],
                masks=roi_head.mask_roi_extractor.roi_layers[0].output_size[0],
            ),
        ),
        rcnn=dict(
            num_classes=roi_head.bbox_head.num_classes,
            one_type=isinstance(roi_head.bbox_head, OneTypeBBoxHead),
            iou_threshold=rcnn.nms.iou_threshold,
            max_per_img=rcnn.max_per_img,
            stds=list(roi_head.bbox_head.bbox_coder.stds),
            mask_thr_binary=rcnn.mask_thr_binary,
            mask_nms=dict(rcnn.mask_nms) if rcnn.get('mask_nms') else None,
        ),
    )


def _read_pipeline(pipeline: list[dict]) -> tuple[float, str | None]:
    """How much tiles are enlarged, and how their colors are normalized."""
    resize, normalize = 1.0, None
    for step in pipeline:
        name = step['type'].rpartition('.')[2]
        if name == 'Resize' and isinstance(step.get('scale_factor'), int | float):
            resize *= step['scale_factor']
        elif name in NORMALIZATIONS and not step.get('target') and resize == 1:
            normalize = NORMALIZATIONS[name]
        elif name not in ('LoadImageFromNDArray', 'PackDetInputs'):
            raise UserError(f'step {name} of the test pipeline has no twin without torch')
    return resize, normalize
