"""A RoI head whose masks look beyond their boxes."""

from typing import Any

from mmdet.models.roi_heads import StandardRoIHead
from mmdet.registry import MODELS
from torch import Tensor


@MODELS.register_module()
class WideMaskRoIHead(StandardRoIHead):
    """``StandardRoIHead`` whose masks are those of larger boxes.

    A mask ends where its box does, so that a box that is a little too small cuts an outline
    straight. Here masks are learned and found in boxes enlarged about their centers. Boxes, their
    scores and their NMS are as they were, and the weights are of the same shapes.

    Args:
        mask_scale: factor of the boxes' sides for the masks; as ``box_scale`` of ``RLEMaskHead``.
        mask_head: ``RLEMaskHead``.
        kwargs: as of ``StandardRoIHead``; with a ``mask_roi_extractor``.
    """

    def __init__(self, mask_scale: float, mask_head: dict, **kwargs: Any) -> None:
        super().__init__(mask_head=dict(mask_head, box_scale=mask_scale), **kwargs)
        self.mask_scale = mask_scale

    def _mask_forward(
        self, x: tuple[Tensor], rois: Tensor | None = None, *args: Any, **kwargs: Any
    ) -> dict[str, Tensor]:
        if rois is not None:
            rois = self.mask_roi_extractor.roi_rescale(rois, self.mask_scale)
        return super()._mask_forward(x, rois, *args, **kwargs)
