"""Single layers in OpenVINO against the same in torch, and those that have no twin there."""

import numpy as np
import openvino
import pytest
import torch
from mmdet.models.backbones.resnet import BasicBlock
from mmdet.models.backbones.resnext import Bottleneck
from mmdet.models.roi_heads.roi_extractors import SingleRoIExtractor
from openvino import opset15
from torch import nn

from nucseg_mmdet.inference import openvino_networks
from nucseg_mmdet.models.efficientnet_lite import SameConv2d
from nucseg_mmdet.utils.errors import UserError


def shortcut(inputs, outputs, stride):
    return nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))


LAYERS = {
    'plain': lambda: nn.Conv2d(4, 6, 3, padding=(1, 2), stride=(2, 1), dilation=(2, 1)),
    'grouped': lambda: nn.Conv2d(4, 6, 3, padding=1, groups=2, bias=False),
    'padded on two sides': lambda: SameConv2d(4, 4, 3, 2, groups=4),
    'a block of two': lambda: BasicBlock(4, 4),
    'a block of three': lambda: Bottleneck(
        4, 64, groups=2, base_width=4, stride=2, downsample=shortcut(4, 256, 2)
    ),
}


@pytest.mark.parametrize('name', LAYERS)
def test_layer_gives_the_same(name):
    generator = torch.Generator().manual_seed(0)
    layer = LAYERS[name]().eval()
    for key, value in layer.state_dict().items():
        if value.is_floating_point():  # variances, too, are above 0
            value.copy_(torch.rand(value.shape, generator=generator) - 0.4 * ('var' not in key))
    features = torch.rand(1, 4, 8, 10, generator=generator)
    parameter = opset15.parameter(list(features.shape), openvino.Type.f32, 'features')
    rebuild = openvino_networks._conv if isinstance(layer, nn.Conv2d) else openvino_networks._block
    network = openvino.Model([opset15.result(rebuild(parameter, layer))], [parameter], name)
    exact = {'INFERENCE_PRECISION_HINT': 'f32'}
    (found,) = openvino.compile_model(network, 'CPU', exact)([features.numpy()]).values()
    with torch.no_grad():
        expected = layer(features).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)  # of sums of 36 terms


@pytest.mark.parametrize(
    'change', [dict(sampling_ratio=2), dict(aligned=False), dict(pool_mode='max')]
)
def test_other_looks_at_boxes_are_refused(change):
    layer = dict(type='RoIAlign', output_size=7, sampling_ratio=0) | change
    with pytest.raises(UserError, match='expected an aligned average of all pixels'):
        openvino_networks._roi_input(SingleRoIExtractor(layer, 4, [4]))


def test_padding_of_other_values_is_refused():
    parameter = opset15.parameter([1, 4, 8, 8], openvino.Type.f32, 'features')
    with pytest.raises(UserError, match=r'padding of Conv2d.* is not of zeros'):
        openvino_networks._conv(parameter, nn.Conv2d(4, 4, 3, padding=1, padding_mode='reflect'))
