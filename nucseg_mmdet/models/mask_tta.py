"""Test-time augmentation with masks, which mmdet's ``DetTTAModel`` refuses.

An image is looked at in several views: enlarged more or less, flipped, turned. The boxes of all
views are fused, each fused box is given to the mask head in every view, and the probabilities,
turned back, are averaged.
"""

import itertools

import torch
import torch.nn.functional as F
from mmcv.ops import nms
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.structures.bbox import bbox2roi
from mmengine.model import BaseTTAModel
from mmengine.structures import InstanceData
from torch import Tensor, nn

from nucseg_mmdet.models.sparse_assigner import SparseMaxIoUAssigner
from nucseg_mmdet.utils.errors import UserError


@MODELS.register_module()
class MaskTTAModel(BaseTTAModel):
    """Mask R-CNN over several views of each image.

    The views come from ``TestTimeAug`` with ``Resize`` and ``Orient``; ``PackDetInputs`` keeps
    ``scale_factor`` and ``orientation``.

    Args:
        iou_thr: boxes of different views with a higher IoU are one nucleus.
        kwargs: as of ``BaseTTAModel``; ``module`` is a two-stage detector with masks.
    """

    def __init__(self, iou_thr: float = 0.5, **kwargs) -> None:
        super().__init__(**kwargs)
        self.iou_thr = iou_thr

    @property
    def models(self) -> list[nn.Module]:
        """All that look at each view."""
        return [self.module]

    def test_step(self, data: dict) -> list[DetDataSample]:
        """Predict a batch.

        Args:
            data: ``inputs`` and ``data_samples``, each a list of views of lists of images.

        Returns:
            One sample an image with ``pred_instances`` in px of the image file: ``bboxes``,
            ``scores`` (means over the views, a view without the nucleus counts 0), ``labels``
            and the ``masks`` that the mask head makes.

        Raises:
            UserError: a detector is a cascade.
        """
        if any(isinstance(model.roi_head.mask_head, nn.ModuleList) for model in self.models):
            raise UserError('a cascade among the models to average, expected one mask head of each')
        head = self.module.roi_head
        looks, samples, found = [], [], []
        views = zip(data['inputs'], data['data_samples'], strict=True)
        for (inputs, of_view), model in itertools.product(views, self.models):
            view = model.data_preprocessor(dict(inputs=inputs, data_samples=of_view))
            levels = model.extract_feat(view['inputs'])
            metas = [sample.metainfo for sample in view['data_samples']]
            proposals = model.rpn_head.predict(levels, view['data_samples'], rescale=False)
            looks.append((model, levels))
            samples.append(view['data_samples'])
            found.append(model.roi_head.predict_bbox(levels, metas, proposals, head.test_cfg))
        fused = [
            self._fuse(of_image, of_image_samples)
            for of_image, of_image_samples in zip(
                zip(*found, strict=True), zip(*samples, strict=True), strict=True
            )
        ]
        probs = self._mask_probs(looks, samples, fused)
        metas = [dict(sample.metainfo, scale_factor=(1.0, 1.0)) for sample in samples[0]]
        counts = [len(nuclei) for nuclei in fused]
        fused = head.mask_head.predict_by_feat(
            probs.split(counts), fused, metas, head.test_cfg, activate_map=True
        )
        for sample, nuclei in zip(samples[0], fused, strict=True):
            sample.pred_instances = nuclei
        return samples[0]

    def merge_preds(self, data_samples_list: list) -> None:
        """Not used: masks cannot be merged after the views were pasted."""
        raise NotImplementedError

    def _fuse(self, found: tuple[InstanceData], samples: tuple[DetDataSample]) -> InstanceData:
        boxes = [
            to_image(nuclei.bboxes, sample) for nuclei, sample in zip(found, samples, strict=True)
        ]
        cfg = self.module.roi_head.test_cfg
        boxes, scores, labels = fuse_boxes(
            boxes,
            [nuclei.scores for nuclei in found],
            [nuclei.labels for nuclei in found],
            self.iou_thr,
            cfg.nms.get('class_agnostic', False),
        )
        keep = (scores > cfg.score_thr).nonzero()[: cfg.max_per_img, 0]
        return InstanceData(bboxes=boxes[keep], scores=scores[keep], labels=labels[keep])

    def _mask_probs(
        self, looks: list, samples: list[list[DetDataSample]], fused: list[InstanceData]
    ) -> Tensor:
        """Average the mask heads' probabilities over all looks: float, (N, classes, h, w)."""
        total, scale = 0, mask_scale(self.module)
        for (model, features), of_view in zip(looks, samples, strict=True):
            rois = bbox2roi(
                [
                    to_view(nuclei.bboxes, sample)
                    for nuclei, sample in zip(fused, of_view, strict=True)
                ]
            )
            probs = model.roi_head._mask_forward(features, rois)['mask_preds'].sigmoid()
            probs = frame_again(probs, mask_scale(model), scale)
            total = total + turn_back(probs, of_view[0].orientation)
        return total / len(looks)


def mask_scale(model: nn.Module) -> float:
    """By how much the boxes of a model's masks are larger than its boxes."""
    return getattr(model.roi_head, 'mask_scale', 1.0)


