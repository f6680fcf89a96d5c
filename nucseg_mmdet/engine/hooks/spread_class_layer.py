"""Start a model of types of nuclei from one of nuclei."""

from mmdet.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.runner import Runner

from nucseg_mmdet.engine.hooks.wrapped import find_detector
from nucseg_mmdet.engine.types_of_nuclei import spread_class_layer


@HOOKS.register_module()
class SpreadClassLayerHook(Hook):
    """Let ``load_from`` take a checkpoint of one class where the model has several.

    See ``types_of_nuclei.spread_class_layer``.
    """

    priority = 'HIGH'  # before RefuseUnfitCheckpointHook looks

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        detector = find_detector(runner.model)
        spread_class_layer(checkpoint, detector.roi_head.bbox_head.num_classes)
