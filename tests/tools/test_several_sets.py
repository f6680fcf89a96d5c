"""Training on several data sets at once: what a fold takes, the run card, the browser of data."""

import json
import shutil

import pytest
from mmengine.config import Config, ConfigDict

from nucseg_mmdet.commands import train
from nucseg_mmdet.engine import config_edits, folds
from nucseg_mmdet.engine.config_parts import find_datasets
from nucseg_mmdet.engine.fold_colors import use_training_colors
from nucseg_mmdet.engine.types_of_nuclei import set_types
from nucseg_mmdet.utils.errors import UserError
from tests.tools.test_tools import CONFIG, TINY
from tools.analysis_tools import browse_data

SEVERAL = """
_base_ = {demo!r}
own = dict(_base_.train_dataloader.dataset)
other = dict(own, data_root={other!r})
train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='ConcatDataset',
        datasets=[dict(type='RepeatDataset', times=3, dataset=own), other],
    )
)
"""


@pytest.fixture
def other_root(data_root, tmp_path):
    """Other data: the same images, of which the annotations have the first two."""
    shutil.copytree(data_root, tmp_path / 'other')
    path = tmp_path / 'other/annotations/train.json'
    truth = json.loads(path.read_text())
    truth['images'] = truth['images'][:2]
    ids = {image['id'] for image in truth['images']}
    truth['annotations'] = [each for each in truth['annotations'] if each['image_id'] in ids]
    path.write_text(json.dumps(truth))
    return tmp_path / 'other'


@pytest.fixture
def config(other_root, tmp_path):
    path = tmp_path / 'several.py'
    path.write_text(SEVERAL.format(demo=CONFIG, other=f'{other_root}/'))
    return path


@pytest.fixture
def cfg(config, data_root):
    cfg = Config.fromfile(config)
    config_edits.set_data_root(cfg, data_root)
    return cfg


def test_a_fold_is_held_out_of_the_own_data_alone(cfg, other_root, data_root):
    folds.hold_out_fold(cfg, 1)
    own, other = find_datasets(cfg.train_dataloader)
    assert (own.data_root, own.ann_file) == (f'{data_root}/', 'annotations/fold1_train.json')
    assert (other.data_root, other.ann_file) == (f'{other_root}/', 'annotations/train.json')
    assert cfg.val_dataloader.dataset.data_root == f'{data_root}/'


def test_a_set_of_the_own_folder_has_folds_however_its_path_is_written(cfg, data_root):
    _, other = find_datasets(cfg.train_dataloader)
    other.data_root = f'{data_root}/../{data_root.name}'
    folds.hold_out_fold(cfg, 1)
    assert other.ann_file == 'annotations/fold1_train.json'


def test_no_set_with_folds_is_refused(cfg, tmp_path):
    find_datasets(cfg.train_dataloader)[0].data_root = str(tmp_path / 'elsewhere')
    with pytest.raises(UserError, match='no training set has data_root'):
        folds.hold_out_fold(cfg, 1)


def test_annotations_besides_are_refused(cfg, data_root):
    own, other = find_datasets(cfg.train_dataloader)
    other.update(data_root=own.data_root, ann_file='annotations/extra.json')
    with pytest.raises(UserError, match=r'extra\.json, expected annotations/train\.json'):
        folds.hold_out_fold(cfg, 1)


def test_held_out_images_are_not_trained_on(config, data_root, tmp_path, capsys):
    """The images of the other set are the own ones, by way of a link."""
    shutil.rmtree(tmp_path / 'other/train')
    (tmp_path / 'other/train').symlink_to(data_root / 'train')
    fold = json.loads((data_root / 'annotations/fold1_val.json').read_text())
    (tmp_path / 'other/annotations/train.json').write_text(json.dumps(fold))
    arguments = [config, '--fold', 1, '--data-root', data_root, '--work-dir', tmp_path / 'work']
    assert train.main([*map(str, arguments), '--cfg-options', *TINY]) == 2
    problem = capsys.readouterr().err
    assert problem.startswith(f'train: {data_root}/train/')
    assert 'is held out and in the training' in problem
    assert not (tmp_path / 'work').exists()


