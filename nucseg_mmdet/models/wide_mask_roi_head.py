"""A RoI head whose masks look beyond their boxes."""

import math
from typing import Any

from mmdet.models.roi_heads import StandardRoIHead
from mmdet.registry import MODELS
from torch import Tensor

from nucseg_mmdet.utils.errors import UserError


@MODELS.register_module()
class WideMaskRoIHead(StandardRoIHead):
    """``StandardRoIHead`` whose masks are those of larger boxes.

    A mask ends where its box does, so that a box that is a little too small cuts an outline
    straight. Here masks are learned and found in boxes enlarged about their centers. Boxes, their
    scores and their NMS are as they were, and the weights are of the same shapes.

    Args:
        mask_scale: factor of the boxes' sides for the masks, 1 or more; as ``box_scale`` of
            ``RLEMaskHead``.
        mask_head: ``RLEMaskHead``.
        kwargs: as of ``StandardRoIHead``; with a ``mask_roi_extractor``.

    Raises:
        UserError: ``mask_scale`` is another value.
    """

    def __init__(self, mask_scale: float, mask_head: dict, **kwargs: Any) -> None:
        if not isinstance(mask_scale, int | float) or not 1 <= mask_scale < math.inf:
            raise UserError(f'mask_scale is {mask_scale!r}, expected a number, 1 or more')
        super().__init__(mask_head=dict(mask_head, box_scale=mask_scale), **kwargs)
        self.mask_scale = mask_scale

    def _mask_forward(
        self, x: tuple[Tensor], rois: Tensor | None = None, *args: Any, **kwargs: Any
    ) -> dict[str, Tensor]:
        if rois is not None:
            rois = self.mask_roi_extractor.roi_rescale(rois, self.mask_scale)
        return super()._mask_forward(x, rois, *args, **kwargs)
