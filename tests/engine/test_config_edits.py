"""What the tools change in a config, and what they leave."""

import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmdet.registry import METRICS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from pycocotools import mask as coco_mask

from nucseg_mmdet.commands import test, train
from nucseg_mmdet.engine import config_edits, data_edits, folds, model_zoo
from nucseg_mmdet.utils.errors import UserError

CONFIGS = Path(__file__).parents[2] / 'configs'


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


def test_every_fold_has_a_work_folder_of_its_own(tmp_path):
    path = tmp_path / 'some.py'
    path.write_text('model = dict()')
    assert config_edits.load_config(path, {}, None).work_dir == 'work_dirs/some'
    assert config_edits.load_config(path, {}, None, 2).work_dir == 'work_dirs/some_fold2'
    assert config_edits.load_config(path, {}, Path('mine'), 2).work_dir == 'mine'
    assert config_edits.load_config(path, dict(work_dir='mine'), None, 2).work_dir == 'mine'


def test_data_root_reaches_wrapped_sets_and_evaluators(cfg):
    config_edits.set_data_root(cfg, 'other/place')
    assert cfg.train_dataloader.dataset.dataset.data_root == 'other/place/'
    assert cfg.train_dataloader.dataset.dataset.ann_file == 'a/train.json'
    assert cfg.test_dataloader.dataset.data_root == 'other/place/'
    assert cfg.test_evaluator[0].ann_file == 'other/place/a/test.json'
    assert cfg.val_dataloader is None


@pytest.mark.parametrize('tool', [train, test])
def test_data_root_as_an_option_of_the_config_is_refused(tool, capsys, tmp_path):
    options = ['--data-root', str(tmp_path), '--cfg-options', 'data_root=some']
    assert tool.main(['dense-r18', *options]) == 2
    assert 'would move no data set, expected --data-root some' in capsys.readouterr().err


@pytest.mark.parametrize('tool', [train, test])
@pytest.mark.parametrize(
    ('option', 'meant'),
    [
        ('batch_size=1', 'batch_size, expected one of its names'),
        ('train_dataloadr.batch_size=1', 'train_dataloadr, expected train_dataloader\n'),
    ],
)
def test_an_option_that_nothing_reads_is_refused(tool, option, meant, capsys):
    assert tool.main(['dense-r18', '--cfg-options', option]) == 2
    assert f'.py has no {meant}' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('config', 'option', 'meant'),
    [
        ('dense-r18', 'ema.momentum', 'custom_hooks.5.momentum'),  # as it is
        ('dense-lite2', 'ema.momentum', 'custom_hooks.6.momentum'),  # with an argument more
        ('dense-lite2', 'warm_up.end', 'param_scheduler.0.end'),  # with another value
        ('dense-lite2', 'decay.eta_min', 'param_scheduler.1.eta_min'),
        (
            'dense-lite2',
            'enlarge_test.scale_factor',
            'test_dataloader.dataset.pipeline.2.scale_factor',
        ),
        ('dense-r18', 'test_rcnn.max_per_img', 'model.test_cfg.rcnn.max_per_img'),
        ('finetune', 'finetune.iteration', 'finetune.model, finetune.iterations, '),
        ('finetune', 'finetune', 'finetune.model, finetune.iterations, '),
        ('dense-r18', 'finetune.lr', 'one of its names'),
    ],
)
def test_an_option_of_a_part_that_is_built_already_is_refused(config, option, meant):
    with pytest.raises(UserError, match=f'{option}: .*expected .*{re.escape(meant)}'):
        config_edits.load_config(config, {option: 1}, None)


