"""Hooks, run in a real Runner on a model of one weight."""

import json
import secrets
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
import torch.distributed as dist
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.model import BaseModel, MMDistributedDataParallel
from mmengine.runner import Runner
from mmengine.structures import InstanceData
from torch.utils.data import Dataset

from nucseg_mmdet.engine.hooks.outlines import OutlineHook
from nucseg_mmdet.engine.hooks.run_card import RunCardHook
from nucseg_mmdet.engine.hooks.unfit_checkpoint import RefuseUnfitCheckpointHook
from nucseg_mmdet.models.mask_tta import MaskTTAModel
from nucseg_mmdet.utils.errors import UserError


class OneWeight(BaseModel):
    def __init__(self, bad_iteration=None):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))
        self.iteration = 0
        self.bad_iteration = bad_iteration

    def forward(self, inputs, data_samples, mode):
        self.iteration += 1
        factor = float('nan') if self.iteration == self.bad_iteration else 1.0
        return dict(loss=self.weight.sum() * factor)


class Sample:
    img_path = 'folder/picture.png'


class TwoSamples(Dataset):
    ann_file = 'annotations/train.json'

    def __len__(self):
        return 2

    def __getitem__(self, index):
        return dict(inputs=0, data_samples=Sample())


def run(tmp_path, model, *hooks, iterations=3, **kwargs):
    config = tmp_path / 'some_config.py'
    config.write_text('model = dict(backbone=dict())')
    runner = Runner(
        model=model,
        work_dir=str(tmp_path),
        train_dataloader=dict(
            dataset=TwoSamples(),
            batch_size=1,
            num_workers=0,
            sampler=dict(type='InfiniteSampler'),
            collate_fn=dict(type='pseudo_collate'),
        ),
        train_cfg=dict(type='IterBasedTrainLoop', max_iters=iterations),
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=1)),
        custom_hooks=list(hooks),
        default_scope='mmdet',
        experiment_name=secrets.token_hex(8),  # two runs may begin in one second
        cfg=Config.fromfile(config),
        **kwargs,
    )
    runner.train()
    return runner


def test_training_stops_before_a_bad_checkpoint(tmp_path):
    with pytest.raises(UserError, match=r'iteration 2: loss is not finite .* on picture.png'):
        run(tmp_path, OneWeight(bad_iteration=2), dict(type='StopAtNonFiniteLossHook'))
    assert [path.name for path in tmp_path.glob('*.pth')] == ['iter_1.pth']


def test_run_card_of_a_training(tmp_path):
    run(tmp_path, OneWeight(), dict(type='RunCardHook'))
    card = json.loads((tmp_path / 'run_card.json').read_text())
    assert card['config'] == 'some_config'
    assert (card['iteration'], card['max_iterations']) == (3, 3)
    assert card['annotations'] == 'train.json'
    assert card['versions']['torch'] == torch.__version__
    assert isinstance(card['seed'], int)
    assert card['train_seconds'] > 0


def test_new_training_has_a_new_card_and_a_resumed_one_goes_on(tmp_path):
    path = tmp_path / 'run_card.json'
    earlier = {'fold1_val.json': {'nuclei/PQ': 0.5}}
    path.write_text(json.dumps(dict(scores=earlier, train_seconds=1e6)))
    run(tmp_path, OneWeight(), dict(type='RunCardHook'), iterations=1)
    card = json.loads(path.read_text())
    assert card['scores'] == {}
    assert card['train_seconds'] < 1e6
    path.write_text(json.dumps(dict(card, scores=earlier, train_seconds=1e6)))
    run(tmp_path, OneWeight(), dict(type='RunCardHook'), iterations=2, resume=True)
    card = json.loads(path.read_text())
    assert (card['iteration'], card['scores']) == (2, earlier)
    assert card['train_seconds'] > 1e6


def test_scores_of_a_validation_name_the_threshold_of_their_labels(tmp_path):
    evaluator = dict(type='NucleiMetric', score_thr=0.6)
    runner = SimpleNamespace(
        iter=3,
        work_dir=str(tmp_path),
        cfg=Config(dict(val_dataloader=None, test_evaluator=evaluator)),
        val_dataloader=SimpleNamespace(dataset=SimpleNamespace(ann_file='fold1_val.json')),
    )
    hook = RunCardHook()
    hook.after_val_epoch(runner, {'nuclei/PQ': 0.5})
    card = json.loads((tmp_path / 'run_card.json').read_text())
    assert card['scores']['fold1_val.json']['score_thr'] == 0.6
    hook.after_val_epoch(runner, {'coco/segm_mAP': 0.5})
    card = json.loads((tmp_path / 'run_card.json').read_text())
    assert 'score_thr' not in card['scores']['fold1_val.json']


