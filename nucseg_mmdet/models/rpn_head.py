"""Region proposal networks for dense nuclei."""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from mmdet.models.dense_heads import RPNHead
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData
from numpy.lib.stride_tricks import sliding_window_view
from torch import Tensor, nn

from nucseg_mmdet.structures.polygons import polygons_to_rle
from nucseg_mmdet.structures.rle import label_map


@MODELS.register_module()
class ObjectnessRPNHead(RPNHead):
    """``RPNHead`` whose ``test_cfg.rpn`` may have ``min_score``, 0 to 1.

    Proposals with a lower objectness are left out before NMS, so that a tile of a hundred nuclei
    has not thousands of them. Where scores of uncertain nuclei count, as for AP, leave it at 0.
    """

    def _bbox_post_process(
        self, results: InstanceData, cfg: ConfigDict, *args: Any, **kwargs: Any
    ) -> InstanceData:
        results = results[results.scores > cfg.get('min_score', 0.0)]
        return super()._bbox_post_process(results, cfg, *args, **kwargs)


@MODELS.register_module()
class NucleusMapRPNHead(ObjectnessRPNHead):
    """A region proposal network that learns a map of the nuclei as well.

    In training two more convolutions of the finest features say of each place whether it lies in
    a nucleus, and whether on the border of one, as the branches of HoVer-Net (Graham et al. 2019)
    and of Hybrid Task Cascade (Chen et al. 2019) do: the features then learn from every pixel,
    where RPN and RoIs are sampled. The results are those of ``ObjectnessRPNHead``.

    Args:
        map_loss_weight: of the mean cross-entropy of both, beside the losses of the RPN.
    """

    def __init__(self, *args: Any, map_loss_weight: float = 1.0, **kwargs: Any) -> None:
        self.map_loss_weight = map_loss_weight
        super().__init__(*args, **kwargs)

    def _init_layers(self) -> None:
        super()._init_layers()
        self.map_convs = nn.Sequential(
            nn.Conv2d(self.in_channels, self.feat_channels, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(self.feat_channels, self.feat_channels, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(self.feat_channels, 2, 1),
        )

    def loss_and_predict(
        self,
        x: tuple[Tensor, ...],
        batch_data_samples: list[DetDataSample],
        proposal_cfg: ConfigDict | None = None,
    ) -> tuple[dict, list[InstanceData]]:
        losses, proposals = super().loss_and_predict(x, batch_data_samples, proposal_cfg)
        stride = self.prior_generator.strides[0][0]
        maps = [
            nucleus_map(sample.gt_instances.masks.masks, *sample.batch_input_shape, stride)
            for sample in batch_data_samples
        ]
        logits = self.map_convs(x[0])
        truth = torch.from_numpy(np.stack(maps)).to(logits)
        loss = F.binary_cross_entropy_with_logits(logits, truth)
        losses['loss_rpn_map'] = loss * self.map_loss_weight
        return losses, proposals


def nucleus_map(nuclei: list[list[np.ndarray]], height: int, width: int, stride: int) -> np.ndarray:
    """Say where nuclei are, and where they end, at the middle of each cell of a feature map.

    Args:
        nuclei: the polygons ``[x0, y0, x1, y1, ...]`` of each, px of the image.
        height: of the image, px; a multiple of the stride.
        width: of the image, px; likewise.
        stride: of the feature map, px.

    Returns:
        bool, (2, height / stride, width / stride): in a nucleus; in one, and one of the eight
        cells around is not in it.
    """
    rles = [polygons_to_rle(polygons, height, width) for polygons in nuclei]
    cells = label_map(rles, height, width)[stride // 2 :: stride, stride // 2 :: stride]
    around = sliding_window_view(np.pad(cells, 1, mode='edge'), (3, 3))
    inside = cells > 0
    return np.stack([inside, inside & (around != cells[..., None, None]).any(axis=(2, 3))])