@pytest.mark.parametrize(
    ('option', 'value', 'expected'),
    [
        ('train_dataloader.batch_size', 0, 'a number from 1 on'),
        ('train_dataloader.batch_size', 2.0, 'a number from 1 on'),
        ('test_dataloader.num_workers', -1, 'a number from 0 on'),
        ('train_cfg.max_iters', -1, 'a number from 1 on'),
        ('train_cfg.max_iters', 'abc', 'a number from 1 on'),
        ('train_cfg.val_interval', 0, 'a number from 1 on'),
        ('default_hooks.checkpoint.interval', 2.5, 'a number from 1 on'),
        ('param_scheduler.1.end', 'abc', 'a number from 0 on'),
        ('optim_wrapper.optimizer.lr', -1, 'a number above 0'),
        ('optim_wrapper.optimizer.lr', 'abc', 'a number above 0'),
        ('optim_wrapper.optimizer.lr', float('nan'), 'a number above 0'),
    ],
)
def test_a_number_that_the_run_would_meet_late_is_refused(option, value, expected):
    with pytest.raises(UserError, match=f'{option} is {value!r}, expected {expected}'):
        config_edits.load_config('dense-r18', {option: value}, None)


def test_a_number_of_a_users_own_hook_and_a_whole_float_are_taken():
    options = {'dataset_type': 'Other', 'train_cfg.max_iters': 2e4}
    assert config_edits.load_config('dense-lite2', options, None).dataset_type == 'Other'


def test_a_training_may_keep_no_checkpoints():
    config_edits.load_config('dense-r18', {'default_hooks.checkpoint.interval': -1}, None)


def test_configs_that_lack_parts(tmp_path):
    """As they come from elsewhere: without ``custom_hooks``, which a Runner does not need."""
    path = tmp_path / 'some.py'
    path.write_text('model = dict(type="MaskRCNN")\n')
    cfg = config_edits.load_config(path, {}, None)
    assert cfg.custom_hooks == []
    with pytest.raises(UserError, match=r'some\.py: has no data_root, expected one'):
        config_edits.set_data_root(cfg, tmp_path)
    with pytest.raises(UserError, match=r'some\.py: --fold 1 without train_dataloader, expected'):
        folds.hold_out_fold(cfg, 1)


def test_validation_of_a_fold_is_set_by_the_test(capsys):
    assert train.main(['dense-r18', '--cfg-options', 'val_dataloader.num_workers=0']) == 2
    assert 'of the test, expected test_dataloader.num_workers\n' in capsys.readouterr().err


@pytest.mark.parametrize(
    'option', [dict(resume=True), dict(compile=True), {'randomness.seed': 3}, {'fold_colors': True}]
)
def test_options_of_names_that_a_config_leaves_out_are_taken(option):
    cfg = config_edits.load_config('mask-rcnn_r101_fpn_e01_vrdl', option, None)
    ((name, value),) = option.items()
    for part in name.split('.'):
        cfg = cfg[part]
    assert cfg == value


def test_empty_crops_are_kept_also_inside_of_other_steps():
    """The crops of the dense recipe are inside of ``RandomChoice``."""
    cfg = config_edits.load_config(CONFIGS / 'dense/ablations/lite2-sharpness.py', {}, None)
    config_edits.keep_empty_images(cfg)
    _, _, choice, *others = cfg.train_dataloader.dataset.pipeline
    assert [step.allow_negative_crop for (step,) in choice.transforms] == [True] * 5
    assert not next(step for step in others if step.type == 'FilterAnnotations').keep_empty
    assert not cfg.train_dataloader.dataset.filter_cfg.filter_empty_gt


def test_fold_is_held_out(cfg):
    cfg.train_dataloader.dataset = cfg.train_dataloader.dataset.dataset
    with pytest.raises(UserError, match=r'a/train\.json, expected annotations/train\.json'):
        folds.hold_out_fold(cfg, 2)
    cfg.train_dataloader.dataset.ann_file = 'annotations/train.json'
    cfg.test_evaluator = dict(type='NucleiMetric', ann_file='data/x/a/test.json')
    folds.hold_out_fold(cfg, 2)
    assert cfg.train_dataloader.dataset.ann_file == 'annotations/fold2_train.json'
    assert cfg.val_dataloader.dataset.ann_file == 'annotations/fold2_val.json'
    assert cfg.val_dataloader.dataset.data_prefix == dict(img='train/')
    assert cfg.val_evaluator.ann_file == 'data/x/annotations/fold2_val.json'
    assert cfg.val_cfg == dict(type='ValLoop')
    assert cfg.default_hooks.checkpoint.save_best == 'nuclei/PQ'


