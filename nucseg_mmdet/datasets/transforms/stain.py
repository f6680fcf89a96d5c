"""Transforms of H&E images: unpack mmdet's results, leave arithmetic on stains to ``stain``.

They are steps of a pipeline after loading. A config whose model shall see normalized images has
the same step in training and wherever the model runs::

    normalize = dict(type='MacenkoNormalize')
    train_dataloader = dict(dataset=dict(pipeline=[*_base_.load, normalize, ...]))
    test_dataloader = dict(
        dataset=dict(pipeline=[_base_.load, normalize, _base_.resize, _base_.pack_test])
    )

``tools/test.py`` and inference both take the test pipeline.
"""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Generic, TypeVar

import numpy as np
from mmcv.transforms import BaseTransform
from mmdet.registry import TRANSFORMS

from nucseg_mmdet.imaging import stain
from nucseg_mmdet.imaging.image_files import read_color
from nucseg_mmdet.utils.errors import UserError

Target = TypeVar('Target', stain.Stains, stain.Colors)


def _numbers(value: object) -> np.ndarray:
    """As an array, float.

    Raises:
        UserError: it is something else.
    """
    try:
        return np.asarray(value, dtype=float)
    except (TypeError, ValueError):
        raise UserError(f'{value!r} in the stains of a config, expected numbers') from None


def _warn(results: dict, problem: str) -> None:
    warnings.warn(f'{results.get("img_path") or "image"}: left as it is, {problem}', stacklevel=3)


@TRANSFORMS.register_module()
class StainJitter(BaseTransform):
    """Make hematoxylin and eosin weaker or stronger at random.

    Each stain gets a factor of its own, in optical density; white glass stays white. An image
    of one color is left as it is, with a warning.

    Required and modified key:
        img: uint8, (H, W, 3), BGR.

    Args:
        sigma: half-width of the uniform range of factors about 1, from 0 to below 1. 0 leaves
            the image as it is. Strengths spread between the class images as with 0.4.

    Raises:
        UserError: ``sigma`` is no number, negative, or 1 or more.
    """

    def __init__(self, sigma: float = 0.25) -> None:
        if not isinstance(sigma, int | float) or not 0 <= sigma < 1:
            raise UserError(f'sigma is {sigma!r}, expected 0 or more and less than 1')
        self.sigma = sigma

    def transform(self, results: dict) -> dict:
        img = results['img']
        hematoxylin, eosin = np.random.uniform(1 - self.sigma, 1 + self.sigma, size=2)
        if (img == img[0, 0]).all():
            _warn(results, 'it has one color only')
            return results
        jittered = stain.scale_stains(img[..., ::-1], hematoxylin, eosin)
        results['img'] = np.ascontiguousarray(jittered[..., ::-1])
        return results

    def __repr__(self) -> str:
        return f'{type(self).__name__}(sigma={self.sigma})'


