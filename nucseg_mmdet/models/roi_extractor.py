"""RoIAlign on a CPU as two small matrix products per RoI.

The samples of RoIAlign lie on a grid, so their bilinear weights are products of one weight
for the row and one for the column: the output of a RoI is ``rows @ patch @ columns.T``,
where the patch is what the feature map has under the RoI. mmcv's kernel for a CPU visits
sample after sample, on one thread and in float32 only.

Letters of shapes: R RoIs, B images, C channels, (H, W) a feature map, (P, Q) the output,
(h, w) a patch.
"""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from mmcv import ops
from mmdet.models.roi_heads.roi_extractors import SingleRoIExtractor
from mmdet.registry import MODELS
from mmengine.config import ConfigDict
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

BUCKET = 4  # RoIs whose patches round up to the same multiple of this, px, go together
CHUNK = 1 << 21  # numbers of the patches that are taken together; bounds the memory


class Bucket(NamedTuple):
    """RoIs with patches of one size.

    Attributes:
        index: int64, (R,); which RoIs.
        pixels: int64, (R, h, w); the patch's rows in the flattened feature maps.
        rows: float, (R, P, h); weights.
        columns: float, (R, 1, Q, w); weights.
    """

    index: Tensor
    pixels: Tensor
    rows: Tensor
    columns: Tensor


@MODELS.register_module()
class SeparableRoIExtractor(SingleRoIExtractor):
    """``SingleRoIExtractor`` with the ``RoIAlign`` of this module, equal up to rounding.

    RoIs stay float32 whatever the features are, and so is the result. It lies channels last.
    """

    def build_roi_layers(self, layer_cfg: ConfigDict, featmap_strides: list[int]) -> nn.ModuleList:
        return super().build_roi_layers({**layer_cfg, 'type': RoIAlign}, featmap_strides)

    def forward(
        self, feats: tuple[Tensor], rois: Tensor, roi_scale_factor: float | None = None
    ) -> Tensor:
        levels = self.map_roi_levels(rois, len(feats))
        if roi_scale_factor is not None:
            rois = self.roi_rescale(rois, roi_scale_factor)
        order = levels.argsort(stable=True)
        counts = levels.bincount(minlength=len(feats)).tolist()
        # A level without RoIs takes part too, so that the graph is the same in each process.
        found = [
            layer(level, chosen)
            for layer, level, chosen in zip(
                self.roi_layers, feats, rois[order].split(counts), strict=True
            )
        ]
        # Channels last, also through the reordering.
        stacked = torch.cat([part.permute(0, 2, 3, 1) for part in found])
        return stacked[order.argsort()].permute(0, 3, 1, 2)


class RoIAlign(ops.RoIAlign):
    """``mmcv.ops.RoIAlign``, by matrix products on a CPU; arguments as there.

    On another device, or with options other than aligned averages, it is mmcv's own.

    Shapes:
        input: float, (B, C, H, W), any precision.
        rois: float32, (R, 5): image, x1, y1, x2, y2, px of the network's input.
        result: float32 (float64 if the input is), (R, C, P, Q), channels last on a CPU.
    """

    def forward(self, input: Tensor, rois: Tensor) -> Tensor:
        if input.device.type != 'cpu' or self.pool_mode != 'avg' or not self.aligned:
            return super().forward(input.float(), rois.float())
        return _SeparableRoIAlign.apply(
            input, rois, self.output_size, self.spatial_scale, self.sampling_ratio
        )


