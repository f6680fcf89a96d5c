"""Resume a training with the random numbers it would have drawn."""

import random

import numpy as np
import torch
from mmdet.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.runner import Runner


@HOOKS.register_module()
class RandomStateHook(Hook):
    """Keep the state of the random generators in the checkpoints, and go on from it.

    With ``num_workers=0`` and one process a resumed training then equals an
    uninterrupted one bit for bit on a CPU. Data loading workers are no part of a
    checkpoint: with them the order of the images goes on and crops and flips are drawn anew.
    """

    priority = 'LOWEST'  # draws of other hooks come before

    def __init__(self) -> None:
        self.state: dict | None = None

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        _, keys, position, has_gauss, cached = np.random.get_state()
        checkpoint['random_state'] = dict(
            torch=torch.get_rng_state(),
            cuda=torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
            numpy=(torch.from_numpy(keys.astype(np.int64)), position, has_gauss, cached),
            python=random.getstate(),
        )

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        if runner._resume and runner.world_size == 1:
            self.state = checkpoint.get('random_state')

    def before_train_epoch(self, runner: Runner) -> None:
        if self.state is None:
            return
        keys, *rest = self.state['numpy']  # which the first batch is drawn with
        np.random.set_state(('MT19937', keys.cpu().numpy().astype(np.uint32), *rest))
        random.setstate(self.state['python'])

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | None = None
    ) -> None:
        if self.state is None:
            return
        # Only now: the data loader has drawn a seed for its workers, as it did at the start.
        torch.set_rng_state(self.state['torch'].cpu())
        if torch.cuda.is_available() and len(self.state['cuda']) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all([part.cpu() for part in self.state['cuda']])
        self.state = None
