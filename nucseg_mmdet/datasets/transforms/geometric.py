"""Transforms of images and their truth: loading, turns, copies, offsets."""

import functools
from collections.abc import Sequence

import cv2
import numpy as np
import torch
from mmcv.transforms import BaseTransform, LoadImageFromFile
from mmdet.registry import TRANSFORMS
from mmdet.structures.bbox import HorizontalBoxes
from mmdet.structures.mask import PolygonMasks

from nucseg_mmdet.structures.polygons import mask_to_polygons
from nucseg_mmdet.utils.errors import UserError


@TRANSFORMS.register_module()
class LoadImageOnce(LoadImageFromFile):
    """``LoadImageFromFile`` that keeps decoded images, for training on crops of a few images.

    Decoding a field of view takes longer than all that is done to a crop of it. Each worker
    of a data loader keeps images of its own.

    Required key:
        img_path

    Added keys:
        img: uint8, (H, W, 3), BGR, a copy that may be changed.
        img_shape, ori_shape: height and width, px.

    Args:
        keep: number of images, the least recently used ones go; 3 MB each at 1000 px.
        kwargs: as of ``LoadImageFromFile``.
    """

    def __init__(self, keep: int = 64, **kwargs) -> None:
        super().__init__(**kwargs)
        self.keep = keep
        self._load = functools.lru_cache(keep)(self._decode)

    def _decode(self, path: str) -> np.ndarray:
        return super().transform(dict(img_path=path))['img']

    def transform(self, results: dict) -> dict:
        img = self._load(results['img_path']).copy()
        results['img'] = img
        results['img_shape'] = results['ori_shape'] = img.shape[:2]
        return results

    def __getstate__(self) -> dict:
        return {key: value for key, value in self.__dict__.items() if key != '_load'}

    def __setstate__(self, state: dict) -> None:
        self.__dict__.update(state)
        self._load = functools.lru_cache(self.keep)(self._decode)


@TRANSFORMS.register_module()
class RandomQuarterTurn(BaseTransform):
    """Turn an image by 0, 90, 180 or 270 degrees; tissue has no upright.

    With ``RandomFlip`` in one direction all eight orientations come about.

    Required and modified keys:
        img: (H, W, 3).
        img_shape: height and width, px.
        gt_bboxes: ``HorizontalBoxes``, if there.
        gt_masks: ``PolygonMasks``, if there.
    """

    def transform(self, results: dict) -> dict:
        for _ in range(np.random.randint(4)):
            self._turn_once(results)
        results['img'] = np.ascontiguousarray(results['img'])
        return results

    @staticmethod
    def _turn_once(results: dict) -> None:
        """Turn to the left: (x, y) goes to (y, width - x)."""
        width = results['img'].shape[1]
        results['img'] = np.rot90(results['img'])
        results['img_shape'] = height, new_width = results['img'].shape[:2]
        if 'gt_bboxes' in results:
            x1, y1, x2, y2 = results['gt_bboxes'].tensor.unbind(-1)
            turned = (y1, width - x2, y2, width - x1)
            results['gt_bboxes'] = HorizontalBoxes(torch.stack(turned, dim=-1), clone=False)
        if 'gt_masks' in results:
            polygons = [
                [np.stack([ring[1::2], width - ring[0::2]], axis=1).ravel() for ring in nucleus]
                for nucleus in results['gt_masks'].masks
            ]
            results['gt_masks'] = PolygonMasks(polygons, height, new_width)

    def __repr__(self) -> str:
        return f'{type(self).__name__}()'


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


@TRANSFORMS.register_module()
class Orient(BaseTransform):
    """Give an image one of the eight orientations, for test-time augmentation.

    Required and modified keys:
        img: (H, W, 3).
        img_shape: height and width, px.

    Added key:
        orientation: the arguments, a pair.

    Args:
        flip: from left to right, before turning.
        turns: by 90 degrees to the left, 0 to 3.

    Raises:
        UserError: ``turns`` is another number.
    """

    def __init__(self, flip: bool = False, turns: int = 0) -> None:
        if turns not in range(4):
            raise UserError(f'turns is {turns}, expected 0, 1, 2 or 3')
        self.flip = flip
        self.turns = turns

    def transform(self, results: dict) -> dict:
        img = results['img'][:, ::-1] if self.flip else results['img']
        results['img'] = img = np.ascontiguousarray(np.rot90(img, self.turns))
        results['img_shape'] = img.shape[:2]
        results['orientation'] = (self.flip, self.turns)
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(flip={self.flip}, turns={self.turns})'


@TRANSFORMS.register_module()
class MoveTruth(BaseTransform):
    """Move truth that lies beside the nuclei onto them, before images are turned and flipped.

    Turned and flipped with its image, such truth lies beside the nuclei on all sides, and outlines
    learned from it are a mean of them. ``test_cfg.rcnn.truth_offset`` is the way back.

    Required and modified keys:
        gt_bboxes: ``HorizontalBoxes``.
        gt_masks: ``PolygonMasks``.

    Required key:
        img_shape: height and width, px; what is moved beyond the border is cut off.

    Args:
        offset: x, y, px, the same for all images.

    Raises:
        UserError: ``offset`` is not a pair.
    """

    def __init__(self, offset: Sequence[float]) -> None:
        if len(offset) != 2:
            raise UserError(f'offset is {offset}, expected x and y')
        self.offset = tuple(offset)

    def transform(self, results: dict) -> dict:
        shape = results['img_shape']
        boxes = results['gt_bboxes'].clone()
        boxes.translate_(self.offset)
        boxes.clip_(shape)
        results['gt_bboxes'] = boxes
        results['gt_masks'] = results['gt_masks'].translate(shape, self.offset, 'diagonal')
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(offset={self.offset})'
