"""Stop a training whose loss is no number."""

from pathlib import Path

import torch
from mmdet.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.runner import Runner

from nucseg_mmdet.utils.errors import UserError


@HOOKS.register_module()
class StopAtNonFiniteLossHook(Hook):
    """Stop training at a loss that is infinite or NaN.

    Checked at every iteration, before the hook that saves checkpoints, so that the
    last checkpoint is from before the damage.
    """

    priority = 'VERY_HIGH'

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | None = None,
        outputs: dict | None = None,
    ) -> None:
        if torch.isfinite(outputs['loss']):
            return
        parts = ', '.join(f'{name} {value.item():.4g}' for name, value in outputs.items())
        images = ', '.join(Path(sample.img_path).name for sample in data_batch['data_samples'])
        raise UserError(
            f'iteration {runner.iter + 1}: loss is not finite ({parts}) on {images}; '
            'lower the learning rate or look at these images, then --resume'
        )
