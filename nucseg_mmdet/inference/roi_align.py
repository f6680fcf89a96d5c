"""RoIAlign in NumPy, as two small matrix products for each box.

The twin of ``models.roi_extractor``, for runtimes without torch: the samples lie on a grid, so that
the output of a box is ``rows @ patch @ columns.T``, where the patch is what the map has under it.

Letters of shapes: R boxes, C channels, (H, W) a map, (P, P) the output, (h, w) a patch.
"""

from collections.abc import Sequence

import numpy as np

from nucseg_mmdet.structures import boxes as box_math

BUCKET = 4  # boxes whose patches round up to the same multiple of this, px, go together
CHUNK = 1 << 21  # numbers of the patches that are taken together; bounds the memory


def roi_features(
    maps: Sequence[np.ndarray],
    strides: Sequence[int],
    finest_scale: float,
    boxes: np.ndarray,
    size: int,
) -> np.ndarray:
    """Look at what lies in boxes, each on the map that fits its size.

    Args:
        maps: float32, (H, W, C), the finest first.
        strides: px of the network's input between pixels of each map.
        finest_scale: px; boxes of twice this side and more are looked at on the second map, ...
        boxes: float32, (R, 4), xyxy, px of the network's input.
        size: P.

    Returns:
        float32, (R, P, P, C).

    Source:
        He et al., "Mask R-CNN", ICCV 2017; sampling and borders as ``mmcv.ops.RoIAlign`` with
        ``aligned=True`` and ``sampling_ratio=0``. Levels: Lin et al., "Feature pyramid networks",
        CVPR 2017.
    """
    scale = np.sqrt(box_math.areas(boxes)) / np.float32(finest_scale)
    level = np.floor(np.log2(scale + np.float32(1e-6))).astype(np.int64)
    level = np.clip(level, 0, len(maps) - 1)
    out = np.empty((len(boxes), size, size, maps[0].shape[2]), np.float32)
    for index, (feature, stride) in enumerate(zip(maps, strides, strict=True)):
        chosen = np.flatnonzero(level == index)
        out[chosen] = _align(feature, boxes[chosen], size, np.float32(1 / stride))
    return out


def _align(feature: np.ndarray, boxes: np.ndarray, size: int, scale: np.float32) -> np.ndarray:
    """RoIAlign on one map: float32, (R, P, P, C)."""
    height, width, channels = feature.shape
    pixels = feature.reshape(-1, channels)
    places = boxes * scale - np.float32(0.5)
    across = _Axis(places[:, 0], places[:, 2], size, width)
    down = _Axis(places[:, 1], places[:, 3], size, height)
    out = np.empty((len(boxes), size, size, channels), np.float32)
    sides = -(-np.stack([down.extent, across.extent], 1) // BUCKET) * BUCKET
    sides, bucket = np.unique(sides, axis=0, return_inverse=True)
    for number, (h, w) in enumerate(sides.tolist()):
        members = np.flatnonzero(bucket.ravel() == number)
        step = max(1, CHUNK // (h * w * channels))
        for chosen in np.split(members, range(step, len(members), step)):
            ys, rows = down.taps(chosen, h)
            xs, columns = across.taps(chosen, w)
            patch = pixels.take(ys[:, :, None] * width + xs[:, None], axis=0)
            lines = rows @ patch.reshape(len(chosen), h, w * channels)
            out[chosen] = columns[:, None] @ lines.reshape(len(chosen), size, w, channels)
    return out


class _Axis:
    """Where the samples of boxes lie along one axis of a map.

    Args:
        start: float32, (R,); of the boxes, px of the map, pixel centers at integers.
        end: float32, (R,).
        bins: of the output, P.
        length: of the map, px.
    """

    def __init__(self, start: np.ndarray, end: np.ndarray, bins: int, length: int) -> None:
        self.start, self.bins, self.length = start, bins, length
        self.step = (end - start) / np.float32(bins)
        self.samples = np.ceil(self.step)  # a bin, one a pixel
        self.low = np.floor(np.clip(start, 0, length - 1)).astype(np.int64)
        high = np.ceil(np.clip(end, 0, length - 1)).astype(np.int64)
        self.extent = np.maximum(high - self.low + 1, 1)  # of the patch, px

    def taps(self, index: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
        """The weight of each pixel of some boxes' patches in each bin.

        Args:
            index: int64, (R,); which boxes.
            count: h or w of the patches, px.

        Returns:
            pixels: int64, (R, count); one beyond the map has weight 0 and stands for the last.
            weights: float32, (R, bins, count); of the mean over a bin's samples.
        """
        step, samples = self.step[index, None, None], self.samples[index, None, None]
        bins = np.arange(self.bins, dtype=np.float32)[:, None]
        sample = np.arange(samples.max(), dtype=np.float32)
        mean = np.maximum(samples, 1)
        place = (
            self.start[index, None, None] + bins * step + (sample + np.float32(0.5)) * step / mean
        )
        valid = (sample < samples) & (place >= -1) & (place <= self.length)
        place = np.clip(place, 0, self.length - 1)[..., None]
        pixels = self.low[index, None] + np.arange(count)
        between = np.abs(place - pixels[:, None, None].astype(np.float32))
        hat = np.maximum(1 - between, 0) * valid[..., None]
        return np.minimum(pixels, self.length - 1), hat.sum(2) / mean
