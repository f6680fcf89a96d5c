"""Start a cascade from a Mask R-CNN."""

from mmdet.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.runner import Runner

from nucseg_mmdet.engine.checkpoint import fill_stages
from nucseg_mmdet.engine.hooks.wrapped import find_detector


@HOOKS.register_module()
class FillStagesHook(Hook):
    """Let ``load_from`` take a checkpoint of one stage where the model has several.

    See ``checkpoint.fill_stages``.
    """

    priority = 'HIGH'  # before RefuseUnfitCheckpointHook looks

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        detector = find_detector(runner.model)
        fill_stages(checkpoint, detector.roi_head.num_stages)