def test_fitting_checkpoint_is_taken(tmp_path):
    torch.save(dict(state_dict={'weight': torch.tensor([5.0])}), tmp_path / 'good.pth')
    runner = run(
        tmp_path,
        OneWeight(),
        dict(type='RefuseUnfitCheckpointHook'),
        iterations=1,
        load_from=str(tmp_path / 'good.pth'),
    )
    assert runner.model.weight.item() == pytest.approx(4.9)  # one step of 0.1 times gradient 1


@pytest.mark.parametrize(
    ('weights', 'message'),
    [
        ({'weight': torch.ones(2)}, r'weight is \(2,\), expected \(1,\)'),
        ({'other': torch.ones(1)}, r'2 keys differ: weight is missing, expected \(1,\); other is'),
    ],
)
def test_unfit_checkpoint_is_refused(tmp_path, weights, message):
    torch.save(dict(state_dict=weights), tmp_path / 'bad.pth')
    with pytest.raises(UserError, match=message):
        run(
            tmp_path,
            OneWeight(),
            dict(type='RefuseUnfitCheckpointHook'),
            load_from=str(tmp_path / 'bad.pth'),
        )


def test_unfit_checkpoint_of_a_resumed_run_is_named(tmp_path):
    refuse = dict(type='RefuseUnfitCheckpointHook')
    run(tmp_path, OneWeight(), refuse, iterations=1)
    torch.save(dict(state_dict={'weight': torch.ones(2)}), tmp_path / 'iter_1.pth')
    with pytest.raises(UserError, match=r'iter_1\.pth: does not fit this config'):
        run(tmp_path, OneWeight(), refuse, resume=True)


@pytest.fixture
def process_group(tmp_path):
    """A distributed run of one process."""
    store = dist.FileStore(str(tmp_path / 'store'), 1)
    dist.init_process_group('gloo', store=store, rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.mark.parametrize('distributed', [False, True])
@pytest.mark.parametrize('in_views', [False, True])
def test_checkpoint_fits_a_wrapped_model(tmp_path, request, distributed, in_views):
    """One of several views in a distributed run lies two wrappers deep."""
    model = OneWeight()
    if in_views:
        model = MaskTTAModel(module=model)
    if distributed:
        request.getfixturevalue('process_group')
        model = MMDistributedDataParallel(model)
    runner = SimpleNamespace(model=model, _load_from='good.pth', work_dir=str(tmp_path))
    hook = RefuseUnfitCheckpointHook()
    hook.after_load_checkpoint(runner, dict(state_dict={'weight': torch.ones(1)}))
    with pytest.raises(UserError, match=r'good\.pth: does not fit this config'):
        hook.after_load_checkpoint(runner, dict(state_dict={'weight': torch.ones(2)}))


def test_outlines_are_written(tmp_path):
    path = tmp_path / 'image.png'
    cv2.imwrite(str(path), np.full((20, 20, 3), 128, np.uint8))
    masks = torch.zeros(2, 20, 20, dtype=torch.bool)
    masks[0, 2:6, 3:9] = True
    masks[1, 12:16, 12:16] = True
    sample = DetDataSample(metainfo=dict(img_path=str(path)))
    sample.pred_instances = InstanceData(scores=torch.tensor([0.9, 0.4]), masks=masks)
    dataset = SimpleNamespace(
        data_prefix=dict(img=str(tmp_path)), metainfo=dict(classes=('nucleus',))
    )
    runner = SimpleNamespace(test_dataloader=SimpleNamespace(dataset=dataset))
    OutlineHook(str(tmp_path / 'out'), score_thr=0.5).after_test_iter(runner, 0, None, [sample])
    picture = cv2.imread(str(tmp_path / 'out/image.png'))
    assert picture.shape == (40, 40, 3)
    changed = np.argwhere((picture != 128).any(-1))
    # Edges at y 2 to 6 and x 3 to 9 px, twice enlarged; the line is 1 px with soft borders.
    assert np.abs(changed.min(0) - [4, 6]).max() <= 1
    assert np.abs(changed.max(0) - [12, 18]).max() <= 1
    assert (picture[7:9, 9:15] == 128).all()
