"""Each experiment's name, its config, its docstring and the original table must agree."""

import ast
import re
from pathlib import Path

import pytest
from mmengine.config import Config

CONFIGS = sorted(Path(__file__).parents[1].glob('configs/vrdl/*.py'))
NAME = re.compile(
    r'mask-rcnn_(?P<backbone>r101|x101-32x8d)_fpn_e(?P<number>\d\d)'
    r'-roi(?P<roi>\d+)-s(?P<size>\d+)-a(?P<low>\d+)to(?P<high>\d+)-(?P<kiters>\d+)k_nuclei'
)
# The table of the original project: backbone, RoIs per image, anchors in px, iterations,
# short side in px, published mAP.
TABLE = {
    1: ('r101', 128, (32, 512), 300_000, 800, 0.223274),
    2: ('r101', 512, (32, 512), 300_000, 800, 0.219256),
    3: ('r101', 128, (32, 512), 300_000, 1200, 0.208042),
    4: ('r101', 128, (32, 512), 500_000, 1200, 0.221926),
    5: ('r101', 128, (32, 512), 50_000, 1200, 0.226062),
    6: ('r101', 128, (32, 512), 200_000, 1200, 0.211141),
    7: ('r101', 128, (32, 512), 6_000, 1200, 0.242515),
    8: ('r101', 128, (32, 512), 5_000, 1200, 0.24355),
    9: ('r101', 128, (32, 512), 4_000, 1200, 0.232426),
    10: ('r101', 128, (8, 128), 5_000, 1200, 0.233071),
    11: ('r101', 128, (16, 256), 5_000, 1200, 0.242185),
    12: ('x101-32x8d', 128, (32, 512), 50_000, 1000, 0.228375),
    13: ('x101-32x8d', 128, (32, 512), 100_000, 1000, 0.225095),
    14: ('x101-32x8d', 128, (32, 512), 5_000, 1000, 0.243045),
    15: ('x101-32x8d', 128, (32, 512), 3_000, 1000, 0.231643),
}
by_name = pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)


def load(path):
    return Config.fromfile(path, import_custom_modules=False)


def test_all_experiments_are_there():
    assert [int(NAME.fullmatch(path.stem)['number']) for path in CONFIGS] == [
        *(number for number in TABLE if TABLE[number][0] == 'r101'),
        *(number for number in TABLE if TABLE[number][0] == 'x101-32x8d'),
    ]


@by_name
def test_config_is_the_table(path):
    name = NAME.fullmatch(path.stem)
    backbone, rois, anchors, iterations, size, published = TABLE[int(name['number'])]
    cfg = load(path)
    generator = cfg.model.rpn_head.anchor_generator
    sizes = [generator.scales[0] * stride for stride in generator.strides]
    assert (min(sizes), max(sizes)) == anchors
    assert cfg.model.train_cfg.rcnn.sampler.num == rois
    assert cfg.train_cfg.max_iters == iterations
    for loader in (cfg.train_dataloader, cfg.test_dataloader):
        resize = [step for step in loader.dataset.pipeline if step['type'] == 'Resize']
        assert [(step['scale'], step['keep_ratio']) for step in resize] == [((1500, size), True)]
    assert name['backbone'] == backbone
    assert (int(name['roi']), int(name['size'])) == (rois, size)
    assert (int(name['low']), int(name['high'])) == anchors
    assert int(name['kiters']) * 1000 == iterations
    docstring = ast.get_docstring(ast.parse(path.read_text()))
    assert docstring.startswith(f'Experiment {int(name["number"])} of the original table')
    assert f'python tools/train.py configs/vrdl/{path.name}' in docstring
    assert f'Published mAP {published}.' in docstring


@by_name
def test_common_settings_are_the_original_ones(path):
    cfg = load(path)
    assert cfg.optim_wrapper.type == 'OptimWrapper'
    assert cfg.optim_wrapper.optimizer == dict(
        type='SGD', lr=0.00025, momentum=0.9, weight_decay=0.0001
    )
    assert cfg.optim_wrapper.paramwise_cfg == dict(norm_decay_mult=0.0)
    warmup, steps = cfg.param_scheduler
    assert (warmup.type, warmup.start_factor, warmup.end) == ('LinearLR', 0.001, 1000)
    assert (steps.milestones, steps.gamma) == ([210_000, 250_000], 0.1)
    assert cfg.train_dataloader.batch_size == 2
    assert cfg.default_hooks.checkpoint.interval == 1000
    flip = next(s for s in cfg.train_dataloader.dataset.pipeline if s['type'] == 'RandomFlip')
    assert flip == dict(type='RandomFlip', prob=0.5)
    assert cfg.train_dataloader.dataset.pipeline[1].poly2mask is False
    model = cfg.model
    assert model.test_cfg.rcnn.max_per_img == 600
    assert model.test_cfg.rcnn.score_thr == 0.05
    assert model.test_cfg.rcnn.nms.iou_threshold == 0.5
    assert (model.test_cfg.rpn.nms_pre, model.test_cfg.rpn.max_per_img) == (1000, 1000)
    proposal = model.train_cfg.rpn_proposal
    assert (proposal.nms_pre, proposal.max_per_img, proposal.min_bbox_size) == (2000, 1000, 0)
    assert 0 < model.train_cfg.rpn.assigner.min_pos_iou < 0.01
    assert model.train_cfg.rcnn.assigner.match_low_quality is False
    assert model.roi_head.bbox_head.num_classes == model.roi_head.mask_head.num_classes == 1


@by_name
def test_backbones_are_detectron2s(path):
    model = load(path).model
    backbone, preprocessor = model.backbone, model.data_preprocessor
    assert preprocessor.mean == [103.53, 116.28, 123.675]
    assert preprocessor.bgr_to_rgb is False
    assert (backbone.depth, backbone.frozen_stages, backbone.norm_eval) == (101, 1, True)
    assert backbone.norm_cfg == dict(type='BN', requires_grad=False)
    if '_x101-' in path.stem:
        assert (backbone.type, backbone.groups, backbone.base_width) == ('ResNeXt', 32, 8)
        assert backbone.style == 'pytorch'
        assert preprocessor.std == [57.375, 57.12, 58.395]
        weights = 'open-mmlab://detectron2/resnext101_32x8d'
    else:
        assert (backbone.type, backbone.style) == ('ResNet', 'caffe')
        assert preprocessor.std == [1.0, 1.0, 1.0]
        weights = 'open-mmlab://detectron2/resnet101_caffe'
    assert backbone.init_cfg == dict(type='Pretrained', checkpoint=weights)


@by_name
def test_only_bases_and_own_changes(path):
    names = [
        node.targets[0].id
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.Assign)
    ]
    assert set(names) <= {'_base_', 'model', 'train_cfg'}
