"""Refuse weights that do not fit the config."""

from mmdet.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.runner import Runner, find_latest_checkpoint

from nucseg_mmdet.engine.checkpoint import refuse_unfit, refuse_without_class_layers
from nucseg_mmdet.engine.hooks.wrapped import find_detector


@HOOKS.register_module()
class RefuseUnfitCheckpointHook(Hook):
    """Refuse a checkpoint whose keys or shapes differ from the model's.

    mmengine loads what fits and goes on, so a wrong config would give random nuclei.
    Class layers that the loader of a Detectron2 file dropped may be missing in a training.
    """

    _loaded: tuple[str, dict] | None = None  # the file, and what its meta data say

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        # A resumed run that was told of no file takes the last one of its work folder.
        path = runner._load_from or find_latest_checkpoint(runner.work_dir)
        refuse_unfit(find_detector(runner.model), checkpoint, path)
        self._loaded = path, checkpoint.get('meta', {})

    def before_test(self, runner: Runner) -> None:
        if self._loaded:
            path, meta = self._loaded
            refuse_without_class_layers(meta, path)
