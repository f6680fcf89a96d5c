"""What configs are called, what they inherit, and that the original table, its docstrings and the
built configs agree."""

import ast
import json
import re
import zipfile
from pathlib import Path

import pytest
import yaml
from mmengine.config import Config

from nucseg_mmdet.engine import model_zoo

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / 'configs').glob('**/*.py'))
EXPERIMENTS = [path for path in FILES if '_base_' not in path.parts]
VRDL = sorted((ROOT / 'configs/vrdl').glob('*.py'))
NAME = re.compile(r'mask-rcnn_(?P<backbone>r101|x101-32x8d)_fpn_e(?P<number>\d\d)_vrdl')
DOCSTRING = re.compile(
    r'Experiment (\d+) of the original table: (\d+) RoIs, (\d+) px, anchors (\d+) to (\d+) px, '
    r'([\d,]+) iterations\.\n.*\npython tools/train\.py (\S+)\nPublished mAP (\S+)\.',
    re.DOTALL,
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
each_file = pytest.mark.parametrize('path', FILES, ids=lambda path: path.stem)
each_original = pytest.mark.parametrize('path', VRDL, ids=lambda path: path.stem)


def load(path):
    return Config.fromfile(path, import_custom_modules=False)


def tree(path):
    return ast.parse(path.read_text())


def bases(path):
    """The files that a config names as its bases."""
    for node in tree(path).body:
        if isinstance(node, ast.Assign) and node.targets[0].id == '_base_':
            named = ast.literal_eval(node.value)
            named = [named] if isinstance(named, str) else named
            return [(path.parent / name).resolve() for name in named]
    return []


def takes_by_place(node):
    """Whether it is like ``x[0]``, or like the left of ``a, *others = x``."""
    unpacked = isinstance(node, ast.Tuple | ast.List) and isinstance(node.ctx, ast.Store)
    return unpacked or isinstance(node, ast.Subscript)


def levels(path):
    return 1 + max(map(levels, bases(path)), default=0)


def needed(path):
    """The files that together say what a config means."""
    return {path.resolve()}.union(*map(needed, bases(path)))


@each_file
def test_names_are_short(path):
    assert len(path.stem) <= 45


def test_names_are_unique():
    # The work folder has the name of the config.
    stems = [path.stem for path in EXPERIMENTS]
    assert len(stems) == len(set(stems)) > 30


@each_file
def test_at_most_three_levels(path):
    assert levels(path) <= 3


@each_file
def test_only_bases_are_inherited(path):
    assert all('_base_' in base.parts for base in bases(path))


def test_default_model_is_six_files():
    files = needed(model_zoo.find_config(model_zoo.DEFAULT))
    assert {path.stem for path in files} == {
        'mask-rcnn_r18-c4_fpn_dense_nuclei',
        'mask-rcnn_r18-c4_fpn',
        'mask-rcnn_r101_fpn',
        'vrdl_crop-stain',
        'dense',
        'default_runtime',
    }


@each_file
def test_steps_are_taken_by_name(path):
    taken = [node for node in ast.walk(tree(path)) if takes_by_place(node)]
    assert not taken, f'line {taken[0].lineno} takes an item by its place'


@each_file
def test_no_loops_and_functions(path):
    kinds = (ast.For, ast.While, ast.comprehension, ast.FunctionDef, ast.Lambda)
    found = [type(node).__name__ for node in ast.walk(tree(path)) if isinstance(node, kinds)]
    assert not found


@pytest.mark.parametrize(
    'page',
    [
        *EXPERIMENTS,
        *(ROOT / name for name in ('data/README.md', 'models/README.md', 'Makefile')),
        *sorted((ROOT / 'configs').glob('*/README.md')),
        *sorted((ROOT / 'docs').glob('*.md')),
    ],
    ids=lambda path: path.stem,
)
def test_named_configs_are_there(page):
    text = (ast.get_docstring(tree(page)) or '') if page.suffix == '.py' else page.read_text()
    for name in re.findall(r'configs/[\w/.-]+\.py', text):
        assert (ROOT / name).is_file() or Path(name).stem.isupper(), name


def test_configs_without_views_are_named():
    dense = sorted((ROOT / 'configs/dense').glob('**/*.py'))
    without = [path.stem for path in dense if 'tta_pipeline' not in load(path)]
    text = (ROOT / 'docs/training.md').read_text()
    said = re.search(r'needs a `tta_pipeline`, which .+?\.\n', text, re.DOTALL)[0]
    assert re.findall(r'`(\S+)`', said) == ['tta_pipeline', 'dense-r18', *sorted(without, key=len)]


@pytest.mark.parametrize('path', EXPERIMENTS, ids=lambda path: path.stem)
def test_docstring_has_the_command(path):
    found = re.findall(r'python tools/t\w+\.py (\S+)', ast.get_docstring(tree(path)))
    assert found == [str(path.relative_to(ROOT))]


def test_lite_models_differ_as_they_say():
    """Each is written out, since a config has three levels at most."""
    models = ROOT / 'configs/_base_/models'
    lite0 = load(models / 'mask-rcnn_efficientnet-lite0_fpn.py').model
    lite2 = load(models / 'mask-rcnn_efficientnet-lite2_fpn.py').model
    cascade = load(models / 'cascade-mask-rcnn_efficientnet-lite2_fpn.py').model
    lite0.backbone.update(variant=2, init_cfg=lite2.backbone.init_cfg)
    lite0.neck.in_channels = [144, 288, 720]
    assert lite0 == lite2
    lite2.roi_head.bbox_head.reg_class_agnostic = True
    assert cascade.roi_head.bbox_head[0] == lite2.roi_head.bbox_head
    assert cascade.train_cfg.rcnn[0] == lite2.train_cfg.rcnn
    lite2.roi_head.update(
        type='CascadeRoIHead',
        num_stages=2,
        stage_loss_weights=[1.0, 0.5],
        bbox_head=cascade.roi_head.bbox_head,
    )
    lite2.train_cfg.rcnn = cascade.train_cfg.rcnn
    assert cascade == lite2


def test_metafile_is_the_zoo():
    (name,) = yaml.safe_load((ROOT / 'model-index.yml').read_text())['Import']
    metafile = yaml.safe_load((ROOT / name).read_text())
    models = {model['Alias']: model for model in metafile['Models']}
    assert models.keys() == model_zoo.MODELS.keys()
    for alias, model in model_zoo.MODELS.items():
        meta = models[alias]
        assert (meta['Config'], meta['Weights']) == (model.config, model.weights)
        assert meta['Name'] == Path(model.config).stem
        assert meta['Metadata']['License'] == model.license
        assert [result['Dataset'] for result in meta['Results']] == [one.on for one in model.scores]
        for result, scores in zip(meta['Results'], model.scores, strict=True):
            for score, value in result['Metrics'].items():
                expected = 100 * scores.values[score.removeprefix('mask ')]
                assert value == pytest.approx(expected, abs=0.05 + 1e-9)  # as rounded


def test_files_for_openvino_are_of_the_models_configs():
    for model in model_zoo.MODELS.values():
        runtime = (ROOT / model.weights).with_suffix('.openvino.zip')
        with zipfile.ZipFile(runtime) as archive:
            named = json.loads(archive.read('meta.json'))['config']
        assert named == Path(model.config).stem


def test_all_original_experiments_are_there():
    assert [
        (NAME.fullmatch(path.stem)['backbone'], int(NAME.fullmatch(path.stem)['number']))
        for path in VRDL
    ] == [(row[0], number) for number, row in TABLE.items()]


@each_original
def test_config_is_the_table(path):
    _, rois, anchors, iterations, size, _ = TABLE[int(NAME.fullmatch(path.stem)['number'])]
    cfg = load(path)
    generator = cfg.model.rpn_head.anchor_generator
    sizes = [generator.scales[0] * stride for stride in generator.strides]
    assert (min(sizes), max(sizes)) == anchors
    assert cfg.model.train_cfg.rcnn.sampler.num == rois
    assert cfg.train_cfg.max_iters == iterations
    for loader in (cfg.train_dataloader, cfg.test_dataloader):
        resize = [step for step in loader.dataset.pipeline if step['type'] == 'Resize']
        assert [(step['scale'], step['keep_ratio']) for step in resize] == [((1500, size), True)]


@each_original
def test_docstring_is_the_table(path):
    number = int(NAME.fullmatch(path.stem)['number'])
    _, rois, anchors, iterations, size, published = TABLE[number]
    said = DOCSTRING.fullmatch(ast.get_docstring(tree(path))).groups()
    assert [int(text.replace(',', '')) for text in said[:6]] == [
        number, rois, size, *anchors, iterations
    ]  # fmt: skip
    assert said[6:] == (f'configs/vrdl/{path.name}', str(published))


def test_readme_is_the_table():
    lines = (ROOT / 'configs/vrdl/README.md').read_text().splitlines()
    rows = [[cell.strip() for cell in line.strip('|').split('|')] for line in lines]
    rows = [row for row in rows if row[0].isdigit()]
    backbones = {'R-101': 'r101', 'X-101-32x8d': 'x101-32x8d'}
    read = {}
    for number, config, backbone, rois, anchors, iterations, size, published in rows:
        low, high = anchors.split(' to ')
        read[int(number)] = (
            backbones[backbone],
            int(rois),
            (int(low), int(high)),
            int(iterations.replace(',', '')),
            int(size.replace(',', '')),
            float(published),
        )
        name = f'mask-rcnn_{backbones[backbone]}_fpn_e{int(number):02}_vrdl.py'
        assert config == f'[e{int(number):02}]({name})'
    assert read == TABLE


@each_original
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


@each_original
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


@each_original
def test_originals_change_model_and_length_only(path):
    names = [node.targets[0].id for node in tree(path).body if isinstance(node, ast.Assign)]
    assert set(names) <= {'_base_', 'model', 'train_cfg'}
