"""A mask head whose results are run lengths, not one bitmap of the image a detection."""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from mmdet.models.roi_heads.mask_heads import FCNMaskHead
from mmdet.models.task_modules.samplers import SamplingResult
from mmdet.registry import MODELS
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData
from torch import Tensor, nn

from nucseg_mmdet.models.mask_nms import lower_doubles
from nucseg_mmdet.structures import rle
from nucseg_mmdet.structures.rle_masks import RLEMasks

BUCKET = 8  # masks whose windows round up to the same multiple of this, px, go together
CHUNK = 1 << 20  # pixels sampled together; bounds the memory
OUTSIDE = -3.0  # grid coordinate beyond the mask's padding: samples 0


class _CellDeconv(nn.ConvTranspose2d):
    """``ConvTranspose2d`` whose windows do not overlap, as one matrix product.

    Where the kernel is as large as the stride, a pixel of the input becomes a cell of
    s x s pixels of its own. Cells stay apart, channels last, for ``_CellConv`` to end in
    an image: on a CPU in bfloat16 the stock layers take four times as long to train.

    Args (of the call):
        x: float, (N, C, h, w).

    Returns:
        float, (N, h, w, s, s, C').
    """

    def forward(self, x: Tensor) -> Tensor:
        inputs, outputs, *window = self.weight.shape
        weight = self.weight.permute(2, 3, 1, 0).reshape(-1, inputs)
        cells = F.linear(x.permute(0, 2, 3, 1), weight, self.bias.repeat(window[0] * window[1]))
        return cells.unflatten(-1, (*window, outputs))


class _CellConv(nn.Conv2d):
    """``Conv2d`` of one pixel, as one matrix product over cells.

    Args (of the call):
        cells: float, (N, h, w, s, s, C).

    Returns:
        float, (N, C', h * s, w * s).
    """

    def forward(self, cells: Tensor) -> Tensor:
        pixels = F.linear(cells, self.weight.flatten(1), self.bias)
        return pixels.permute(0, 5, 1, 3, 2, 4).flatten(4).flatten(2, 3)