def test_best_checkpoint_is_by_a_score_that_the_config_has(tmp_path):
    """The shipped config of several classes, its evaluator at work on one nucleus."""
    cfg = Config.fromfile(CONFIGS / 'pannuke/mask-rcnn_r18_fpn_types_pannuke.py')
    config_edits.set_data_root(cfg, tmp_path)
    folds.hold_out_fold(cfg, 2)
    classes = cfg.metainfo.classes
    square = np.zeros((8, 8), np.uint8, order='F')
    square[2:6, 2:6] = 1
    rle = coco_mask.encode(square)
    text = dict(rle, counts=rle['counts'].decode())
    truth = dict(
        images=[dict(id=1, file_name='a.png', height=8, width=8)],
        annotations=[
            dict(id=1, image_id=1, category_id=2, iscrowd=0, area=16, bbox=[2, 2, 4, 4],
                 segmentation=text)
        ],
        categories=[dict(id=number, name=name) for number, name in enumerate(classes, 1)],
    )  # fmt: skip
    (tmp_path / 'annotations').mkdir()
    (tmp_path / 'annotations/fold2_val.json').write_text(json.dumps(truth))
    init_default_scope('mmdet')
    metric = METRICS.build(cfg.val_evaluator)
    metric.dataset_meta = dict(classes=classes)
    found = dict(
        bboxes=torch.tensor([[2.0, 2, 6, 6]]),
        scores=torch.tensor([0.9]),
        labels=torch.tensor([1]),
        masks=[rle],
    )
    metric.process({}, [dict(img_id=1, ori_shape=(8, 8), pred_instances=found)])
    assert metric.evaluate(1)[cfg.default_hooks.checkpoint.save_best] == 1.0


def test_from_scratch_frees_the_backbone(cfg):
    config_edits.set_initial_weights(cfg, 'none')
    assert cfg.model.backbone == dict(
        frozen_stages=-1,
        norm_eval=False,
        norm_cfg=dict(type='BN', requires_grad=True),
        init_cfg=None,
    )


def test_complete_model_needs_no_initial_weights(cfg):
    config_edits.set_initial_weights(cfg, None, complete=True)
    assert cfg.model.backbone.init_cfg is None
    assert cfg.model.backbone.frozen_stages == 1


@pytest.mark.parametrize('prefix', ['', 'backbone.'])
def test_file_of_a_backbone_or_a_detector(cfg, tmp_path, prefix):
    path = tmp_path / 'a.pth'
    torch.save(dict(state_dict={f'{prefix}conv1.weight': torch.ones(1)}), path)
    config_edits.set_initial_weights(cfg, str(path))
    assert cfg.model.backbone.init_cfg == dict(
        type='Pretrained', checkpoint=str(path), prefix=prefix or None
    )


def test_file_of_an_efficientnet(cfg, tmp_path):
    cfg.model.backbone = dict(type='EfficientNetLite')
    path = tmp_path / 'a.pth'
    torch.save({'_conv_stem.weight': torch.ones(1)}, path)
    config_edits.set_initial_weights(cfg, str(path))
    assert cfg.model.backbone.init_cfg.checkpoint == str(path)
    torch.save({'conv1.weight': torch.ones(1)}, path)
    with pytest.raises(UserError, match='no weights of EfficientNetLite'):
        config_edits.set_initial_weights(cfg, str(path))


def test_file_without_a_backbone(cfg, tmp_path):
    torch.save(dict(weight=torch.ones(1)), tmp_path / 'a.pth')
    with pytest.raises(UserError, match='no weights of ResNet'):
        config_edits.set_initial_weights(cfg, str(tmp_path / 'a.pth'))