def test_colors_are_those_of_the_own_data(cfg, data_root):
    """The other images are not even looked at: here they are gone."""
    folds.hold_out_fold(cfg, 1)
    own, other = find_datasets(cfg.train_dataloader)
    other.data_root = 'gone/'
    for dataset in (own, other):
        dataset.pipeline = [ConfigDict(type='ReinhardNormalize')]
    use_training_colors(cfg)
    assert own.pipeline[0].target == other.pipeline[0].target
    pipeline = [ConfigDict(type='ReinhardNormalize')]
    alone = Config(dict(train_dataloader=dict(dataset=dict(own, pipeline=pipeline))))
    use_training_colors(alone)
    assert alone.train_dataloader.dataset.pipeline[0].target == own.pipeline[0].target


def test_every_set_gets_the_types(cfg):
    set_types(cfg, ['tumor', 'other'])
    for dataset in find_datasets(cfg.train_dataloader):
        assert dataset.metainfo.classes == ('tumor', 'other')


def test_training_and_its_card(config, data_root, tmp_path):
    arguments = [config, '--fold', 1, '--data-root', data_root, '--work-dir', tmp_path / 'work']
    options = [*TINY, 'train_cfg.max_iters=1', 'param_scheduler=[]']
    assert train.main([*map(str, arguments), '--cfg-options', *options]) == 0
    card = json.loads((tmp_path / 'work/run_card.json').read_text())
    fold = json.loads((data_root / 'annotations/fold1_train.json').read_text())
    assert card['annotations'] == 'data/fold1_train.json + other/train.json'
    assert card['images'] == len(fold['images']) + 2
    assert 'nuclei/PQ' in card['scores']['fold1_val.json']


def test_a_set_without_nuclei_is_told_of(config, other_root, data_root, tmp_path, capsys):
    path = other_root / 'annotations/train.json'
    path.write_text(json.dumps(dict(json.loads(path.read_text()), annotations=[])))
    arguments = [config, '--data-root', data_root, '--work-dir', tmp_path / 'work']
    options = ['--cfg-options', *TINY, 'train_cfg.max_iters=1', 'param_scheduler=[]']
    assert train.main([*map(str, arguments), *options]) == 2
    assert f'{path}: none of 2 images has a nucleus' in capsys.readouterr().err
    assert train.main([*map(str, arguments), '--keep-empty', *options]) == 0


def test_a_test_of_several_sets_is_refused(config, data_root, tmp_path, capsys):
    config.write_text(config.read_text() + 'test_dataloader = train_dataloader\n')
    assert train.main([str(config), '--fold', '1', '--data-root', str(data_root)]) == 2
    assert 'test_dataloader has a ConcatDataset, expected one' in capsys.readouterr().err


def test_images_made_of_several_are_not_shown(config, data_root, tmp_path, capsys):
    config.write_text(
        config.read_text()
        + "mixed = dict(type='MultiImageMixDataset', dataset=own, pipeline=[])\n"
        + 'train_dataloader = dict(dataset=dict(_delete_=True, **mixed))\n'
    )
    arguments = [str(config), '--data-root', str(data_root), '--out', str(tmp_path / 'out')]
    assert browse_data.main(arguments) == 2
    assert 'MultiImageMixDataset makes images of several' in capsys.readouterr().err


def test_data_is_looked_at_once_each(config, data_root, tmp_path, capsys):
    arguments = [str(config), '--data-root', str(data_root), '--out', str(tmp_path / 'out')]
    number = len(json.loads((data_root / 'annotations/train.json').read_text())['images'])
    assert browse_data.main(arguments) == 0
    assert len(list((tmp_path / 'out').rglob('*.png'))) == number + 2
    assert browse_data.main([*arguments, '--stats']) == 0
    assert f'{number + 2} images' in capsys.readouterr().out