class _SeparableRoIAlign(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx, feature: Tensor, rois: Tensor, size: tuple[int, int], scale: float, ratio: int
    ) -> Tensor:
        ctx.shape, ctx.feature_dtype = feature.shape, feature.dtype
        dtype = torch.promote_types(feature.dtype, torch.float32)
        channels, height, width = feature.shape[1:]
        pixels = feature.permute(0, 2, 3, 1).reshape(-1, channels)
        ctx.buckets = list(_buckets(rois.to(dtype), (height, width), channels, size, scale, ratio))
        out = feature.new_empty((len(rois), *size, channels), dtype=dtype)
        with torch.autocast('cpu', enabled=False):
            for bucket in ctx.buckets:
                count, h, w = bucket.pixels.shape
                patch = pixels[bucket.pixels.flatten()].to(dtype)
                lines = bucket.rows @ patch.view(count, h, w * channels)
                out[bucket.index] = bucket.columns @ lines.view(count, -1, w, channels)
        return out.permute(0, 3, 1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
        batch, channels, height, width = ctx.shape
        grad = grad.permute(0, 2, 3, 1)
        pixels = grad.new_zeros(batch * height * width, channels)
        with torch.autocast('cpu', enabled=False):
            for bucket in ctx.buckets:
                count, _, w = bucket.pixels.shape
                lines = bucket.columns.mT @ grad[bucket.index].contiguous()
                patch = bucket.rows.mT @ lines.view(count, -1, w * channels)
                pixels.index_add_(0, bucket.pixels.flatten(), patch.view(-1, channels))
        feature = pixels.view(batch, height, width, channels).permute(0, 3, 1, 2)
        return feature.to(ctx.feature_dtype), None, None, None, None


def _buckets(
    rois: Tensor,
    shape: tuple[int, int],
    channels: int,
    size: tuple[int, int],
    scale: float,
    ratio: int,
) -> Iterator[Bucket]:
    """Group RoIs by the size of their patches and compute their weights.

    Args:
        rois: float, (R, 5), px of the network's input.
        shape: height and width of the feature maps, px.
        channels: of the feature maps.
        size: P, Q.
        scale: from the network's input to the feature map.
        ratio: samples per bin along each axis; 0 for one per pixel.
    """
    image, corner, far = rois[:, 0].long(), rois[:, 1:3] * scale - 0.5, rois[:, 3:] * scale - 0.5
    axes = [
        _Axis(corner[:, axis], far[:, axis], bins, length, ratio)
        for axis, bins, length in ((1, size[0], shape[0]), (0, size[1], shape[1]))
    ]
    sides = torch.stack([(axis.extent / BUCKET).ceil().long() * BUCKET for axis in axes], dim=1)
    sides, bucket, counts = torch.unique(sides, dim=0, return_inverse=True, return_counts=True)
    members = bucket.argsort().split(counts.tolist())
    for lengths, bucket_members in zip(sides.tolist(), members, strict=True):
        for index in bucket_members.split(max(1, CHUNK // (lengths[0] * lengths[1] * channels))):
            (ys, rows), (xs, columns) = (
                axis.taps(index, length) for axis, length in zip(axes, lengths, strict=True)
            )
            line = image[index, None] * shape[0] + ys
            yield Bucket(index, line[:, :, None] * shape[1] + xs[:, None], rows, columns[:, None])


class _Axis:
    """Where the samples of RoIs lie along one axis of a feature map.

    The operations and their order are those of mmcv's ``pre_calc_for_bilinear_interpolate``,
    so that no sample falls on the other side of a border by rounding.

    Args:
        start: float, (R,); of the RoIs, px of the feature map, pixel centers at integers.
        end: float, (R,).
        bins: of the output.
        length: of the feature map, px.
        ratio: samples per bin; 0 for one per pixel.
    """

    def __init__(self, start: Tensor, end: Tensor, bins: int, length: int, ratio: int) -> None:
        self.start, self.bins, self.length = start, bins, length
        extent = end - start
        self.step = extent / bins
        self.samples = torch.full_like(start, ratio) if ratio else self.step.ceil().clamp(min=0)
        first, last = (edge.clamp(0, length - 1) for edge in (start, end))
        self.low = first.floor().long()
        self.extent = (last.ceil().long() - self.low + 1).clamp(min=1)  # of the patch, px

    def taps(self, index: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Compute the weight of each pixel of some RoIs' patches in each bin.

        Args:
            index: int64, (R,); which RoIs.
            count: h or w of the patches, px.

        Returns:
            pixels: int64, (R, count); a pixel beyond the map has weight 0 and stands for the last.
            weights: float, (R, bins, count); of the mean over a bin's samples.
        """
        step, samples = self.step[index, None, None], self.samples[index, None, None]
        bins = torch.arange(self.bins, dtype=step.dtype)[:, None]
        sample = torch.arange(int(samples.amax()), dtype=step.dtype)
        mean = samples.clamp(min=1)  # a RoI without extent has no sample, and gives 0
        place = self.start[index, None, None] + bins * step + (sample + 0.5) * step / mean
        valid = (sample < samples) & (place >= -1) & (place <= self.length)
        place = place.clamp(0, self.length - 1)[..., None]
        pixels = self.low[index, None] + torch.arange(count)
        hat = (1 - (place - pixels[:, None, None]).abs()).clamp(min=0)
        weights = (hat * valid[..., None]).sum(2) / mean
        return pixels.clamp(max=self.length - 1), weights
