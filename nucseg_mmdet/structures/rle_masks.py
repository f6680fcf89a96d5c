"""Masks of one image as COCO run lengths, which also pass for the bitmaps they stand for.

mmdet's consumers of masks (``DetVisualizationHook``, ``DetInferencer``, ``DumpDetResults``) expect
bitmaps: a tensor or an array, (N, H, W). Those of an image with 1,000 nuclei take 1 GB, so masks
stay run lengths until somebody asks for bitmaps.
"""

from collections.abc import Iterable, Sequence
from typing import Any, overload

import numpy as np
from numpy.typing import DTypeLike

from nucseg_mmdet.structures.rle import coco_mask


class RLE(dict[str, Any]):
    """A mask ``{'size': [height, width], 'counts': bytes}`` that can be indexed as a bitmap.

    ``mask['counts']`` is its run lengths, ``mask[:, :, None]`` its pixels, as mmdet's
    ``encode_mask_results`` asks for them. ``pycocotools.mask.iou`` wants ``dict(mask)``.
    """

    def __getitem__(self, key: Any) -> Any:
        return super().__getitem__(key) if isinstance(key, str) else np.asarray(self)[key]

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> np.ndarray:
        """Decode the mask: bool, (H, W)."""
        return coco_mask.decode(dict(self)).astype(dtype or bool)


class RLEMasks(Sequence[RLE]):
    """The masks of an image, as ``InstanceData`` holds them.

    Args:
        masks: N masks of one size.
        height: of the image, px.
        width: of the image, px.
    """

    def __init__(self, masks: Iterable[dict], height: int, width: int) -> None:
        self._masks = [RLE(mask) for mask in masks]
        self.height = height
        self.width = width

    def __len__(self) -> int:
        return len(self._masks)

    @overload
    def __getitem__(self, index: int) -> RLE: ...
    @overload
    def __getitem__(self, index: slice) -> 'RLEMasks': ...
    def __getitem__(self, index):
        if isinstance(index, slice):
            return RLEMasks(self._masks[index], self.height, self.width)
        return self._masks[index]

    def __repr__(self) -> str:
        return f'{type(self).__name__}({len(self)} masks of {self.height} x {self.width} px)'

    @staticmethod
    def cat(parts: Sequence['RLEMasks']) -> 'RLEMasks':
        """Join masks of one image, by which ``InstanceData`` selects and joins."""
        masks = [mask for part in parts for mask in part]
        return RLEMasks(masks, parts[0].height, parts[0].width)

    def numpy(self) -> np.ndarray:
        """Decode all masks: bool, (N, H, W)."""
        bitmaps = np.zeros((len(self), self.height, self.width), bool)
        for index, mask in enumerate(self._masks):
            bitmaps[index] = np.asarray(mask)
        return bitmaps

    def astype(self, dtype: DTypeLike) -> np.ndarray:
        """Decode all masks to a type: (N, H, W)."""
        return self.numpy().astype(dtype, copy=False)

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> np.ndarray:
        return self.astype(dtype or bool)
