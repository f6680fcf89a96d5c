"""Reading of images."""

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
from mmcv.transforms import Compose, LoadImageFromFile
from mmdet.registry import TRANSFORMS


@TRANSFORMS.register_module()
class LoadImageOnce(LoadImageFromFile):
    """``LoadImageFromFile`` that keeps decoded images, for training on crops of a few images.

    Decoding a field of view takes longer than everything that is then done to a crop of it. Each
    worker of a data loader keeps its own images.

    Required key:
        img_path

    Added keys:
        img: uint8, (H, W, 3), BGR, a copy that may be changed.
        img_shape, ori_shape: height and width, px.

    Where a file cannot be read and ``ignore_empty`` is set, there are no results: mmdet takes
    another image.

    Args:
        keep: number of images, 3 MB each at 1000 x 1000 px; the least recently used is dropped.
        steps: transforms of ``img`` alone that give an image the same each time, such as a
            normalization, done once to each.
        kwargs: as of ``LoadImageFromFile``.
    """

    def __init__(self, keep: int = 64, steps: Sequence[dict] = (), **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.keep = keep
        self.steps = Compose([TRANSFORMS.build(step) for step in steps])
        self._load = functools.lru_cache(keep)(self._decode)

    def _decode(self, path: str) -> np.ndarray | None:
        loaded = super().transform(dict(img_path=path))
        done = self.steps(loaded) if loaded else None
        return done['img'] if isinstance(done, dict) else None

    def transform(self, results: dict) -> dict | None:
        kept = self._load(results['img_path'])
        if kept is None:
            return None
        results['img'] = img = kept.copy()
        results['img_shape'] = results['ori_shape'] = img.shape[:2]
        return results

    def __getstate__(self) -> dict:
        return {key: value for key, value in self.__dict__.items() if key != '_load'}

    def __setstate__(self, state: dict) -> None:
        vars(self).update(state)
        self._load = functools.lru_cache(self.keep)(self._decode)
