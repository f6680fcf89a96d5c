"""Pictures of tested images with what was found."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import torch
from mmdet.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.runner import Runner
from pycocotools import mask as coco_mask

from nucseg_mmdet.imaging.draw import draw_outlines
from nucseg_mmdet.imaging.image_files import PictureNames, write_png
from nucseg_mmdet.structures.polygons import mask_to_outlines


@HOOKS.register_module()
class OutlineHook(Hook):
    """Write each tested image with its predicted nuclei outlined.

    Args:
        out_dir: folder of the PNG files, named like the images.
        score_thr: nuclei below this score are not drawn.
    """

    def __init__(self, out_dir: str, score_thr: float = 0.5) -> None:
        self.out_dir = Path(out_dir)
        self.score_thr = score_thr
        self._names: PictureNames | None = None

    def after_test_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | None = None,
        outputs: Sequence | None = None,
    ) -> None:
        if self._names is None:
            self._names = PictureNames(runner.test_dataloader.dataset.data_prefix['img'])
        for sample in outputs:
            pred = sample.pred_instances
            masks = pred.masks
            if isinstance(masks, torch.Tensor):
                masks = masks.cpu().numpy()
            drawn = [
                masks[index]
                for index in torch.nonzero(pred.scores >= self.score_thr).flatten().tolist()
            ]
            nuclei = [
                mask_to_outlines(
                    mask if isinstance(mask, np.ndarray) else coco_mask.decode(mask) > 0
                )
                for mask in drawn
            ]
            picture = draw_outlines(cv2.imread(sample.img_path), nuclei)
            write_png(self.out_dir / self._names.name(sample.img_path), picture)
