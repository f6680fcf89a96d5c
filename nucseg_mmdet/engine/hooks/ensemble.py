"""Load the models of an ensemble."""

from collections.abc import Sequence

from mmdet.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmengine.runner.checkpoint import CheckpointLoader

from nucseg_mmdet.engine.checkpoint import load_fit
from nucseg_mmdet.engine.hooks.wrapped import unwrap


@HOOKS.register_module()
class EnsembleHook(Hook):
    """Load the checkpoints of all models but the first, which mmengine loads, before a test.

    Args:
        checkpoints: files, one for each of a ``MaskEnsembleModel``'s ``others``.

    Raises:
        UserError: a file is no checkpoint of such a model.
    """

    priority = 'HIGH'  # before the models are changed to another precision

    def __init__(self, checkpoints: Sequence[str]) -> None:
        self.checkpoints = checkpoints

    def before_test(self, runner: Runner) -> None:
        for model, path in zip(unwrap(runner.model).others, self.checkpoints, strict=True):
            checkpoint = CheckpointLoader.load_checkpoint(path, 'cpu')
            load_fit(model, checkpoint, path)