def frame_again(probs: Tensor, scale: float, wanted: float) -> Tensor:
    """Take masks from boxes of one ``mask_scale`` to those of another.

    Args:
        probs: float, (N, classes, h, w), 0 to 1.
        scale: of the boxes that they are in.
        wanted: of the boxes of the result; beyond the masks it is 0.
    """
    if scale == wanted or not len(probs):
        return probs
    resize = probs.new_tensor([[wanted / scale, 0, 0], [0, wanted / scale, 0]])
    grid = F.affine_grid(resize.expand(len(probs), 2, 3), probs.shape, align_corners=False)
    return F.grid_sample(probs, grid, align_corners=False)


def to_image(boxes: Tensor, sample: DetDataSample) -> Tensor:
    """Take boxes from a view to its image: float, (N, 4), xyxy, px."""
    flip, turns = sample.orientation
    height, width = sample.img_shape  # of the view
    for _ in range(turns):  # to the right
        x1, y1, x2, y2 = boxes.unbind(-1)
        boxes = torch.stack([height - y2, x1, height - y1, x2], dim=-1)
        height, width = width, height
    if flip:
        x1, y1, x2, y2 = boxes.unbind(-1)
        boxes = torch.stack([width - x2, y1, width - x1, y2], dim=-1)
    return boxes / boxes.new_tensor(sample.scale_factor).repeat(2)


def to_view(boxes: Tensor, sample: DetDataSample) -> Tensor:
    """Take boxes from an image to one of its views, the inverse of ``to_image``."""
    flip, turns = sample.orientation
    height, width = sample.img_shape if turns % 2 == 0 else sample.img_shape[::-1]
    boxes = boxes * boxes.new_tensor(sample.scale_factor).repeat(2)
    if flip:
        x1, y1, x2, y2 = boxes.unbind(-1)
        boxes = torch.stack([width - x2, y1, width - x1, y2], dim=-1)
    for _ in range(turns):  # to the left
        x1, y1, x2, y2 = boxes.unbind(-1)
        boxes = torch.stack([y1, width - x2, y2, width - x1], dim=-1)
        height, width = width, height
    return boxes


def turn_back(maps: Tensor, orientation: tuple[bool, int]) -> Tensor:
    """Take maps from a view's orientation to the image's: (..., h, w)."""
    flip, turns = orientation
    maps = torch.rot90(maps, -turns, (-2, -1))
    return maps.flip(-1) if flip else maps


def fuse_boxes(
    boxes: list[Tensor],
    scores: list[Tensor],
    labels: list[Tensor],
    iou_thr: float,
    class_agnostic: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """Fuse the boxes of several views of an image.

    NMS over the boxes of all views chooses one for each nucleus; the others go to the chosen box
    of their class that they overlap most. A fused box is the mean of its boxes weighted with
    their scores, its score the mean over the views of the highest score in the view.

    Args:
        boxes: of each view, float, (N, 4), xyxy, px of the image.
        scores: of each view, float, (N,), 0 to 1.
        labels: of each view, int64, (N,).
        iou_thr: from this IoU on boxes are of one nucleus.
        class_agnostic: whether boxes of two classes can be of one nucleus; it then has the class
            with the largest sum of scores.

    Returns:
        boxes, scores and labels of the fused nuclei, the highest score first.

    Source:
        Solovyev et al., "Weighted boxes fusion", Image Vis. Comput. 107 (2021), with NMS for
        its sequential clustering.
    """
    num_views = len(boxes)
    view = torch.cat([torch.full_like(part, index) for index, part in enumerate(labels)])
    boxes, scores, labels = torch.cat(boxes), torch.cat(scores), torch.cat(labels)
    if not len(boxes):
        return boxes, scores, labels
    kinds = torch.zeros_like(labels) if class_agnostic else labels
    apart = boxes + kinds[:, None] * (boxes.amax() + 1)  # boxes of two kinds do not meet
    _, chosen = nms(apart, scores, iou_thr)
    assigner = SparseMaxIoUAssigner(
        pos_iou_thr=iou_thr, neg_iou_thr=iou_thr, match_low_quality=False
    )
    owner = assigner.assign(
        InstanceData(priors=apart), InstanceData(bboxes=apart[chosen], labels=kinds[chosen])
    ).gt_inds
    owner[chosen] = torch.arange(1, len(chosen) + 1, device=owner.device)
    members = owner > 0
    owner, view, boxes, weight = owner[members] - 1, view[members], boxes[members], scores[members]

    best = scores.new_zeros(len(chosen) * num_views)
    best.scatter_reduce_(0, owner * num_views + view, weight, 'amax')
    fused_scores = best.view(-1, num_views).mean(1)
    total = weight.new_zeros(len(chosen)).index_add_(0, owner, weight)
    fused = boxes.new_zeros(len(chosen), 4).index_add_(0, owner, boxes * weight[:, None])
    votes = weight.new_zeros(len(chosen), int(labels.max()) + 1)
    votes.index_put_((owner, labels[members]), weight, accumulate=True)
    order = fused_scores.argsort(descending=True, stable=True)
    return (fused / total[:, None])[order], fused_scores[order], votes.argmax(1)[order]
