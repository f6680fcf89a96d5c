"""Several trained models as one."""

from collections.abc import Sequence

from mmdet.registry import MODELS
from torch import nn

from nucseg_mmdet.models.mask_tta import MaskTTAModel


@MODELS.register_module()
class MaskEnsembleModel(MaskTTAModel):
    """Several Mask R-CNNs over one or more views of each image.

    As ``MaskTTAModel``: boxes of all models and views are fused, and the masks of the fused boxes
    averaged. Each model has as much to say as each other.

    Args:
        others: configs of the models beside ``module``, 1 or more, which see the same input and
            make masks of the same size; ``EnsembleHook`` loads their weights.
        kwargs: as of ``MaskTTAModel``.
    """

    def __init__(self, others: Sequence[dict], **kwargs) -> None:
        super().__init__(**kwargs)
        self.others = nn.ModuleList(MODELS.build(other) for other in others)

    @property
    def models(self) -> list[nn.Module]:
        return [self.module, *self.others]
