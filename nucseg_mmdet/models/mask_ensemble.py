"""Several trained models of one config as one."""

import copy

from mmdet.registry import MODELS
from torch import nn

from nucseg_mmdet.models.mask_tta import MaskTTAModel


@MODELS.register_module()
class MaskEnsembleModel(MaskTTAModel):
    """Several Mask R-CNNs over one or more views of each image.

    As ``MaskTTAModel``: boxes of all models and views are fused, and the masks of the fused boxes
    averaged. Each model has as much to say as each other.

    Args:
        others: number of models beside ``module``, 1 or more; their weights are those of
            ``module`` until ``EnsembleHook`` loads them.
        kwargs: as of ``MaskTTAModel``.
    """

    def __init__(self, others: int, **kwargs) -> None:
        super().__init__(**kwargs)
        self.others = nn.ModuleList(copy.deepcopy(self.module) for _ in range(others))

    @property
    def models(self) -> list[nn.Module]:
        return [self.module, *self.others]
