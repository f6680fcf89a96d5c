import time

import pytest
from mmengine.config import Config
from mmengine.model import BaseModel
from mmengine.registry import DATASETS, MODELS
from torch.utils.data import Dataset

from nucseg_mmdet.engine.make_runner import make_runner


class NoModel(BaseModel):
    def forward(self, inputs, data_samples=None, mode='tensor'):
        raise NotImplementedError


class NoImages(Dataset):
    def __len__(self):
        return 1

    def __getitem__(self, index):
        raise NotImplementedError


@pytest.fixture
def config(tmp_path, monkeypatch):
    monkeypatch.setitem(MODELS._module_dict, 'NoModel', NoModel)
    monkeypatch.setitem(DATASETS._module_dict, 'NoImages', NoImages)
    path = tmp_path / 'some_config.py'
    path.write_text(
        'model = dict(type="NoModel")\n'
        'default_scope = "mmengine"\n'
        f'work_dir = {str(tmp_path / "run")!r}\n'
        'optim_wrapper = dict(optimizer=dict(type="SGD", lr=0.1))\n'
        'train_cfg = dict(type="IterBasedTrainLoop", max_iters=1)\n'
        'train_dataloader = dict(batch_size=1, sampler=dict(type="InfiniteSampler"),\n'
        '                        dataset=dict(type="NoImages"), num_workers=0)\n'
    )
    return path


def test_runs_of_one_second_share_nothing(config, monkeypatch):
    monkeypatch.setattr(time, 'time', lambda: 1_000_000_000.0)
    cfg = Config.fromfile(config)
    runs = [make_runner(cfg, config, 'train') for _ in range(3)]
    assert len({run.experiment_name for run in runs}) == 3
    assert len({id(run.message_hub) for run in runs}) == 3
    assert len({id(run.logger) for run in runs}) == 3
    assert all('some_config' in run.experiment_name for run in runs)
    assert 'experiment_name' not in cfg
