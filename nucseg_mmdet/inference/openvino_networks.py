"""The networks of a Mask R-CNN of MMDetection, rebuilt for OpenVINO layer by layer.

Not traced, so that weights stay what they are in the checkpoint: batch norm is folded when the file
is loaded, and weights that were published in half precision are stored in it without another
rounding.
"""

import numpy as np
import openvino
import torch
from mmdet.models import FPN, MaskRCNN, ResNet
from mmdet.models.backbones.resnet import BasicBlock, Bottleneck
from openvino import Node, opset15
from torch import Tensor, nn

from nucseg_mmdet.models.efficientnet_lite import EfficientNetLite, SameConv2d
from nucseg_mmdet.utils.errors import UserError


def networks(model: MaskRCNN) -> dict[str, openvino.Model]:
    """Rebuild the networks of a model in evaluation mode, see ``openvino_model.NETWORKS``.

    Raises:
        UserError: a layer is of a kind that cannot be rebuilt.
    """
    return dict(features=_features(model), boxes=_boxes(model), masks=_masks(model))


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
