"""RoIAlign by matrix products against mmcv's kernel, values and gradients."""

import pytest
import torch
from mmcv import ops
from mmdet.models.roi_heads.roi_extractors import SingleRoIExtractor
from mmdet.registry import MODELS
from mmengine.registry import init_default_scope

from nucseg_mmdet.models.roi_extractor import RoIAlign, SeparableRoIExtractor

HEIGHT, WIDTH, STRIDE = 20, 24, 4  # px of the feature map; network pixels per px of it

ROIS = {
    'nuclei': [[0, 10.3, 8.1, 32.7, 30.2], [1, 40.0, 20.0, 71.5, 44.4], [1, 3.2, 3.9, 16.1, 12.8]],
    'whole map': [[0, 0, 0, 96, 80]],
    'beyond every border': [[0, -30, -20, 150, 120], [1, -9, 60, 20, 99], [0, 80, -7, 130, 9]],
    'outside': [[1, 200, 200, 240, 230], [0, -90, 10, -40, 30]],
    'just outside the last pixel': [[0, 92.1, 76.2, 99.9, 83.7], [0, -5.9, -4.1, -2.2, -2.05]],
    'one pixel': [[0, 16, 16, 17, 17], [0, 16.1, 20.2, 16.3, 44]],
    'no extent': [[0, 16, 16, 16, 30], [1, 16, 16, 30, 16], [1, 5, 5, 5, 5]],
    'thin and long': [[0, 0, 33, 96, 35], [1, 50, 0, 52.5, 80]],
    'duplicates': [[1, 10, 10, 40, 40]] * 5,
    'none': [],
}


def make_rois(name, dtype=torch.float64):
    return torch.tensor(ROIS[name], dtype=dtype).reshape(-1, 5)


def features(dtype=torch.float64, seed=0, height=HEIGHT, width=WIDTH):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, 6, height, width, generator=generator, dtype=torch.float64).to(dtype)


def align(layer, feature, rois, weight):
    """Values, and the gradient of their weighted sum."""
    feature = feature.clone().requires_grad_()
    found = layer(feature, rois)
    (gradient,) = torch.autograd.grad((found * weight).sum(), feature)
    return found.detach(), gradient


@pytest.mark.parametrize('ratio', [0, 2])
@pytest.mark.parametrize('size', [7, (5, 14)])
@pytest.mark.parametrize('name', ROIS)
def test_equals_mmcv(name, size, ratio):
    options = dict(output_size=size, spatial_scale=1 / STRIDE, sampling_ratio=ratio)
    ours, stock = RoIAlign(**options), ops.RoIAlign(**options)
    feature, rois = features(), make_rois(name)
    weight = torch.randn(len(rois), 6, *stock.output_size, dtype=torch.float64)
    found, gradient = align(ours, feature, rois, weight)
    if len(rois):
        expected, wanted = align(stock, feature, rois, weight)
    else:  # which mmcv's kernel refuses
        expected, wanted = torch.zeros(0, 6, *stock.output_size), torch.zeros_like(feature)
    torch.testing.assert_close(found, expected.double(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(gradient, wanted, rtol=1e-12, atol=1e-12)


def test_equals_mmcv_on_many_random_boxes_in_float32():
    generator = torch.Generator().manual_seed(1)
    low = torch.rand(400, 2, generator=generator) * 120 - 20
    sides = torch.rand(400, 2, generator=generator) ** 3 * 90
    image = torch.randint(0, 2, (400, 1), generator=generator)
    rois = torch.cat([image, low, low + sides], dim=1)
    rois[::50, 3] = rois[::50, 1]  # no extent, beside others
    options = dict(output_size=7, spatial_scale=1 / STRIDE, sampling_ratio=0)
    feature = features(torch.float32)
    weight = torch.randn(400, 6, 7, 7, generator=generator)
    found, gradient = align(RoIAlign(**options), feature, rois, weight)
    expected, wanted = align(ops.RoIAlign(**options), feature, rois, weight)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=2e-6)  # of sums of up to 500 terms
    torch.testing.assert_close(gradient, wanted, rtol=1e-4, atol=1e-4)


def test_chunks_change_nothing(monkeypatch):
    feature, rois = features(), torch.cat([make_rois('nuclei'), make_rois('duplicates')])
    layer, weight = RoIAlign(7, 1 / STRIDE, 0), torch.ones(1, dtype=torch.float64)
    expected = align(layer, feature, rois, weight)
    monkeypatch.setattr('nucseg_mmdet.models.roi_extractor.CHUNK', 1)
    for found, wanted in zip(align(layer, feature, rois, weight), expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-12, atol=1e-12)


def test_half_precision_features_are_read_as_they_are():
    layer, rois = RoIAlign(7, 1 / STRIDE, 0), make_rois('nuclei', torch.float32)
    feature = features(torch.bfloat16).to(memory_format=torch.channels_last)
    with torch.autocast('cpu', torch.bfloat16):
        found, gradient = align(layer, feature, rois, torch.ones(()))
    assert found.dtype == torch.float32
    assert gradient.dtype == torch.bfloat16
    torch.testing.assert_close(found, layer(feature.float(), rois), rtol=0, atol=0)


@pytest.mark.parametrize('options', [dict(pool_mode='max'), dict(aligned=False)])
def test_other_options_are_mmcvs_own(options):
    feature, rois = features(torch.float32), make_rois('nuclei', torch.float32)
    found = RoIAlign(7, 1 / STRIDE, 2, **options)(feature, rois)
    assert torch.equal(found, ops.RoIAlign(7, 1 / STRIDE, 2, **options)(feature, rois))


LEVELS = dict(
    roi_layer=dict(type='RoIAlign', output_size=7, sampling_ratio=0),
    out_channels=6,
    featmap_strides=[4, 8, 16, 32],
)


@pytest.mark.parametrize('scale_factor', [None, 1.3])
@pytest.mark.parametrize('name', ['nuclei', 'whole map', 'beyond every border', 'none'])
def test_the_extractor_equals_the_stock_one(name, scale_factor):
    init_default_scope('mmdet')
    ours = MODELS.build(dict(type='SeparableRoIExtractor', **LEVELS))
    assert isinstance(ours, SeparableRoIExtractor)
    stock = SingleRoIExtractor(**LEVELS)
    levels = [
        features(torch.float32, stride, 160 // stride, 192 // stride).requires_grad_()
        for stride in LEVELS['featmap_strides']
    ]
    # Of every size that a level of its own takes; the last is left without a RoI.
    rois = torch.cat([make_rois(name, torch.float32), torch.tensor([[1.0, 3, 5, 170, 150]])])
    rois = rois if name != 'none' else rois[:0]
    found, expected = ours(levels, rois, scale_factor), stock(levels, rois, scale_factor)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=2e-6)
    gradients = torch.autograd.grad((found * found).sum(), levels)
    wanted = torch.autograd.grad((expected * expected).sum(), levels)
    for gradient, want in zip(gradients, wanted, strict=True):  # of every level, for DDP
        torch.testing.assert_close(gradient, want, rtol=1e-4, atol=1e-4)
    assert found.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a CUDA device')
def test_a_gpu_gives_the_same():
    layer = RoIAlign(7, 1 / STRIDE, 0)
    feature, rois = features(torch.float32), make_rois('nuclei', torch.float32)
    found = layer(feature.cuda(), rois.cuda()).cpu()
    torch.testing.assert_close(found, layer(feature, rois), rtol=1e-5, atol=1e-5)
