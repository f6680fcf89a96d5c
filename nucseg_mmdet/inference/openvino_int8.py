"""A network in 8 bits: four times the products of an instruction, where a CPU has VNNI or AMX.

What goes into each convolution is measured when a model's file is written, and kept there as ranges
of numbers. The weights in the file stay as they are, so that it serves every precision; they are
rounded when it is loaded. OpenVINO makes 8-bit kernels of convolutions whose inputs are both said
to be rounded (FakeQuantize).
"""

from collections.abc import Iterable, Sequence

import numpy as np
import openvino
from openvino import Node, opset15

from nucseg_mmdet.inference.openvino_model import runtime

CONVOLUTIONS = ('Convolution', 'GroupConvolution')
Ranges = Sequence[tuple[float, float]]


def measure_ranges(network: openvino.Model, images: Iterable[np.ndarray]) -> Ranges:
    """Measure what goes into each convolution: its least and its largest, means over images.

    Args:
        network: ``features`` of a model.
        images: uint8, (1, H, W, 3), BGR; prepared for it.
    """
    everything = np.arange(4)
    ends = [
        opset15.result(reduce(conv.input_value(0), everything, False))
        for conv in _convolutions(network)
        for reduce in (opset15.reduce_min, opset15.reduce_max)
    ]
    watched = openvino.Model(ends, network.get_parameters(), 'ranges')
    options = dict(INFERENCE_PRECISION_HINT='f32')
    compiled = runtime().compile_model(watched, 'CPU', options)
    found = [[float(value) for value in compiled([image]).values()] for image in images]
    return [(low, high) for low, high in np.mean(found, axis=0).reshape(-1, 2).tolist()]


def quantize(network: openvino.Model, ranges: Ranges, exact: int = 1) -> None:
    """Let a network be computed in 8 bits, but for its first convolutions.

    The first one sees the image, has a twentieth of the work of a ResNet-18, and in 8 bits costs as
    much in agreement with float32 as all others together. The narrow, depthwise ones that
    EfficientNet-Lite begins with are as delicate.

    Args:
        network: changed in place.
        ranges: of ``measure_ranges``.
        exact: convolutions that stay in float32.

    Raises:
        ValueError: the ranges are of another network.
    """
    rounded: dict[tuple[str, int], Node] = {}
    for number, (conv, (low, high)) in enumerate(zip(_convolutions(network), ranges, strict=True)):
        if number < exact:
            continue
        source = conv.input_value(0)
        key = source.get_node().get_friendly_name(), source.get_index()
        if key not in rounded:
            rounded[key] = _round(source, *_ends(low, high), 256)
        conv.input(0).replace_source_output(rounded[key].output(0))
        weights = conv.input_value(1)
        largest = _largest(weights)
        conv.input(1).replace_source_output(_round(weights, -largest, largest, 255).output(0))


def _convolutions(network: openvino.Model) -> list[Node]:
    return [node for node in network.get_ordered_ops() if node.get_type_name() in CONVOLUTIONS]


def _ends(low: float, high: float) -> tuple[np.ndarray, np.ndarray]:
    """The range of 256 levels, with 0 among them: 0 to 255, or -128 to 127."""
    largest = max(-low, high, 1e-6)
    start = -largest * 128 / 127 if low < 0 else 0.0
    return np.full((1, 1, 1, 1), start, np.float32), np.full((1, 1, 1, 1), largest, np.float32)


def _largest(weights: openvino.Output) -> np.ndarray:
    """The largest weight of each output channel, as an array that the weights can be divided by."""
    node = weights.get_node()
    while node.get_type_name() != 'Constant':  # converted from half precision
        node = node.input_value(0).get_node()
    values = np.abs(node.data.astype(np.float32))
    inner = tuple(range(values.ndim - 3, values.ndim))
    return np.maximum(values.max(inner, keepdims=True), np.float32(1e-12))


def _round(values: Node | openvino.Output, low: np.ndarray, high: np.ndarray, levels: int) -> Node:
    ends = [opset15.constant(end) for end in (low, high)]
    return opset15.fake_quantize(values, *ends, *ends, levels)
