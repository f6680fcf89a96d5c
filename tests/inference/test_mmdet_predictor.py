"""A config's model and pipeline, set for tiles."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmcv.transforms import Compose
from mmengine.config import Config
from mmengine.registry import init_default_scope

from nucseg_mmdet.inference import mmdet_predictor, predictor
from nucseg_mmdet.inference.mmdet_predictor import tile_pipeline
from nucseg_mmdet.synthetic.fields import synthesize

CONFIGS = Path(__file__).parents[2] / 'configs'

init_default_scope('mmdet')


@pytest.mark.parametrize(
    ('config', 'factor'),
    [
        ('demo/mask-rcnn_r18_fpn_demo_nuclei.py', 1.0),
        ('dense/ablations/half-width.py', 2.0),
        # Fields of 1,000 px are brought to 800.
        ('vrdl/mask-rcnn_r101_fpn_e01_vrdl.py', 0.8),
    ],
)
def test_tiles_are_resized_as_a_field_is(config, factor):
    cfg = Config.fromfile(CONFIGS / config)
    for side in (100, 1000):
        tile = Compose(tile_pipeline(cfg))(dict(img=np.zeros((side, side, 3), np.uint8)))
        assert tile['inputs'].shape[1:] == (factor * side, factor * side)
        assert tile['data_samples'].ori_shape == (side, side)


@pytest.mark.parametrize('path', sorted(CONFIGS.glob('[!_]*/**/*.py')), ids=lambda path: path.stem)
def test_maps_that_are_coarser_than_the_step_are_not_for_nuclei(path):
    cfg = Config.fromfile(path)
    factors = [step.get('scale_factor', 1.0) for step in tile_pipeline(cfg)]
    anchors = cfg.model.rpn_head.anchor_generator
    coarser = [stride for stride in anchors.strides if stride > predictor.STRIDE]
    assert coarser == [64]
    # The largest nuclei are 64 px; an anchor of 100 px has an IoU of 0.41 with them at best.
    assert min(anchors.scales) * 64 > 100 * np.prod(factors)


@pytest.mark.parametrize(('tile', 'proposals'), [(256, 3_000), (512, 3_000), (1024, 12_000)])
def test_limits_follow_the_area(tile, proposals):
    cfg = Config.fromfile(CONFIGS / 'dense/ablations/half-width.py')
    mmdet_predictor.raise_limits(cfg, tile)
    assert cfg.model.test_cfg.rpn.max_per_img == proposals
    assert cfg.model.test_cfg.rpn.nms_pre == proposals
    assert cfg.model.test_cfg.rcnn.max_per_img == proposals * 2 // 3


def test_a_field_in_memory_is_the_field_in_its_file(tmp_path):
    image = synthesize(3, 150, 200, 40)[0]
    cfg = Config.fromfile(CONFIGS / 'dense/ablations/half-width.py')
    path = tmp_path / 'field.png'
    cv2.imwrite(str(path), image[..., ::-1])
    from_file = Compose(cfg.test_dataloader.dataset.pipeline)(dict(img_path=str(path), img_id=0))
    in_memory = Compose(tile_pipeline(cfg))(dict(img=image[..., ::-1]))
    assert torch.equal(from_file['inputs'], in_memory['inputs'])
    assert from_file['data_samples'].scale_factor == in_memory['data_samples'].scale_factor


def test_how_much_a_pipeline_enlarges():
    steps = [dict(type='Resize', scale_factor=1.5), dict(type='PackDetInputs')]
    assert mmdet_predictor.resize_factor(steps) == 1.5
    assert mmdet_predictor.resize_factor(steps[1:]) == 1