class StainNormalize(BaseTransform, Generic[Target]):
    """What the normalizations share: targets, of which each image gets one.

    Required and modified key:
        img: uint8, (H, W, 3), BGR.

    Removed key:
        measured: what ``measure`` gave for the slide that the image is a tile of; without it
            the image is measured.
    """

    default: Target  # if none is given

    @staticmethod
    def measure(img: np.ndarray) -> Target:
        """Make a target of an image, RGB."""
        raise NotImplementedError

    @staticmethod
    def normalize(img: np.ndarray, target: Target, source: Target | None = None) -> np.ndarray:
        """Give a target to an image, RGB, which is measured if the last argument is None."""
        raise NotImplementedError

    def __init__(self, target: str | Sequence[str] | dict | None = None) -> None:
        self.target = target
        if target is None:
            self.targets = [self.default]
        elif isinstance(target, dict):
            self.targets = [self._fill(target)]
        else:
            paths = [target] if isinstance(target, str) else target
            if not isinstance(paths, list | tuple) or any(not isinstance(p, str) for p in paths):
                raise UserError(f'target is {target!r}, expected paths of images or numbers')
            self.targets = [self._read(path) for path in paths]
        if not self.targets:
            raise UserError('target is an empty list, expected paths of images')

    def _fill(self, target: dict) -> Target:
        fields = {key: _numbers(value) for key, value in target.items()}
        shapes = {key: value.shape for key, value in self.default._asdict().items()}
        if {key: value.shape for key, value in fields.items()} != shapes:
            raise UserError(f'target is {target}, expected numbers of the shapes {shapes}')
        return type(self.default)(**fields)

    def _read(self, path: str) -> Target:
        img = read_color(Path(path))
        try:
            return self.measure(img[..., ::-1])
        except stain.UnfitImageError as error:
            raise UserError(f'{path}: unfit as a target, {error}') from error

    def draw_target(self) -> Target:
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
class MacenkoNormalize(StainNormalize[stain.Stains]):
    """Give the hematoxylin and the eosin of an image the colors and amounts of a target.

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
class ReinhardNormalize(StainNormalize[stain.Colors]):
    """Give an image the mean and the spread of a target's colors, in l-alpha-beta.

    The whole image counts, glass too, as in the paper (Reinhard et al., IEEE Comput. Graph.
    Appl. 21, 2001): glass takes a tint where the image has much more or less of it than the
    target. ``MacenkoNormalize`` does not do that. An image that is gray or has hardly any
    tissue is left as it is, with a warning.

    Required and modified key:
        img: uint8, (H, W, 3), BGR.

    Args:
        target: an image file, or several, of which each image gets one at random, or numbers,
            ``dict(mean=..., std=...)`` of l, alpha, beta. None takes the medians of the class
            training images.

    Raises:
        UserError: a target cannot be read or is gray, the list is empty, or a number is missing.
    """

    default = stain.TARGET_COLORS
    measure = staticmethod(stain.measure_colors)
    normalize = staticmethod(stain.normalize_colors)


@TRANSFORMS.register_module()
class ReinhardJitter(ReinhardNormalize):
    """Give an image the colors of a made-up slide at random, for training (RandStainNA).

    The target of the Reinhard normalization is drawn anew each time: mean and spread, in l-alpha-
    beta, of normal distributions like those of the class training images. So a model sees pale,
    dark, flat and pink slides that are not among its own. An image that cannot be normalized is
    left as it is, with a warning.

    Required and modified key:
        img: uint8, (H, W, 3), BGR; a crop is measured on its own.

    Args:
        strength: of the variation, as a multiple of that between the images, 0 or more.
        slides: what made-up slides vary about and how: ``mean`` and ``std``, 3 numbers each,
            ``covariance_of_mean`` and ``covariance_of_log_std``, 3 x 3. None takes those of the
            class training images.

    Raises:
        UserError: ``strength`` is no number or negative, or a number of ``slides`` is missing.

    Source:
        Shen et al., RandStainNA, MICCAI 2022. There the six values are drawn one by one; here
        the three means are drawn together, as are the three spreads.
    """

    def __init__(self, strength: float = 1.0, slides: dict | None = None) -> None:
        if not isinstance(strength, int | float) or not strength >= 0:  # nor nan
            raise UserError(f'strength is {strength!r}, expected 0 or more')
        if not isinstance(slides, dict | None):
            raise UserError(f'slides is {slides!r}, expected numbers by their names')
        middle = slides and {key: slides.get(key) for key in ('mean', 'std')}
        super().__init__(middle)
        self.strength = strength
        self.slides = slides
        self.covariances = stain.COVARIANCE_OF_MEAN, stain.COVARIANCE_OF_LOG_STD
        if slides is not None:
            keys = ('covariance_of_mean', 'covariance_of_log_std')
            self.covariances = tuple(_numbers(slides.get(key)) for key in keys)
            if any(each.shape != (3, 3) for each in self.covariances):
                raise UserError(f'slides is {slides}, expected {" and ".join(keys)} of 3 x 3')

    def draw_target(self) -> stain.Colors:
        mean, log_ratio = (
            self.strength * np.random.multivariate_normal(np.zeros(3), covariance)
            for covariance in self.covariances
        )
        middle = self.targets[0]
        return stain.Colors(middle.mean + mean, middle.std * np.exp(log_ratio))

    def __repr__(self) -> str:
        return f'{type(self).__name__}(strength={self.strength}, slides={self.slides})'
