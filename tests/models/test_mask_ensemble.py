"""Several models as one: equal ones change nothing, different ones are averaged."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.registry import init_default_scope

from nucseg_mmdet.commands.test import main

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / 'configs/dense/ablations/first-recipe.py'
LITE0 = CONFIG.parent / 'lite0.py'
SIZE = 96  # px, three times the divisor that images are padded to
FEW = [
    *('model.test_cfg.rpn.nms_pre=20', 'model.test_cfg.rcnn.score_thr=0.0'),
    *(f'model.test_cfg.{stage}.max_per_img=20' for stage in ('rpn', 'rcnn')),
]


@pytest.fixture
def ensemble():
    init_default_scope('mmdet')
    cfg = Config.fromfile(CONFIG)
    cfg.model.test_cfg.rcnn.update(score_thr=0.0, max_per_img=30)
    cfg.model.test_cfg.rpn.update(nms_pre=100, max_per_img=100)
    torch.manual_seed(0)
    model = MODELS.build(
        dict(type='MaskEnsembleModel', others=[cfg.model], module=cfg.model)
    ).eval()
    randomize(model.module)
    model.others[0].load_state_dict(model.module.state_dict())
    return model


def randomize(model):
    # Random weights of the usual size give every box the same score.
    torch.nn.init.normal_(model.roi_head.bbox_head.fc_cls.weight, std=0.5)
    torch.nn.init.normal_(model.roi_head.mask_head.conv_logits.weight, std=0.5)


def predict(model):
    img = np.random.default_rng(0).integers(0, 256, (3, SIZE, SIZE), np.uint8)
    meta = dict(
        ori_shape=(SIZE, SIZE),
        img_shape=(SIZE, SIZE),
        scale_factor=(1.0, 1.0),
        orientation=(False, 0),
    )
    samples = [[DetDataSample(metainfo=meta)]]
    with torch.no_grad():
        (sample,) = model.test_step(dict(inputs=[[torch.from_numpy(img)]], data_samples=samples))
    return sample.pred_instances


def test_equal_models_are_one(ensemble):
    together = predict(ensemble)
    ensemble.others = torch.nn.ModuleList()
    alone = predict(ensemble)
    torch.testing.assert_close(together.scores, alone.scores, rtol=0, atol=1e-6)
    torch.testing.assert_close(together.bboxes, alone.bboxes, rtol=0, atol=1e-3)


def test_a_model_that_finds_nothing_halves_the_scores(ensemble):
    other = ensemble.others[0].roi_head.bbox_head.fc_cls
    torch.nn.init.zeros_(other.weight)
    with torch.no_grad():
        other.bias.copy_(torch.tensor([-50.0, 50.0]))  # nucleus, background
    together = predict(ensemble)
    ensemble.others = torch.nn.ModuleList()
    alone = predict(ensemble)
    torch.testing.assert_close(together.scores[:5], alone.scores[:5] / 2, rtol=0, atol=1e-6)


@pytest.mark.parametrize('tta', [[], ['--tta']])
def test_the_tool_takes_several_checkpoints(ensemble, data_root, tmp_path, tta):
    paths = [str(tmp_path / f'{number}.pth') for number in range(2)]
    for path in paths:
        torch.save(dict(state_dict=ensemble.module.state_dict()), path)
        randomize(ensemble.module)
    out = tmp_path / 'answer.json'
    options = ['--format-only', *tta, '--precision', 'bf16', '--data-root', str(data_root)]
    options += ['--work-dir', str(tmp_path / 'work'), '--answer', str(out), '--cfg-options', *FEW]
    assert main([str(CONFIG), *paths, *options]) == 0
    assert {result['image_id'] for result in json.loads(out.read_text())} == set(range(1, 7))


def test_weights_of_a_distributed_model_are_taken(ensemble, data_root, tmp_path):
    path, weights = tmp_path / 'distributed.pth', ensemble.module.state_dict()
    torch.save({f'module.{key}': value for key, value in weights.items()}, path)
    options = ['--format-only', '--data-root', str(data_root), '--work-dir', str(tmp_path / 'work')]
    assert main([str(CONFIG), str(path), str(path), *options, '--cfg-options', *FEW]) == 0


@pytest.mark.parametrize('tested', [['good', 'other'], ['other']])
def test_weights_without_class_layers_are_refused(ensemble, data_root, tmp_path, capsys, tested):
    """Those of a Detectron2 file for other classes, beside a model that has them or alone."""
    good, weights = tmp_path / 'good.pth', ensemble.module.state_dict()
    torch.save(dict(state_dict=weights), good)
    layers = ('roi_head.bbox_head.fc_', 'roi_head.mask_head.conv_logits')
    dropped = [key for key in weights if key.startswith(layers)]
    kept = {key: value for key, value in weights.items() if key not in dropped}
    other = tmp_path / 'other.pth'
    torch.save(dict(state_dict=kept, meta=dict(dropped=dropped)), other)
    options = ['--format-only', '--data-root', str(data_root), '--work-dir', str(tmp_path / 'work')]
    paths = [str(tmp_path / f'{name}.pth') for name in tested]
    assert main([str(CONFIG), *paths, *options, '--cfg-options', *FEW]) == 2
    assert 'other.pth: has no class layers for this config' in capsys.readouterr().err


def test_models_of_two_configs_are_averaged(data_root, tmp_path):
    """With a model that finds nothing all scores are half of what they were."""
    config = Config.fromfile(LITE0)
    config.model.backbone.init_cfg = None
    init_default_scope('mmdet')
    other = MODELS.build(config.model)
    torch.nn.init.zeros_(other.roi_head.bbox_head.fc_cls.weight)
    with torch.no_grad():
        other.roi_head.bbox_head.fc_cls.bias.copy_(torch.tensor([-50.0, 50.0]))
    torch.save(dict(state_dict=other.state_dict()), tmp_path / 'other.pth')

    def highest(out, *beside):
        options = ['--with', *map(str, beside), '--format-only', '--data-root', str(data_root)]
        options += ['--work-dir', str(tmp_path / 'work'), '--answer', str(out)]
        assert main(['dense-r18', *options, '--cfg-options', *FEW]) == 0
        return max(result['score'] for result in json.loads(out.read_text()))

    alone = highest(tmp_path / 'alone.json', 'dense-r18')
    together = highest(tmp_path / 'together.json', LITE0, tmp_path / 'other.pth')
    assert together == pytest.approx(alone / 2, abs=1e-5)


def test_colors_of_a_fold_do_not_part_the_models(data_root, tmp_path):
    """They come into the pipeline of the first model, which all models see."""
    weights = ROOT / 'models/mask-rcnn_lite0_fpn_dense_nuclei.pth'
    options = ['--with', 'dense-r18', '--fold', '1', '--data-root', str(data_root)]
    options += ['--work-dir', str(tmp_path), '--cfg-options', *FEW]
    assert main(['mask-rcnn_lite0_fpn_dense_nuclei', str(weights), *options]) == 0


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('test_dataloader.dataset.pipeline.1.scale_factor=3.0', 'its pipeline is ['),
        ('model.roi_head.mask_roi_extractor.roi_layer.output_size=7', 'its size of masks is 7'),
    ],
)
def test_a_model_that_does_not_go_with_the_first_is_refused(
    text, message, data_root, tmp_path, capsys
):
    key, value = text.split('=')
    other = Config.fromfile(CONFIG)
    other.merge_from_dict({key: float(value)})
    other.dump(tmp_path / 'other.py')
    checkpoint = tmp_path / 'a.pth'
    checkpoint.touch()
    options = ['--with', str(tmp_path / 'other.py'), str(checkpoint), '--format-only']
    options += ['--data-root', str(data_root), '--work-dir', str(tmp_path / 'work')]
    assert main([str(CONFIG), str(checkpoint), *options]) == 2
    assert message in capsys.readouterr().err


def test_a_checkpoint_of_another_model_is_refused(ensemble, data_root, tmp_path, capsys):
    good, other = tmp_path / 'good.pth', tmp_path / 'other.pth'
    torch.save(dict(state_dict=ensemble.module.state_dict()), good)
    torch.save(dict(state_dict=dict(weight=torch.ones(1))), other)
    options = ['--format-only', '--data-root', str(data_root), '--work-dir', str(tmp_path / 'work')]
    assert main([str(CONFIG), str(good), str(other), *options]) == 2
    assert 'other.pth' in capsys.readouterr().err
