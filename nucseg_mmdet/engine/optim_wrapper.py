"""Training in bfloat16, on a CPU too."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS
from torch import nn

from nucseg_mmdet.models.half_precision import keep_results_float32


@OPTIM_WRAPPERS.register_module()
class BFloat16OptimWrapper(OptimWrapper):
    """Train in bfloat16 autocast, on a CPU too, which mmengine's ``AmpOptimWrapper`` refuses.

    Weights, their gradients and the optimizer stay float32. bfloat16 has the range of
    float32, so gradients need no scaling.

    Args:
        kwargs: as of ``OptimWrapper``.
    """

    def __init__(self, **kwargs) -> None:
        super().__init__(**kwargs)
        self._prepared = False

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        if not self._prepared:
            keep_results_float32(model).to(memory_format=torch.channels_last)
            self._prepared = True
        device = next(model.parameters()).device.type
        with super().optim_context(model), torch.autocast(device, torch.bfloat16):
            yield
