"""A trained Mask R-CNN of MMDetection, rebuilt for OpenVINO.

The networks are rebuilt layer by layer rather than traced, so that weights stay what they are in
the checkpoint: batch norm is folded when the file is loaded, and weights that were published in
half precision are stored in it without another rounding.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import openvino
import torch
from mmdet.models import FPN, FCNMaskHead, MaskRCNN, ResNet, RPNHead, Shared2FCBBoxHead
from mmdet.models.backbones.resnet import BasicBlock, Bottleneck
from mmdet.models.task_modules import DeltaXYWHBBoxCoder
from mmengine.config import Config
from mmengine.registry import init_default_scope
from openvino import Node, opset15
from torch import Tensor, nn

from nucseg_mmdet import __version__
from nucseg_mmdet.engine.checkpoint import load_weights_only
from nucseg_mmdet.engine.config_edits import load_config
from nucseg_mmdet.engine.types_of_nuclei import fit_types
from nucseg_mmdet.inference import openvino_model
from nucseg_mmdet.inference.mmdet_predictor import MMDetPredictor, build_model, prepare_config
from nucseg_mmdet.inference.openvino_model import FORMAT, RuntimeModel
from nucseg_mmdet.inference.openvino_predictor import OpenVinoPredictor
from nucseg_mmdet.inference.predictor import RUNTIME_SUFFIX, TILE, ModelOptions, Prediction
from nucseg_mmdet.models.efficientnet_lite import EfficientNetLite, SameConv2d
from nucseg_mmdet.models.one_type_bbox_head import OneTypeBBoxHead
from nucseg_mmdet.structures.classes import ONE_CLASS, NucleusClass
from nucseg_mmdet.utils.errors import UserError

MAX_BOX, MAX_SCORE = 0.01, 1e-4  # px; how far a rebuilt model may be from torch
PARTS = dict(
    backbone=(ResNet, EfficientNetLite),
    neck=FPN,
    rpn_head=RPNHead,
    bbox_head=Shared2FCBBoxHead,
    mask_head=FCNMaskHead,
)
NORMALIZATIONS = dict(ReinhardNormalize='reinhard', MacenkoNormalize='macenko')


def export(config: Path, checkpoint: Path, out: Path, image: np.ndarray) -> tuple[float, float]:
    """Write a trained model for OpenVINO, if it finds there what it finds in torch.

    Args:
        config: of the model.
        checkpoint: its weights.
        out: the file.
        image: uint8, (H, W, 3), RGB, on which both are compared in fp32.

    Returns:
        The largest differences of boxes, px, and of scores.

    Raises:
        UserError: a file is missing or does not fit, the model cannot be rebuilt, or differs.
    """
    cfg = load_config(config, {}, None)
    init_default_scope(cfg.get('default_scope', 'mmdet'))
    weights = load_weights_only(str(checkpoint), 'cpu')
    classes = fit_types(cfg, weights, str(checkpoint))
    pipeline = prepare_config(cfg, None, TILE)
    rebuilt = convert(build_model(cfg, weights, checkpoint), cfg, pipeline, checkpoint, classes)
    beside = out.with_name(f'.{out.name}.unchecked{RUNTIME_SUFFIX}')
    try:
        openvino_model.write(beside, rebuilt)
        options = ModelOptions(config, checkpoint, 'cpu', 'fp32')
        in_torch, here = (
            MMDetPredictor(options),
            OpenVinoPredictor(options._replace(checkpoint=beside)),
        )
        one, other = (model.predict([model.prepare(image)])[0] for model in (in_torch, here))
        differences = compare(one, other)
        beside.replace(out)
    except OSError as error:
        raise UserError(f'{out}: cannot be written ({error.strerror})') from None
    finally:
        beside.unlink(missing_ok=True)
    return differences


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
    networks = dict(features=_features(model), boxes=_boxes(model), masks=_masks(model))
    return RuntimeModel(networks, describe(model, cfg, pipeline, weights, classes))


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
    generator = rpn.anchor_generator
    rcnn = model.test_cfg.rcnn
    return dict(
        format=1 if len(classes) == 1 else FORMAT,
        version=__version__,
        weights=hashlib.sha256(weights.read_bytes()).hexdigest(),
        config=Path(cfg.filename).stem,
        field=TILE,
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


def _constant(values: Tensor | np.ndarray) -> Node:
    """A constant of the graph, float32; half the bytes in the file if nothing is lost."""
    values = np.ascontiguousarray(torch.as_tensor(values).detach().cpu().numpy(), np.float32)
    half = values.astype(np.float16)
    if values.size > 1 and (half.astype(np.float32) == values).all():
        return opset15.convert(opset15.constant(half), 'f32')
    return opset15.constant(values)


def _per_channel(values: Tensor) -> Node:
    return _constant(values.reshape(1, -1, 1, 1))


def _conv(x: Node, conv: nn.Conv2d) -> Node:
    if conv.padding_mode != 'zeros':
        raise UserError(f'padding of {conv} is not of zeros')
    before = after = list(conv.padding)
    if isinstance(conv, SameConv2d) and conv.edges:
        left, right, top, bottom = conv.edges
        before, after = [top, left], [bottom, right]
    where = (list(conv.stride), before, after, list(conv.dilation))
    if conv.groups == 1:
        x = opset15.convolution(x, _constant(conv.weight), *where)
    else:
        weight = conv.weight.reshape(conv.groups, -1, *conv.weight.shape[1:])
        x = opset15.group_convolution(x, _constant(weight), *where)
    return x if conv.bias is None else opset15.add(x, _per_channel(conv.bias))


def _norm(x: Node, norm: nn.BatchNorm2d) -> Node:
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    x = opset15.multiply(x, _per_channel(scale))
    return opset15.add(x, _per_channel(norm.bias - norm.running_mean * scale))


def _block(x: Node, block: BasicBlock | Bottleneck) -> Node:
    """A residual block."""
    if getattr(block, 'with_plugins', False):
        raise UserError('backbone has plugins, expected a plain ResNet or ResNeXt')
    out = x
    for number in range(1, 3 if isinstance(block, BasicBlock) else 4):
        out = opset15.relu(out) if number > 1 else out
        out = _norm(_conv(out, getattr(block, f'conv{number}')), getattr(block, f'norm{number}'))
    if block.downsample is not None:
        conv, norm = block.downsample
        x = _norm(_conv(x, conv), norm)
    return opset15.relu(opset15.add(out, x))


def _resnet(x: Node, backbone: ResNet) -> list[Node]:
    x = opset15.relu(_norm(_conv(x, backbone.conv1), backbone.norm1))
    x = opset15.max_pool(x, [2, 2], [1, 1], [1, 1], [1, 1], [3, 3], 'floor').output(0)
    levels = []
    for index, name in enumerate(backbone.res_layers):
        for block in getattr(backbone, name):
            x = _block(x, block)
        if index in backbone.out_indices:
            levels.append(x)
    return levels


def _conv_norm(x: Node, layers: nn.Sequential | nn.Identity) -> Node:
    """Convolution and batch norm, with ReLU6 or without, as ``efficientnet_lite.conv_norm``."""
    if isinstance(layers, nn.Identity):
        return x
    x = _norm(_conv(x, layers[0]), layers[1])
    return opset15.clamp(x, 0.0, 6.0) if len(layers) > 2 else x


def _efficientnet_lite(x: Node, backbone: EfficientNetLite) -> list[Node]:
    x, levels = _conv_norm(x, backbone.stem), []
    for number, block in enumerate(backbone.blocks):
        expanded = _conv_norm(x, block.expand)
        if number in backbone.ends:
            levels.append(expanded)
        out = _conv_norm(_conv_norm(expanded, block.depthwise), block.project)
        x = opset15.add(x, out) if block.residual else out
    return [*levels, _conv_norm(x, backbone.last)]


def _neck(levels: list[Node], neck: FPN) -> list[Node]:
    laterals = [
        _conv(level, module.conv) for level, module in zip(levels, neck.lateral_convs, strict=True)
    ]
    for index in range(len(laterals) - 1, 0, -1):
        above = opset15.interpolate(
            laterals[index],
            np.array([2.0, 2.0], np.float32),
            'nearest',
            'scales',
            coordinate_transformation_mode='asymmetric',
            nearest_mode='floor',
            axes=np.array([2, 3]),
        )
        laterals[index - 1] = opset15.add(laterals[index - 1], above)
    found = [_conv(x, module.conv) for x, module in zip(laterals, neck.fpn_convs, strict=True)]
    while len(found) < neck.num_outs:  # every second pixel
        x = opset15.max_pool(found[-1], [2, 2], [1, 1], [0, 0], [0, 0], [1, 1], 'floor')
        found.append(x.output(0))
    return found


def _input(name: str, shape: list[int], kind: str = 'f32') -> Node:
    node = opset15.parameter(openvino.PartialShape(shape), getattr(openvino.Type, kind), name)
    node.output(0).set_names({name})
    return node


def _model(inputs: list[Node], outputs: dict[str, Node], name: str) -> openvino.Model:
    results = []
    for key, node in outputs.items():
        result = opset15.result(node)
        result.output(0).set_names({key})
        results.append(result)
    return openvino.Model(results, inputs, name)


def _features(model: MaskRCNN) -> openvino.Model:
    """Image, uint8, (1, H, W, 3), BGR -> maps, objectness and deltas of each level."""
    image = _input('image', [1, -1, -1, 3], 'u8')
    x = opset15.transpose(opset15.convert(image, 'f32'), np.array([0, 3, 1, 2]))
    preprocessor = model.data_preprocessor
    if getattr(preprocessor, '_channel_conversion', False):
        x = opset15.gather(x, np.array([2, 1, 0]), np.array(1))
    x = opset15.divide(
        opset15.subtract(x, _per_channel(preprocessor.mean)), _per_channel(preprocessor.std)
    )
    divisor = np.array(preprocessor.pad_size_divisor)
    size = opset15.gather(opset15.shape_of(x), np.array([0, 1, 2, 3]), np.array(0))
    end = opset15.floor_mod(opset15.negative(size), divisor)
    end = opset15.multiply(end, np.array([0, 0, 1, 1]))
    x = opset15.pad(x, np.zeros(4, np.int64), end, 'constant', np.float32(preprocessor.pad_value))
    rebuild = _resnet if isinstance(model.backbone, ResNet) else _efficientnet_lite
    levels = _neck(rebuild(x, model.backbone), model.neck)
    outputs = {}
    for index in range(len(model.roi_head.bbox_roi_extractor.featmap_strides)):
        outputs[f'map{index}'] = opset15.transpose(levels[index], np.array([0, 2, 3, 1]))
    rpn = model.rpn_head
    for index, level in enumerate(levels):
        x = opset15.relu(_conv(level, rpn.rpn_conv))
        outputs[f'objectness{index}'] = _conv(x, rpn.rpn_cls)
        outputs[f'deltas{index}'] = _conv(x, rpn.rpn_reg)
    return _model([image], outputs, 'features')


def _roi_input(extractor: nn.Module) -> tuple[Node, Node]:
    """What lies in boxes, float32, (R, P, P, C), as it is put in and channels first."""
    for layer in extractor.roi_layers:
        if layer.pool_mode != 'avg' or not layer.aligned or layer.sampling_ratio > 0:
            raise UserError(f'roi_layer is {layer}, expected an aligned average of all pixels')
    height, width = extractor.roi_layers[0].output_size
    looks = _input('features', [-1, height, width, extractor.out_channels])
    return looks, opset15.transpose(looks, np.array([0, 3, 1, 2]))


def _linear(x: Node, layer: nn.Linear) -> Node:
    x = opset15.matmul(x, _constant(layer.weight), False, True)
    return opset15.add(x, _constant(layer.bias[None]))


def _boxes(model: MaskRCNN) -> openvino.Model:
    """What lies in boxes -> class probabilities, the last of none, and deltas for each class."""
    head = model.roi_head.bbox_head
    features, x = _roi_input(model.roi_head.bbox_roi_extractor)
    x = opset15.reshape(x, np.array([-1, head.shared_fcs[0].in_features]), False)
    for layer in head.shared_fcs:
        x = opset15.relu(_linear(x, layer))
    scores = opset15.softmax(_linear(x, head.fc_cls), 1)
    return _model([features], dict(scores=scores, deltas=_linear(x, head.fc_reg)), 'boxes')


def _masks(model: MaskRCNN) -> openvino.Model:
    """What lies in boxes -> probabilities, (R, classes, 2 P, 2 P)."""
    head = model.roi_head.mask_head
    features, x = _roi_input(model.roi_head.mask_roi_extractor)
    for module in head.convs:
        x = opset15.relu(_conv(x, module.conv))
    up = head.upsample
    if not isinstance(up, nn.ConvTranspose2d):
        raise UserError(f'upsample of mask_head is {up}, expected a deconvolution')
    x = opset15.convolution_backprop_data(x, _constant(up.weight), list(up.stride))
    x = opset15.relu(opset15.add(x, _per_channel(up.bias)))
    x = opset15.sigmoid(_conv(x, head.conv_logits))
    return _model([features], dict(probabilities=x), 'masks')
