"""Test in half precision."""

from mmdet.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

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
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        prepare_for_inference(model, self.precision)
