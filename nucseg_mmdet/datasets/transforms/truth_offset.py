"""Transforms of truth that lies beside the nuclei."""

import warnings

from mmcv.transforms import BaseTransform
from mmdet.registry import TRANSFORMS

from nucseg_mmdet.imaging.truth_offset import NoOutlineError, measure_offset
from nucseg_mmdet.structures.polygons import polygons_to_rle
from nucseg_mmdet.structures.rle import label_map


@TRANSFORMS.register_module()
class MeasureTruthOffset(BaseTransform):
    """Measure where the nuclei of a training image lie beside its truth, for ``MoveTruth``.

    A step before crops, which needs the whole image and all its nuclei; an image is measured
    when it first comes, in each worker of a data loader. Nothing but the image and its own truth
    is used. Where nothing can be measured the offset is 0, with a warning.

    Required keys:
        img_path
        img: uint8, (H, W, 3), BGR.
        gt_masks: ``PolygonMasks``.

    Added key:
        truth_offset: x, y, px: how the truth must be moved to lie on the nuclei.
    """

    def __init__(self) -> None:
        self._offsets: dict[str, tuple[float, float]] = {}

    def transform(self, results: dict) -> dict:
        path = results['img_path']
        if path not in self._offsets:
            self._offsets[path] = self._measure(results)
        results['truth_offset'] = self._offsets[path]
        return results

    @staticmethod
    def _measure(results: dict) -> tuple[float, float]:
        height, width = results['img'].shape[:2]
        rles = [polygons_to_rle(nucleus, height, width) for nucleus in results['gt_masks'].masks]
        try:
            truth = label_map(rles, height, width) > 0
            return measure_offset(results['img'][..., ::-1], truth)
        except NoOutlineError as error:
            warnings.warn(f'{results["img_path"]}: truth not moved, {error}', stacklevel=3)
            return 0.0, 0.0

    def __repr__(self) -> str:
        return f'{type(self).__name__}()'
