"""Colors of a set of images: their middle, and how they vary."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from nucseg_mmdet.imaging.stain import Colors


class SlideColors(NamedTuple):
    """Colors in l, alpha, beta as of a set of images.

    Attributes:
        middle: medians of the images' means and spreads.
        covariance_of_mean: float, (3, 3).
        covariance_of_log_std: float, (3, 3), of the natural logarithms of the spreads.
    """

    middle: Colors
    covariance_of_mean: np.ndarray
    covariance_of_log_std: np.ndarray


def summarize(colors: Sequence[Colors]) -> SlideColors:
    """Find the middle and the covariances of the colors of images.

    Args:
        colors: of each image, at least two.

    Raises:
        ValueError: there are fewer.
    """
    if len(colors) < 2:
        raise ValueError(f'{len(colors)} images, expected two or more to tell how they vary')
    means, stds = (np.array(values) for values in zip(*colors, strict=True))
    middle = Colors(np.median(means, axis=0), np.median(stds, axis=0))
    return SlideColors(middle, np.cov(means.T), np.cov(np.log(stds).T))