@MODELS.register_module()
class RLEMaskHead(FCNMaskHead):
    """``FCNMaskHead`` that predicts masks as COCO run lengths.

    The stock head pastes each mask into a bitmap of the whole image, and the
    metric then searches all of it for runs. Here a mask is sampled only where
    its box is. ``results.masks`` are ``RLEMasks``, each ``{'size', 'counts'}`` with the
    very bytes of stock head + ``pycocotools.mask.encode``. Training is stock, and
    so are the weights; only the last two layers are computed in another order.

    Boxes of a large nucleus and of a small part of it have a low IoU, so that the NMS of boxes
    keeps both. ``test_cfg.rcnn`` may have ``mask_nms=dict(iom_thr=0.6, factor=0.5)``: scores of
    ``find_doubles`` are multiplied by the factor, and sorted again. They are not left out, since
    now and then they are right: AP would lose a hundredth.

    Truth may lie beside the nuclei, each image alike; a model that was trained with turns and flips
    can't learn that. ``test_cfg.rcnn`` may have ``truth_offset=(x, y)``, px of the image file, by
    which masks are moved to be scored against such truth.

    Args:
        box_scale: masks are those of boxes that are larger about their centers by this factor;
            ``WideMaskRoIHead`` sets it, and looks there.
        args, kwargs: as of ``FCNMaskHead``.

    Raises:
        ValueError: ``mask_thr_binary`` is not above 0 (stock's gray masks, for
            debugging, have no run lengths).
    """

    def __init__(self, *args: Any, box_scale: float = 1.0, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.box_scale = box_scale
        if self.upsample_method == 'deconv' and self.predictor_cfg['type'] == 'Conv':
            self.upsample = _CellDeconv(
                self.upsample.in_channels,
                self.upsample.out_channels,
                self.upsample.kernel_size,
                self.upsample.stride,
            )
            self.conv_logits = _CellConv(
                self.conv_logits.in_channels, self.conv_logits.out_channels, 1
            )

    def get_targets(
        self,
        sampling_results: list[SamplingResult],
        batch_gt_instances: list[InstanceData],
        rcnn_train_cfg: ConfigDict,
    ) -> Tensor:
        if self.box_scale == 1:
            return super().get_targets(sampling_results, batch_gt_instances, rcnn_train_cfg)
        # Not clipped to the image as stock boxes are: what is looked at is not, either.
        targets = [
            torch.as_tensor(
                truth.masks.crop_and_resize(
                    enlarge(sampled.pos_priors, self.box_scale).cpu().numpy(),
                    (rcnn_train_cfg.mask_size,) * 2,
                    inds=sampled.pos_assigned_gt_inds.cpu().numpy(),
                ).to_ndarray()
            ).to(sampled.pos_priors)
            for sampled, truth in zip(sampling_results, batch_gt_instances, strict=True)
            if len(sampled.pos_priors)
        ]
        if not targets:
            return sampling_results[0].pos_priors.new_zeros((0, *(rcnn_train_cfg.mask_size,) * 2))
        return torch.cat(targets)

    def predict_by_feat(
        self,
        mask_preds: tuple[Tensor],
        results_list: list[InstanceData],
        batch_img_metas: list[dict],
        rcnn_test_cfg: ConfigDict,
        rescale: bool = False,
        activate_map: bool = False,
    ) -> list[InstanceData]:
        results_list = super().predict_by_feat(
            mask_preds, results_list, batch_img_metas, rcnn_test_cfg, rescale, activate_map
        )
        mask_nms = rcnn_test_cfg.get('mask_nms')
        for index, results in enumerate(results_list):
            if not len(results):  # where the base class puts an empty tensor
                height, width = _image_size(batch_img_metas[index], rescale)
                results.masks = RLEMasks([], height, width)
            elif mask_nms:
                results_list[index] = lower_doubles(results, **mask_nms)
        return results_list

    def _predict_by_feat_single(
        self,
        mask_preds: Tensor,
        bboxes: Tensor,
        labels: Tensor,
        img_meta: dict,
        rcnn_test_cfg: ConfigDict,
        rescale: bool = False,
        activate_map: bool = False,
    ) -> RLEMasks:
        # Averaged over views, they are probabilities already.
        probs = torch.as_tensor(mask_preds).to(bboxes) if activate_map else mask_preds.sigmoid()
        probs = probs[:, 0] if self.class_agnostic else probs[range(len(probs)), labels]
        height, width = _image_size(img_meta, rescale)
        scale_factor = bboxes.new_tensor(img_meta['scale_factor'])  # of width, height
        offset = bboxes.new_tensor(rcnn_test_cfg.get('truth_offset', (0.0, 0.0)))
        if rescale:
            bboxes /= scale_factor.repeat(2)  # in place: the boxes of the result change too
        else:
            offset *= scale_factor
        # The boxes of the result stay as they are, within the image.
        wide = enlarge(bboxes, self.box_scale) + offset.repeat(2)
        masks = paste_rle(probs, wide, height, width, rcnn_test_cfg.mask_thr_binary)
        return RLEMasks(masks, height, width)


def enlarge(boxes: Tensor, factor: float) -> Tensor:
    """Boxes larger about their centers: float, (N, 4), xyxy."""
    if factor == 1:  # not even rounded
        return boxes
    corner, far = boxes[:, :2], boxes[:, 2:]
    center, half = (corner + far) * 0.5, (far - corner) * factor * 0.5
    return torch.cat([center - half, center + half], dim=1)


def _image_size(img_meta: dict, rescale: bool) -> tuple[int, int]:
    """Height and width of the masks, px: those of the image file, or as the network got it."""
    height, width = img_meta['ori_shape'][:2]
    if rescale:
        return height, width
    # float32, as mmdet's own head multiplies them.
    width_scale, height_scale = np.float32(img_meta['scale_factor']).tolist()
    return round(height * height_scale), round(width * width_scale)


def paste_rle(
    probs: Tensor, boxes: Tensor, height: int, width: int, threshold: float = 0.5
) -> list[dict]:
    """Paste masks into an image of their own each, as COCO run lengths.

    As ``_do_paste_mask`` of mmdet does on a CPU: a mask reaches 1 px beyond its
    box, and is empty if that leaves nothing of the image. It is so on every
    device; on a GPU the stock code makes a box without width or height a stripe
    over the whole image, and lets masks of a threshold below 0.5 reach further.

    Args:
        probs: float, (N, h, w), 0 to 1.
        boxes: float, (N, 4), xyxy, px of the image; finite, otherwise any.
        height: of the image, px.
        width: of the image, px.
        threshold: a pixel belongs to the mask from this probability on, > 0.

    Returns:
        N masks ``{'size': [height, width], 'counts': bytes}``.

    Raises:
        ValueError: the threshold is not above 0.
    """
    if threshold <= 0:
        raise ValueError(f'mask threshold is {threshold}, expected a value above 0')
    if not len(boxes):
        return []
    low = (boxes[:, :2].floor() - 1).clamp(min=0)
    high = torch.minimum(boxes[:, 2:].ceil() + 1, boxes.new_tensor([width, height]))
    extent = (high - low).clamp(min=0)  # of each mask's window, (N, 2), px

    # Masks whose windows are about as large are sampled together.
    sides, bucket, counts = torch.unique(
        (extent / BUCKET).ceil().long() * BUCKET, dim=0, return_inverse=True, return_counts=True
    )
    runs = [np.zeros((3, 0), np.int64)]
    members = bucket.argsort().split(counts.tolist())
    for (columns, rows), bucket_members in zip(sides.tolist(), members, strict=True):
        if columns and rows:
            for chosen in bucket_members.split(max(1, CHUNK // (columns * rows))):
                inside = _sample(
                    probs[chosen], boxes[chosen], low[chosen], extent[chosen], columns, rows
                )
                runs.append(_runs_in_windows(inside >= threshold, low[chosen], chosen, height))
    start, length, index = np.concatenate(runs, axis=1)
    order = np.argsort(index, kind='stable')
    return rle.from_runs(start[order], length[order], index[order], len(boxes), height, width)


def _sample(
    probs: Tensor, boxes: Tensor, low: Tensor, extent: Tensor, columns: int, rows: int
) -> Tensor:
    """Sample masks at the pixels of their windows.

    Args:
        probs: float, (N, h, w).
        boxes: float, (N, 4), xyxy, px.
        low: float, (N, 2); x and y of the window's first pixel.
        extent: float, (N, 2), px; of the window, at most columns and rows.
        columns: of the result, px.
        rows: of the result, px.

    Returns:
        float32, (N, columns, rows + 1); 0 beyond the window, so in the last row.
    """
    grid = boxes.new_empty(len(boxes), columns, rows + 1, 2)
    for axis, count in enumerate((columns, rows + 1)):
        step = torch.arange(count, device=boxes.device, dtype=torch.float32)
        first, last = boxes[:, axis, None], boxes[:, axis + 2, None]
        # The very operations of ``_do_paste_mask``; ``grid_sample`` itself, because its
        # vector code fuses multiplications and additions, which no other call repeats.
        place = (low[:, axis, None] + step + 0.5 - first) / (last - first) * 2 - 1
        place.masked_fill_(place.isinf(), 0)
        place.masked_fill_(step >= extent[:, axis, None], OUTSIDE)
        grid[..., axis] = place[:, :, None] if axis == 0 else place[:, None]
    return F.grid_sample(probs[:, None].float(), grid, align_corners=False)[:, 0]


def _runs_in_windows(inside: Tensor, low: Tensor, index: Tensor, height: int) -> np.ndarray:
    """Find the runs down the columns of windows.

    Args:
        inside: bool, (N, columns, rows); the last row is False, so that no run
            goes on in the next column.
        low: float, (N, 2); x and y of the window's first pixel, px.
        index: int64, (N,); the number of each mask.
        height: of the image, px.

    Returns:
        int64, (3, F): start, length and mask as ``rle.from_runs`` takes them.
    """
    _, columns, rows = inside.shape
    flat = inside.flatten()
    change = flat.clone()
    change[1:] ^= flat[:-1]
    edges = torch.nonzero(change).squeeze(1)
    start, end = edges[0::2], edges[1::2]
    column, row = start // rows, start % rows
    window, column = column // columns, column % columns
    x, y = low.long()[window].unbind(1)
    return torch.stack([(x + column) * height + y + row, end - start, index[window]]).cpu().numpy()
