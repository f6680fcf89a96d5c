"""Pictures of tested images with what was found."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from mmdet.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.runner import Runner
from pycocotools import mask as coco_mask

from nucseg_mmdet.imaging.draw import draw_key, draw_outlines
from nucseg_mmdet.imaging.image_files import PictureNames, read_color, write_png
from nucseg_mmdet.structures.classes import NucleusClass, make_classes
from nucseg_mmdet.structures.polygons import mask_to_outlines


@HOOKS.register_module()
class OutlineHook(Hook):
    """Write each tested image with its predicted nuclei outlined, several classes by color.

    Args:
        out_dir: folder of the PNG files, named like the images.
        score_thr: nuclei below this score are not drawn.
    """

    def __init__(self, out_dir: str, score_thr: float = 0.5) -> None:
        self.out_dir = Path(out_dir)
        self.score_thr = score_thr
        self._names: PictureNames | None = None
        self._classes: tuple[NucleusClass, ...] = ()

    def after_test_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | None = None,
        outputs: Sequence | None = None,
    ) -> None:
        if self._names is None:
            dataset = runner.test_dataloader.dataset
            self._names = PictureNames(dataset.data_prefix['img'])
            known = dataset.metainfo
            self._classes = make_classes(known['classes'], known.get('palette'), 'metainfo')
        for sample in outputs:
            pred = sample.pred_instances
            masks = pred.masks
            if isinstance(masks, torch.Tensor):
                masks = masks.cpu().numpy()
            chosen = torch.nonzero(pred.scores >= self.score_thr).flatten().tolist()
            drawn = [masks[index] for index in chosen]
            nuclei = [
                mask_to_outlines(
                    mask if isinstance(mask, np.ndarray) else coco_mask.decode(mask) > 0
                )
                for mask in drawn
            ]
            picture = read_color(Path(sample.img_path))
            if len(self._classes) > 1:
                names, colors = zip(*self._classes, strict=True)
                shown = [colors[label] for label in pred.labels[chosen].tolist()]
                picture = draw_key(draw_outlines(picture, nuclei, shown), names, colors)
            else:
                picture = draw_outlines(picture, nuclei)
            write_png(self.out_dir / self._names.name(sample.img_path), picture)
