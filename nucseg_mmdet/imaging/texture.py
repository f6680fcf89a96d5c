"""How even the stains of nuclei are, for all nuclei of an image at once."""

import numpy as np

from nucseg_mmdet.imaging.stain import DENSITY_OF_GRAY, STAIN_OD

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
    width = labels.shape[1]
    # A border, so that every neighbor is there.
    step, border = width + 2, ((0, 1), (1, 1))
    framed = np.pad(labels, border).reshape(-1)
    pixels = np.flatnonzero(framed)
    number = framed[pixels]
    owner = number.astype(np.intp) - 1
    colors = np.pad(image, (*border, (0, 0))).reshape(-1, 3)[pixels]
    density = DENSITY_OF_GRAY.astype(np.float32)[colors]
    amounts = density @ np.linalg.inv(STAIN_OD)[:, :2].astype(np.float32)
    area = np.bincount(owner, minlength=num).astype(float)
    area[area == 0] = np.nan
    columns = []
    for amount in amounts.T:
        mean = (np.bincount(owner, amount, num) / area).astype(np.float32)
        columns.append(np.sqrt(np.bincount(owner, (amount - mean[owner]) ** 2, num) / area))

    levels = np.zeros(len(framed), np.int16)
    levels[pixels] = np.clip(amounts[:, 0] / STEP, 0, LEVELS - 1)
    contrasts = []
    for down, right in OFFSETS:
        other = pixels + (down * step + right)
        is_pair = framed[other] == number
        squares = (levels[pixels] - levels[other]) ** 2 * is_pair
        count = np.bincount(owner, is_pair, num)
        count[count == 0] = np.nan
        contrasts.append(np.bincount(owner, squares, num) / count)
    return np.stack([*columns, np.mean(contrasts, 0)], 1).astype(np.float32)
