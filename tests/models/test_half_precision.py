"""Half precision: close to float32, and float32 wherever results are decided."""

import copy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmcv.ops import RoIAlign
from mmdet.registry import DATASETS, HOOKS, MODELS
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import bbox2roi
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.optim import OptimWrapper, build_optim_wrapper
from mmengine.registry import OPTIM_WRAPPERS, init_default_scope
from torch import nn

from nucseg_mmdet.engine.hooks.inference_precision import InferencePrecisionHook
from nucseg_mmdet.engine.optim_wrapper import BFloat16OptimWrapper
from nucseg_mmdet.models.half_precision import prepare_for_inference
from nucseg_mmdet.utils.errors import UserError

DEMO_CONFIG = Path(__file__).parents[2] / 'configs/demo/mask-rcnn_r18_fpn_demo_nuclei.py'
SIZE = 96  # px


@pytest.fixture
def demo_config():
    cfg = Config.fromfile(DEMO_CONFIG)
    init_default_scope('mmdet')
    return cfg


@pytest.fixture
def model(demo_config):
    """The demo's model, random weights, batch norms that do something."""
    torch.manual_seed(0)
    demo_config.model.test_cfg.rcnn.update(score_thr=0.0, max_per_img=20)
    model = MODELS.build(demo_config.model)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.2)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
    return model.eval()


@pytest.fixture
def image():
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, SIZE, SIZE), np.uint8))


def predict(model, image):
    meta = dict(ori_shape=(SIZE, SIZE), img_shape=(SIZE, SIZE), scale_factor=(1.0, 1.0))
    with torch.no_grad():
        data = dict(inputs=[image], data_samples=[DetDataSample(metainfo=meta)])
        return model.test_step(data)[0].pred_instances


def box_outputs(model, image):
    """Scores and deltas of four fixed boxes."""
    boxes = torch.tensor([[5.0, 5, 30, 30], [40, 20, 60, 50], [0, 60, 96, 96], [70, 70, 80, 85]])
    with torch.no_grad():
        inputs = model.data_preprocessor(dict(inputs=[image]))['inputs']
        found = model.roi_head._bbox_forward(model.extract_feat(inputs), bbox2roi([boxes]))
    return found['cls_score'], found['bbox_pred']


def test_folded_float32_is_the_same(model, image):
    expected, wanted = predict(model, image), box_outputs(model, image)
    prepare_for_inference(model, 'fp32')
    assert not any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    for output, before in zip(box_outputs(model, image), wanted, strict=True):
        torch.testing.assert_close(output, before, rtol=1e-4, atol=1e-5)
    found = predict(model, image)
    assert len(found) == len(expected) == 20
    torch.testing.assert_close(found.scores, expected.scores, rtol=1e-4, atol=1e-5)


def test_bfloat16_is_close(model, image):
    wanted = box_outputs(model, image)
    prepare_for_inference(model, 'bf16')
    for output, before in zip(box_outputs(model, image), wanted, strict=True):
        # 8 bits a number, some 25 layers: 2 ** -8 * sqrt(25) of the largest.
        assert 0 < (output - before).abs().max() < 0.02 * before.abs().max()


def test_bfloat16_inside_float32_at_the_borders(model, image):
    seen = []
    for module in model.modules():
        if isinstance(module, RoIAlign):
            module.register_forward_hook(
                lambda _, args, output: seen.append((args[0].dtype, args[1].dtype, output.dtype))
            )
    prepare_for_inference(model, 'bf16')
    result = predict(model, image)
    assert set(seen) == {(torch.bfloat16, torch.float32, torch.float32)}
    assert (result.bboxes.dtype, result.scores.dtype) == (torch.float32, torch.float32)
    assert len(result.masks) == 20
    assert model.backbone.conv1.weight.dtype == torch.bfloat16
    assert model.roi_head.bbox_head.fc_cls.weight.dtype == torch.float32
    assert model.backbone.layer1[0].conv2.weight.is_contiguous(memory_format=torch.channels_last)


def test_the_hook_prepares_the_tested_model(model):
    hook = HOOKS.build(dict(type='InferencePrecisionHook', precision='bf16'))
    assert isinstance(hook, InferencePrecisionHook)
    hook.before_test(SimpleNamespace(model=model))
    assert model.neck.fpn_convs[0].conv.weight.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ('precision', 'message'),
    [('fp16', 'fp16 on a CPU, expected bf16'), ('int8', "'int8', expected one of fp32, bf16")],
)
def test_precisions_that_are_refused(model, precision, message):
    with pytest.raises(UserError, match=message):
        prepare_for_inference(model, precision)


@pytest.fixture
def batch(demo_config, data_root):
    node = demo_config.train_dataloader.dataset
    node.data_root = str(data_root)
    node.pipeline = [step for step in node.pipeline if step.type != 'RandomCrop']
    np.random.seed(0)
    dataset = DATASETS.build(node)
    return [dataset[0], dataset[1]]


def train(demo_config, batch, wrapper_type, iterations):
    torch.manual_seed(0)
    model = MODELS.build(demo_config.model).train()
    options = copy.deepcopy(demo_config.optim_wrapper)
    options.type = wrapper_type
    wrapper = build_optim_wrapper(model, options)
    losses = []
    for _ in range(iterations):
        torch.manual_seed(0)  # the same samples
        losses.append(model.train_step(pseudo_collate(batch), wrapper)['loss'].item())
    return model, losses


def test_training_in_bfloat16(demo_config, batch):
    _, (expected,) = train(demo_config, batch, 'OptimWrapper', 1)
    model, losses = train(demo_config, batch, 'BFloat16OptimWrapper', 8)
    assert losses[0] != expected
    assert losses[0] == pytest.approx(expected, rel=0.03)
    assert losses[-1] < 0.8 * losses[0]
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_a_model_trained_in_bfloat16_validates_in_float32(demo_config, batch, image):
    model, _ = train(demo_config, batch, 'BFloat16OptimWrapper', 1)
    seen = []
    model.backbone.conv1.register_forward_hook(lambda *args: seen.append(args[2].dtype))
    predict(model.eval(), image)
    assert seen == [torch.float32]


def test_the_wrapper_saves_what_the_stock_one_saves(demo_config, batch):
    parameter = nn.Parameter(torch.zeros(2))
    stock, ours = (
        wrapper(optimizer=torch.optim.SGD([parameter], lr=0.1))
        for wrapper in (OptimWrapper, BFloat16OptimWrapper)
    )
    assert ours.state_dict().keys() == stock.state_dict().keys()
    assert OPTIM_WRAPPERS.get('BFloat16OptimWrapper') is BFloat16OptimWrapper