def test_cached_weights_are_taken(cfg, tmp_path, monkeypatch):
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    cfg.model.backbone.init_cfg.checkpoint = 'open-mmlab://detectron2/resnet101_caffe'
    with pytest.raises(UserError, match='not on this machine'):
        config_edits.set_initial_weights(cfg, None)
    cached = tmp_path / 'hub/checkpoints/resnet101_msra-6cc46731.pth'
    cached.parent.mkdir(parents=True)
    cached.touch()
    config_edits.set_initial_weights(cfg, None)
    assert cfg.model.backbone.init_cfg.checkpoint == 'open-mmlab://detectron2/resnet101_caffe'


def test_file_of_detectron2_is_local(cfg, tmp_path):
    cfg.model.backbone.init_cfg.checkpoint = f'detectron2://{tmp_path}/R-101.pkl'
    with pytest.raises(UserError, match='not on this machine'):
        config_edits.set_initial_weights(cfg, None)
    (tmp_path / 'R-101.pkl').touch()
    config_edits.set_initial_weights(cfg, None)


def test_no_workers_cannot_persist():
    options = {f'{part}_dataloader.num_workers': 0 for part in ('train', 'test')}
    cfg = config_edits.load_config('finetune', options, None)
    for loader in (cfg.train_dataloader, cfg.test_dataloader):
        assert not loader.persistent_workers
        assert 'prefetch_factor' not in loader
    assert config_edits.load_config('finetune', {}, None).train_dataloader.persistent_workers


@pytest.mark.parametrize('value', [0, -1, 2.5, 'abc', None, True])
@pytest.mark.parametrize('part', ['train', 'test'])
def test_odd_batch_sizes_are_refused_before_the_data_is_read(part, value):
    options = {f'{part}_dataloader.batch_size': value}
    problem = f'{part}_dataloader.batch_size is {value!r}, expected a number from 1 on'
    with pytest.raises(UserError, match=problem):
        config_edits.load_config('finetune', options, None)


def test_odd_numbers_of_workers_are_refused(capsys):
    options = ['--cfg-options', 'test_dataloader.num_workers=-1']
    assert train.main(['dense-r18', *options]) == 2
    problem = 'test_dataloader.num_workers is -1, expected a number from 0 on\n'
    assert capsys.readouterr().err.endswith(problem)


