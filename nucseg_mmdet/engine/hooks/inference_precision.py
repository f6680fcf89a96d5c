"""Test in half precision."""

from mmdet.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.runner import Runner

from nucseg_mmdet.engine.hooks.wrapped import unwrap
from nucseg_mmdet.models.half_precision import prepare_for_inference


@HOOKS.register_module()
class InferencePrecisionHook(Hook):
    """Test in a precision, see ``prepare_for_inference``; validation while training stays.

    Args:
        precision: 'fp32', 'bf16' or 'fp16'.
    """

    def __init__(self, precision: str) -> None:
        self.precision = precision

    def before_test(self, runner: Runner) -> None:  # after the checkpoint is loaded
        prepare_for_inference(unwrap(runner.model), self.precision)
