"""A box head for nuclei of several types: is it a nucleus, and then of which type."""

from mmdet.models.roi_heads.bbox_heads import Shared2FCBBoxHead
from mmdet.registry import MODELS
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData
from torch import Tensor


@MODELS.register_module()
class OneTypeBBoxHead(Shared2FCBBoxHead):
    """``Shared2FCBBoxHead`` whose results have one type each, and scores for being a nucleus.

    The stock head takes each class for itself: a nucleus that may be of two types comes twice, or,
    with half of the score for each, not at all. Here the score is the sum over the types, as
    certain as that of a model of one class, and the label is the likeliest type. It goes with
    ``reg_class_agnostic=True``, a mask head with ``class_agnostic=True`` and
    ``test_cfg.rcnn.nms.class_agnostic=True``, so that a place is taken by one nucleus.
    Training is stock.
    """

    def _predict_by_feat_single(
        self,
        roi: Tensor,
        cls_score: Tensor,
        bbox_pred: Tensor,
        img_meta: dict,
        rescale: bool = False,
        rcnn_test_cfg: ConfigDict | None = None,
    ) -> InstanceData:
        logits = one_type(cls_score)
        return super()._predict_by_feat_single(
            roi, logits, bbox_pred, img_meta, rescale, rcnn_test_cfg
        )


def one_type(logits: Tensor) -> Tensor:
    """Give all that the types have to the likeliest one.

    Args:
        logits: float, (R, types + 1); the last is for none.

    Returns:
        float32, (R, types + 1): logits whose softmax is the summed probability for the likeliest
        type, 0 for the other types, and for none what it was.
    """
    logs = logits.float().log_softmax(1)
    types = logs[:, :-1]
    kept = logs.new_full(logs.shape, -float('inf'))
    kept.scatter_(1, types.argmax(1, keepdim=True), types.logsumexp(1, keepdim=True))
    kept[:, -1] = logs[:, -1]
    return kept
