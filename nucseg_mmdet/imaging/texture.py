"""How even the stains of nuclei are, for all nuclei of an image at once. NumPy only."""

import numpy as np

from nucseg_mmdet.imaging.stain import STAIN_OD

TEXTURE = ('hematoxylin_od_sd', 'eosin_od_sd', 'hematoxylin_contrast')
LEVELS = 32  # of the hematoxylin's density, for the contrast
STEP = 0.05  # optical density of a level; what is above 1.6 is of the highest one
# Pixels next to each other in four directions, rows and columns: scikit-image's angles 0,
# 45, 90 and 135 degrees at distance 1.
OFFSETS = ((0, 1), (1, 1), (1, 0), (1, -1))


def texture(labels: np.ndarray, image: np.ndarray, num: int) -> np.ndarray:
    """Measure how stains vary within nuclei.

    - hematoxylin_od_sd, eosin_od_sd: standard deviation over the pixels of the nucleus of the
      density of which ``measure`` has the mean (base 10, Ruifrok and Johnston's vectors), as
      ``intensity_std`` of ``skimage.measure.regionprops``.
    - hematoxylin_contrast: Haralick's contrast of the hematoxylin's density in 32 levels of 0.05,
      that is the mean squared difference of levels over pairs of neighboring pixels that are both
      in the nucleus: ``graycoprops(graycomatrix(...), 'contrast')`` of scikit-image, distance 1,
      mean of the four angles. Undefined for a nucleus without such a pair at an angle.

    Args:
        labels: int, (H, W); 0 is background, nuclei are 1..num.
        image: uint8, (H, W, 3), RGB.
        num: of nuclei, N.

    Returns:
        float32, (N, len(TEXTURE)), in this order; NaN for a nucleus without a pixel.

    Source:
        Haralick et al., "Textural features for image classification", IEEE Trans. Syst. Man
        Cybern. 3 (1973).
    """
    pixels = np.flatnonzero(labels)
    owner = labels.reshape(-1)[pixels] - 1
    table = -np.log10(np.maximum(np.arange(256), 1) / 255)  # as ``measure``
    density = table[image.reshape(-1, 3)[pixels]] @ np.linalg.inv(STAIN_OD)[:, :2]
    area = np.bincount(owner, minlength=num).astype(float)
    area[area == 0] = np.nan
    columns = []
    for amount in density.T:
        mean = np.bincount(owner, amount, num) / area
        columns.append(np.sqrt(np.bincount(owner, (amount - mean[owner]) ** 2, num) / area))

    levels = np.zeros(labels.shape, np.int16)
    levels.reshape(-1)[pixels] = np.clip(density[:, 0] / STEP, 0, LEVELS - 1)
    contrasts = [_contrast(labels, levels, num, *offset) for offset in OFFSETS]
    return np.stack([*columns, np.mean(contrasts, 0)], 1).astype(np.float32)


def _contrast(
    labels: np.ndarray, levels: np.ndarray, num: int, down: int, right: int
) -> np.ndarray:
    """Mean squared difference of pixels and those at an offset, in the same nucleus: (num,)."""
    height, width = labels.shape
    left = max(-right, 0)
    here = np.s_[: height - down, left : width - max(right, 0)]
    there = np.s_[down:, left + right : width - max(right, 0) + right]
    pair = (labels[here] == labels[there]) & (labels[here] > 0)
    owner = labels[here][pair] - 1
    squares = (levels[here][pair] - levels[there][pair]).astype(float) ** 2
    count = np.bincount(owner, minlength=num).astype(float)
    count[count == 0] = np.nan
    return np.bincount(owner, squares, num) / count
