"""What ``--cfg-options`` may set."""

import pytest

from nucseg_mmdet.commands import test, train
from nucseg_mmdet.engine import config_edits


@pytest.mark.parametrize('tool', [train, test])
@pytest.mark.parametrize(
    ('option', 'problem'),
    [
        ('batch_size=1', 'has no batch_size, expected a name that it has'),
        ('train_dataloder.batch_size=1', 'expected a name that it has, such as train_dataloader'),
        ('optim_wraper.clip_grad=None', 'expected a name that it has, such as optim_wrapper'),
        ('finetune.iterations=50', 'has no finetune, expected a name that it has'),
        ('cfg.resume=True', 'has no cfg, expected a name that it has'),
    ],
)
def test_names_that_nothing_reads_are_refused(tool, capsys, option, problem):
    assert tool.main(['dense-r18', '--cfg-options', option]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f'{tool.__name__.split(".")[-1]}: --cfg-options {option.split("=")[0]}')
    assert problem in error
    assert error.count('\n') == 1


@pytest.mark.parametrize('tool', [train, test])
@pytest.mark.parametrize('option', ['finetune.iteration', 'finetune', 'finetune.lr.x'])
def test_names_under_finetune_are_those_of_the_project(tool, capsys, option):
    assert tool.main(['finetune', '--cfg-options', f'{option}=50']) == 2
    names = 'finetune.model, finetune.iterations, finetune.lr, finetune.fold'
    assert f'--cfg-options {option}: expected one of {names}\n' in capsys.readouterr().err


def test_names_of_the_runner_and_of_registered_classes_pass():
    options = {
        'compile': True,
        'sync_bn': 'torch',
        'auto_scale_lr.base_batch_size': 8,
        'experiment_name': 'mine',
        'fold_colors': True,
        'model.backbone.with_cp': True,
        'optim_wrapper.accumulative_counts': 2,
        'train_dataloader.pin_memory': True,
        'finetune.lr': 1e-4,
        'first_stage': 'mine.pth',
    }
    cfg = config_edits.load_config('finetune', options, None)
    assert cfg.compile is True
    assert cfg.optim_wrapper.accumulative_counts == 2
    assert cfg.finetune.lr == 1e-4


@pytest.mark.parametrize('config', ['finetune', 'dense-r18'])
@pytest.mark.parametrize('key', ['dataloader.num_workers', 'evaluator.score_thr'])
def test_what_is_copied_from_the_test_is_set_there(capsys, config, key):
    assert train.main([config, '--cfg-options', f'val_{key}=0']) == 2
    error = capsys.readouterr().err
    assert error.startswith(f'train: --cfg-options val_{key}: ')
    assert error.endswith(f'where a fold is held out; expected test_{key}\n')
    assert error.count('\n') == 1


def test_a_config_with_a_validation_of_its_own_has_its_settings():
    options = {'val_dataloader.num_workers': 0}
    cfg = config_edits.load_config('mask-rcnn_r18_fpn_types_pannuke', options, None)
    assert cfg.val_dataloader.num_workers == 0
