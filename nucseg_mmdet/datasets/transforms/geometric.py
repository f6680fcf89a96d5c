"""Turns, flips and offsets of images and their truth."""

from collections.abc import Sequence

import numpy as np
import torch
from mmcv.transforms import BaseTransform
from mmdet.registry import TRANSFORMS
from mmdet.structures.bbox import HorizontalBoxes
from mmdet.structures.mask import PolygonMasks

from nucseg_mmdet.utils.errors import UserError


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
        truth_offset: x, y, px, of this image (``MeasureTruthOffset``), unless ``offset`` is given.

    Args:
        offset: x, y, px, the same for all images; by default each image has its own. Images must
            not have been turned, flipped or enlarged since it was measured.

    Raises:
        UserError: ``offset`` is not a pair, or an image has none and none is given.
    """

    def __init__(self, offset: Sequence[float] | None = None) -> None:
        if offset is not None and len(offset) != 2:
            raise UserError(f'offset is {offset}, expected x and y')
        self.offset = None if offset is None else tuple(offset)

    def transform(self, results: dict) -> dict:
        offset = self.offset or results.get('truth_offset')
        if offset is None:
            raise UserError('MoveTruth has no offset: give it one, or MeasureTruthOffset before it')
        shape = results['img_shape']
        boxes = results['gt_bboxes'].clone()
        boxes.translate_(offset)
        boxes.clip_(shape)
        results['gt_bboxes'] = boxes
        results['gt_masks'] = results['gt_masks'].translate(shape, offset, 'diagonal')
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(offset={self.offset})'
