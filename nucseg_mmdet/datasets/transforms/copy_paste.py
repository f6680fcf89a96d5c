"""Copies of nuclei within an image."""

import cv2
import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmdet.registry import TRANSFORMS
from mmdet.structures.bbox import HorizontalBoxes
from mmdet.structures.mask import PolygonMasks

from nucseg_mmdet.structures.polygons import mask_to_polygons
from nucseg_mmdet.utils.errors import UserError


@TRANSFORMS.register_module()
class PasteNuclei(BaseTransform):
    """Paste copies of an image's own nuclei where there is none, turned and flipped at random.

    A copy has the stain of its surroundings, and touches other nuclei now and then. Nuclei that
    the border cuts are not copied. Simple copy-paste (Ghiasi et al., CVPR 2021) within an image.

    Required and modified keys:
        img: uint8, (H, W, 3).
        gt_bboxes: ``HorizontalBoxes``.
        gt_bboxes_labels: int64, (N,).
        gt_ignore_flags: bool, (N,).
        gt_masks: ``PolygonMasks`` with vertices on pixel edges, as before a change of scale.

    Args:
        number: of copies that are tried, 0 or more; one that finds no place in 10 draws is
            left out.

    Raises:
        UserError: ``number`` is negative.
    """

    def __init__(self, number: int = 5) -> None:
        if number < 0:
            raise UserError(f'number is {number}, expected 0 or more')
        self.number = number

    def transform(self, results: dict) -> dict:
        masks = results['gt_masks'].to_ndarray().astype(bool)
        on_border = masks.copy()
        on_border[:, 1:-1, 1:-1] = False
        whole = np.flatnonzero(masks.any((1, 2)) & ~on_border.any((1, 2)))
        if not whole.size:
            return results
        occupied = masks.any(0)
        img = results['img'].copy()
        sources, boxes, polygons = [], [], list(results['gt_masks'].masks)
        for source in np.random.choice(whole, self.number):
            rows, columns = (np.flatnonzero(masks[source].any(axis)) for axis in (1, 0))
            window = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
            turns, step = np.random.randint(4), np.random.choice((-1, 1))
            mask = np.rot90(masks[source][window], turns)[::step]
            pixels = np.rot90(results['img'][window], turns)[::step]
            place = self._find_place(occupied, mask)
            if place is None:
                continue
            top, left = place
            bottom, right = top + mask.shape[0], left + mask.shape[1]
            occupied[top:bottom, left:right] |= mask
            # Half-way at the edge, so that no seam gives a copy away.
            share = cv2.blur(mask.astype(np.float32), (3, 3), borderType=cv2.BORDER_CONSTANT)
            share = (share * mask)[..., None]
            under = img[top:bottom, left:right]
            img[top:bottom, left:right] = np.rint(under + share * (pixels - under.astype(float)))
            sources.append(source)
            boxes.append([left, top, right, bottom])
            polygons.append([np.array(ring) for ring in mask_to_polygons(mask, (left, top))])
        if sources:
            results['img'] = img
            old = results['gt_bboxes'].tensor
            results['gt_bboxes'] = HorizontalBoxes(torch.cat([old, old.new_tensor(boxes)]))
            for key in ('gt_bboxes_labels', 'gt_ignore_flags'):
                results[key] = np.concatenate([results[key], results[key][sources]])
            results['gt_masks'] = PolygonMasks(polygons, *img.shape[:2])
        return results

    @staticmethod
    def _find_place(occupied: np.ndarray, mask: np.ndarray) -> tuple[int, int] | None:
        """Draw the top left corner of a place without a nucleus; y, x, or None."""
        height, width = mask.shape
        rows, columns = occupied.shape[0] - height + 1, occupied.shape[1] - width + 1
        if min(rows, columns) < 1:
            return None  # turned, it is longer than the image
        for _ in range(10):
            top, left = np.random.randint(rows), np.random.randint(columns)
            if not (occupied[top : top + height, left : left + width] & mask).any():
                return top, left
        return None

    def __repr__(self) -> str:
        return f'{type(self).__name__}(number={self.number})'
