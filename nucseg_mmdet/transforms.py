"""Transforms of H&E images: unpack mmdet's results, leave arithmetic on stains to ``stain``.

They are steps of a pipeline after loading. A config whose model shall see normalised images has
the same step in training and wherever the model runs::

    normalize = dict(type='MacenkoNormalize')
    train_dataloader = dict(dataset=dict(pipeline=[*_base_.load, normalize, ...]))
    test_dataloader = dict(
        dataset=dict(pipeline=[_base_.load[0], normalize, _base_.resize, _base_.pack])
    )

``tools/test.py`` and inference both take the test pipeline.
"""

import functools
import warnings
from collections.abc import Callable, Sequence
from typing import ClassVar

import cv2
import numpy as np
import torch
from mmcv.transforms import BaseTransform, LoadImageFromFile
from mmdet.registry import TRANSFORMS
from mmdet.structures.bbox import HorizontalBoxes
from mmdet.structures.mask import PolygonMasks

from nucseg_mmdet import stain
from nucseg_mmdet.errors import UserError
from nucseg_mmdet.masks import mask_to_polygons


def _warn(results: dict, problem: str) -> None:
    warnings.warn(f'{results.get("img_path") or "image"}: left as it is, {problem}', stacklevel=3)


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
class StainJitter(BaseTransform):
    """Make haematoxylin and eosin weaker or stronger at random.

    Each stain gets a factor of its own, in optical density; white glass stays white. An image
    of one colour is left as it is, with a warning.

    Required and modified key:
        img: uint8, (H, W, 3), BGR.

    Args:
        sigma: half-width of the uniform range of factors about 1, from 0 to below 1. 0 leaves
            the image as it is. Strengths spread between the class images as with 0.4.

    Raises:
        UserError: ``sigma`` is negative, or 1 or more.
    """

    def __init__(self, sigma: float = 0.25) -> None:
        if not 0 <= sigma < 1:
            raise UserError(f'sigma is {sigma}, expected 0 or more and less than 1')
        self.sigma = sigma

    def transform(self, results: dict) -> dict:
        img = results['img']
        factors = np.random.uniform(1 - self.sigma, 1 + self.sigma, size=2)
        if (img == img[0, 0]).all():
            _warn(results, 'it has one colour only')
            return results
        jittered = stain.scale_stains(img[..., ::-1], *factors)
        results['img'] = np.ascontiguousarray(jittered[..., ::-1])
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(sigma={self.sigma})'


class StainNormalize(BaseTransform):
    """What the normalisations share: targets, of which each image gets one.

    Required and modified key:
        img: uint8, (H, W, 3), BGR.

    Removed key:
        measured: what ``measure`` gave for the slide that the image is a tile of; without it
            the image is measured.
    """

    default: ClassVar[tuple]  # the target if none is given
    measure: ClassVar[Callable[[np.ndarray], tuple]]  # make a target of an image, RGB
    # Give it to an image, RGB, which is measured if the last argument is None.
    normalize: ClassVar[Callable[[np.ndarray, tuple, tuple | None], np.ndarray]]

    def __init__(self, target: str | Sequence[str] | None = None) -> None:
        self.target = target
        if target is None:
            self.targets = [self.default]
        else:
            paths = [target] if isinstance(target, str) else target
            self.targets = [self._read(path) for path in paths]
        if not self.targets:
            raise UserError('target is an empty list, expected paths of images')

    def _read(self, path: str) -> tuple:
        img = cv2.imread(path, cv2.IMREAD_COLOR)
        if img is None:
            raise UserError(f'{path}: no readable image, expected the target of a normalisation')
        try:
            return self.measure(img[..., ::-1])
        except stain.UnfitImageError as error:
            raise UserError(f'{path}: unfit as a target, {error}') from error

    def draw_target(self) -> tuple:
        return self.targets[np.random.randint(len(self.targets))]

    def transform(self, results: dict) -> dict:
        measured = results.pop('measured', None)
        try:
            normalized = self.normalize(results['img'][..., ::-1], self.draw_target(), measured)
        except stain.UnfitImageError as error:
            _warn(results, str(error))
            return results
        results['img'] = np.ascontiguousarray(normalized[..., ::-1])
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(target={self.target!r})'


@TRANSFORMS.register_module()
class MacenkoNormalize(StainNormalize):
    """Give the haematoxylin and the eosin of an image the colours and amounts of a target.

    Both stains are found in the image itself (Macenko et al., ISBI 2009). Glass stays as bright
    as it is. An image with hardly any tissue, or with a single stain, is left as it is, with a
    warning.

    Required and modified key:
        img: uint8, (H, W, 3), BGR.

    Args:
        target: an image file, or several, of which each image gets one at random. None takes
            the medians of the class training images.

    Raises:
        UserError: a target cannot be read or has too little tissue, or the list is empty.
    """

    default = stain.TARGET_STAINS
    measure = staticmethod(stain.measure_stains)
    normalize = staticmethod(stain.normalize_stains)


@TRANSFORMS.register_module()
class ReinhardNormalize(StainNormalize):
    """Give an image the mean and the spread of a target's colours, in l-alpha-beta.

    The whole image counts, glass too, as in the paper (Reinhard et al., IEEE Comput. Graph.
    Appl. 21, 2001): glass takes a tint where the image has much more or less of it than the
    target. ``MacenkoNormalize`` does not do that. An image that is grey or has hardly any
    tissue is left as it is, with a warning.

    Required and modified key:
        img: uint8, (H, W, 3), BGR.

    Args:
        target: an image file, or several, of which each image gets one at random. None takes
            the medians of the class training images.

    Raises:
        UserError: a target cannot be read or is grey, or the list is empty.
    """

    default = stain.TARGET_COLOURS
    measure = staticmethod(stain.measure_colours)
    normalize = staticmethod(stain.normalize_colours)


@TRANSFORMS.register_module()
class ReinhardJitter(ReinhardNormalize):
    """Give an image the colours of a made-up slide at random, for training (RandStainNA).

    The target of the Reinhard normalisation is drawn anew each time: mean and spread, in l-alpha-
    beta, of normal distributions like those of the class training images. So a model sees pale,
    dark, flat and pink slides that are not among its own. An image that cannot be normalised is
    left as it is, with a warning.

    Required and modified key:
        img: uint8, (H, W, 3), BGR; a crop is measured on its own.

    Args:
        strength: of the variation, as a multiple of that between the class images, 0 or more.

    Raises:
        UserError: ``strength`` is negative.

    Source:
        Shen et al., RandStainNA, MICCAI 2022. There the six values are drawn one by one; here
        the three means are drawn together, as are the three spreads.
    """

    def __init__(self, strength: float = 1.0) -> None:
        if not strength >= 0:  # nor nan
            raise UserError(f'strength is {strength}, expected 0 or more')
        super().__init__()
        self.strength = strength

    def draw_target(self) -> stain.Colours:
        mean, log_ratio = (
            self.strength * np.random.multivariate_normal(np.zeros(3), covariance)
            for covariance in (stain.COVARIANCE_OF_MEAN, stain.COVARIANCE_OF_LOG_STD)
        )
        return stain.Colours(self.default.mean + mean, self.default.std * np.exp(log_ratio))

    def __repr__(self) -> str:
        return f'{type(self).__name__}(strength={self.strength})'
