"""A region proposal network that leaves out what is hardly a nucleus."""

from typing import Any

from mmdet.models.dense_heads import RPNHead
from mmdet.registry import MODELS
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData


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
