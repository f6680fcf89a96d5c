"""What the tools change in a config, and what they leave."""

import pytest
import torch
from mmengine.config import Config

from nucseg_mmdet import run_config
from nucseg_mmdet.errors import UserError


@pytest.fixture
def cfg():
    def dataset(name):
        return dict(data_root='data/x/', ann_file=name, data_prefix=dict(img='train/'))

    return Config(
        dict(
            data_root='data/x/',
            model=dict(
                backbone=dict(
                    frozen_stages=1,
                    norm_eval=True,
                    norm_cfg=dict(type='BN', requires_grad=False),
                    init_cfg=dict(type='Pretrained', checkpoint='open-mmlab://some'),
                )
            ),
            train_dataloader=dict(dataset=dict(type='Wrapper', dataset=dataset('a/train.json'))),
            val_dataloader=None,
            test_dataloader=dict(dataset=dataset('a/test.json')),
            test_evaluator=[dict(type='M', ann_file='data/x/a/test.json'), dict(type='N')],
            default_hooks=dict(checkpoint=dict(type='CheckpointHook')),
        )
    )


def test_data_root_reaches_wrapped_sets_and_evaluators(cfg):
    run_config.set_data_root(cfg, 'other/place')
    assert cfg.train_dataloader.dataset.dataset.data_root == 'other/place/'
    assert cfg.train_dataloader.dataset.dataset.ann_file == 'a/train.json'
    assert cfg.test_dataloader.dataset.data_root == 'other/place/'
    assert cfg.test_evaluator[0].ann_file == 'other/place/a/test.json'
    assert cfg.val_dataloader is None


def test_fold_is_held_out(cfg):
    cfg.train_dataloader.dataset = cfg.train_dataloader.dataset.dataset
    cfg.test_evaluator = cfg.test_evaluator[0]
    run_config.hold_out_fold(cfg, 2)
    assert cfg.train_dataloader.dataset.ann_file == 'annotations/fold2_train.json'
    assert cfg.val_dataloader.dataset.ann_file == 'annotations/fold2_val.json'
    assert cfg.val_dataloader.dataset.data_prefix == dict(img='train/')
    assert cfg.val_evaluator.ann_file == 'data/x/annotations/fold2_val.json'
    assert cfg.val_cfg == dict(type='ValLoop')
    assert cfg.default_hooks.checkpoint.save_best == 'nuclei/PQ'


def test_from_scratch_frees_the_backbone(cfg):
    run_config.set_initial_weights(cfg, 'none')
    assert cfg.model.backbone == dict(
        frozen_stages=-1,
        norm_eval=False,
        norm_cfg=dict(type='BN', requires_grad=True),
        init_cfg=None,
    )


def test_complete_model_needs_no_initial_weights(cfg):
    run_config.set_initial_weights(cfg, None, complete=True)
    assert cfg.model.backbone.init_cfg is None
    assert cfg.model.backbone.frozen_stages == 1


@pytest.mark.parametrize('prefix', ['', 'backbone.'])
def test_file_of_a_backbone_or_a_detector(cfg, tmp_path, prefix):
    path = tmp_path / 'a.pth'
    torch.save(dict(state_dict={f'{prefix}conv1.weight': torch.ones(1)}), path)
    run_config.set_initial_weights(cfg, str(path))
    assert cfg.model.backbone.init_cfg == dict(
        type='Pretrained', checkpoint=str(path), prefix=prefix or None
    )


def test_file_without_a_backbone(cfg, tmp_path):
    torch.save(dict(weight=torch.ones(1)), tmp_path / 'a.pth')
    with pytest.raises(UserError, match='no weights of a ResNet'):
        run_config.set_initial_weights(cfg, str(tmp_path / 'a.pth'))


def test_cached_weights_are_taken(cfg, tmp_path, monkeypatch):
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    cfg.model.backbone.init_cfg.checkpoint = 'open-mmlab://detectron2/resnet101_caffe'
    with pytest.raises(UserError, match='not on this machine'):
        run_config.set_initial_weights(cfg, None)
    cached = tmp_path / 'hub/checkpoints/resnet101_msra-6cc46731.pth'
    cached.parent.mkdir(parents=True)
    cached.touch()
    run_config.set_initial_weights(cfg, None)
    assert cfg.model.backbone.init_cfg.checkpoint == 'open-mmlab://detectron2/resnet101_caffe'