class TestTruthOffset:
    """The offset is where the truth of the class data lies, and no other."""

    @pytest.fixture
    def data(self, tmp_path):
        cv2.imwrite(str(tmp_path / 'a.png'), np.zeros((40, 50, 3), np.uint8))
        box = [10, 10, 9, 9]
        nucleus = dict(id=1, image_id=1, category_id=1, bbox=box, area=81, iscrowd=0)
        nucleus['segmentation'] = [[10, 10, 19, 10, 19, 19, 10, 19]]
        truth = dict(
            images=[dict(id=1, file_name='a.png', width=50, height=40)],
            annotations=[nucleus],
            categories=[dict(id=1, name='nucleus')],
        )
        (tmp_path / 'truth.json').write_text(json.dumps(truth))
        return ['--annotations', str(tmp_path / 'truth.json'), '--work-dir', str(tmp_path)]

    @pytest.mark.parametrize(
        ('options', 'offset', 'said'),
        [
            ([], None, True),
            (['--format-only'], (-0.4, -0.6), False),
            (['--cfg-options', 'model.test_cfg.rcnn.truth_offset=1,2'], [1, 2], False),
        ],
    )
    def test_other_data(self, data, capsys, options, offset, said):
        args = test.parse_args(['dense-r18', *data, *options])
        cfg = config_edits.load_config(
            model_zoo.find_config(args.config), args.cfg_options, args.work_dir, None
        )
        test.choose_data(cfg, args)
        assert cfg.model.test_cfg.rcnn.get('truth_offset') == offset
        assert ('truth_offset=-0.4,-0.6' in capsys.readouterr().out) == said

    @pytest.mark.parametrize(
        'value', ['nan,nan', 'inf,0', '1e9,1e9', '0.5', '1,2,3', 'True,False', 'x', 'x,y']
    )
    def test_an_odd_offset_is_refused(self, data, capsys, value):
        option = f'model.test_cfg.rcnn.truth_offset={value}'
        assert test.main(['dense-r18', *data, '--cfg-options', option]) == 2
        problem = capsys.readouterr().err
        assert 'truth_offset is ' in problem
        assert problem.endswith('expected x,y of at most 100 px\n')

    def test_a_refused_checkpoint_leaves_no_file_of_the_truth(self, data, capsys, tmp_path):
        truth = json.loads((tmp_path / 'truth.json').read_text())
        truth['categories'].append(dict(id=2, name='other'))
        (tmp_path / 'truth.json').write_text(json.dumps(truth))
        before = sorted(tmp_path.iterdir())
        none = tmp_path / 'none.pth'
        assert test.main(['dense-r18', str(none), *data]) == 2
        assert str(none) in capsys.readouterr().err
        assert test.main(['dense-r18', *data, '--with', 'dense-lite0', str(none)]) == 2
        assert str(none) in capsys.readouterr().err
        assert sorted(tmp_path.iterdir()) == before
        args = test.parse_args(['dense-r18', *data])
        cfg = config_edits.load_config(model_zoo.find_config('dense-r18'), {}, tmp_path)
        test.choose_data(cfg, args)  # which writes one
        assert (tmp_path / 'truth_read.json').exists()

    def test_a_missing_image_is_told_before_a_file_is_written(self, data, capsys, tmp_path):
        truth = json.loads((tmp_path / 'truth.json').read_text())
        truth['images'][0]['id'] = '1'  # as text: what is read goes to a file
        (tmp_path / 'truth.json').write_text(json.dumps(truth))
        (tmp_path / 'a.png').unlink()
        before = sorted(tmp_path.iterdir())
        assert test.main(['dense-r18', *data]) == 2
        assert sorted(tmp_path.iterdir()) == before
        assert capsys.readouterr().err == (
            f'test: {tmp_path}/a.png: no such image, expected it as listed in '
            f'{tmp_path}/truth.json\n'
        )

    def test_models_without_roi_heads_have_none(self):
        cfg = Config(dict(data_root='data/vrdl/', model=dict(test_cfg=dict(nms_pre=100))))
        assert data_edits.notes_on_offset(cfg, Path('mine'), {}) == []
        assert data_edits.leave_out_truth_offset(cfg) is None

    def test_none_is_no_offset(self):
        options = {'model.test_cfg.rcnn.truth_offset': None}
        cfg = config_edits.load_config(model_zoo.find_config('dense-r18'), options, None)
        assert 'truth_offset' not in cfg.model.test_cfg.rcnn

    def test_the_folds(self, capsys):
        option = 'model.test_cfg.rcnn.truth_offset=-0.4,-0.6'
        for root, more in ('data/vrdl', []), ('mine', ['--cfg-options', option]), ('mine', []):
            args = test.parse_args(['dense-r18', '--fold', '1', '--data-root', root, *more])
            path = model_zoo.find_config(args.config)
            cfg = config_edits.load_config(path, args.cfg_options, None, 1)
            test.choose_data(cfg, args)
            assert tuple(cfg.model.test_cfg.rcnn.truth_offset) == (-0.4, -0.6)
            said = 'nuclei are moved by (-0.4, -0.6) px' in capsys.readouterr().out
            assert said == (root == 'mine' and not more)


@pytest.mark.parametrize(
    ('scored', 'said'),
    [
        (None, False),
        (dict(data_sha256=None), False),
        (dict(data_sha256='the same'), False),
        (dict(data_sha256='another'), True),
        ('odd', False),
    ],
)
def test_results_of_other_data_are_not_replaced_silently(
    cfg, tmp_path, capsys, monkeypatch, scored, said
):
    monkeypatch.setattr(test, 'digest_dataloader', lambda loader: 'the same')
    (tmp_path / 'run_card.json').write_text(json.dumps(dict(scores={'train.json': scored})))
    cfg.work_dir = str(tmp_path)
    test.tell_of_other_data(cfg, 'train.json')
    assert ('other data called train.json are replaced' in capsys.readouterr().out) == said
