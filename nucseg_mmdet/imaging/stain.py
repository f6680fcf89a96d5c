"""Color of H&E images: stain strengths and two normalizations. NumPy, OpenCV.

Images are uint8, (H, W, 3), RGB. Optical densities are natural logarithms, but where
it is said.
"""

from typing import NamedTuple

import cv2
import numpy as np

# Optical density of hematoxylin, eosin and DAB (rows) in R, G, B (columns).
# Ruifrok and Johnston, Anal. Quant. Cytol. Histol. 23 (2001).
STAIN_OD = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11], [0.27, 0.57, 0.78]])

DENSITY_OF_GRAY = -np.log10(np.maximum(np.arange(256), 1) / 255)  # base 10; of 0 as of 1: finite

# Macenko et al., ISBI 2009, with the numbers of the code that the field uses,
# mitkovetta/staining-normalization.
GLASS = 240  # gray value of the light that no tissue takes from
MIN_DENSITY = 0.15  # mean of the channels; a pixel with less is glass
MAX_DENSITY = 3.0  # no nucleus is so dark in all channels; a black border or ink is
MIN_TISSUE = 0.01  # of the pixels; with less, noise of the glass would be taken for stains
MIN_ANGLE = 0.05  # radians between two stains; those of the class images are 0.3 to 0.7 apart

# Reinhard et al., IEEE Comput. Graph. Appl. 21 (2001): R, G, B to the responses of the cones
# L, M, S, and their logarithms to l, alpha, beta (Ruderman et al., J. Opt. Soc. Am. A 15, 1998).
RGB_TO_LMS = np.array(
    [[0.3811, 0.5783, 0.0402], [0.1967, 0.7244, 0.0782], [0.0241, 0.1288, 0.8444]]
)
LMS_TO_LAB = np.diag(1 / np.sqrt([3, 6, 2])) @ np.array([[1, 1, 1], [1, 1, -2], [1, -1, 0]])
MIN_SPREAD = 1e-3  # of l, alpha, beta; rounding to gray values alone makes 5e-4 at mid gray


class UnfitImageError(ValueError):
    """An image has too little color or tissue to be normalized, or to be a target."""


class Stains(NamedTuple):
    """The two stains of an image.

    Attributes:
        vectors: float, (2, 3), optical density of hematoxylin and eosin in R, G, B, of
            length 1.
        maxima: float, (2,), 99th percentile of the amount of each.
    """

    vectors: np.ndarray
    maxima: np.ndarray


class Colors(NamedTuple):
    """Mean and standard deviation of l, alpha, beta (log 10): float, (3,) each."""

    mean: np.ndarray
    std: np.ndarray


# Medians over the 24 training images of the class. Published targets (of the code above, of
# HistomicsTK) turn their cytoplasm gray and their glass violet.
TARGET_STAINS = Stains(
    np.array([[0.552, 0.740, 0.385], [0.048, 0.842, 0.537]]), np.array([2.52, 1.04])
)
TARGET_COLORS = Colors(np.array([-0.4513, -0.0397, 0.0193]), np.array([0.2602, 0.0465, 0.0098]))

# Covariances between the same images of the means, and of the natural logarithms of the spreads.
COVARIANCE_OF_MEAN = np.array(
    [[0.0324, 0.00482, -0.00128], [0.00482, 0.00109, -0.00006], [-0.00128, -0.00006, 0.00013]]
)
COVARIANCE_OF_LOG_STD = np.array(
    [[0.110, 0.102, 0.049], [0.102, 0.114, 0.036], [0.049, 0.036, 0.097]]
)


def scale_stains(img: np.ndarray, hematoxylin: float, eosin: float) -> np.ndarray:
    """Multiply the amounts of hematoxylin and eosin by one factor each.

    The optical density of a pixel is split into the three rows of ``STAIN_OD``, the amounts
    are scaled, and light passes through what results. The third row goes with eosin: eosin
    as scanned is a mixture of the second and the third, and takes a brown or a magenta cast
    when only one of them grows. White stays white.

    Args:
        img: uint8, (H, W, 3), RGB.
        hematoxylin: factor, 0 or more.
        eosin: factor, 0 or more.

    Returns:
        uint8, (H, W, 3), RGB.

    Source:
        Ruifrok and Johnston, Anal. Quant. Cytol. Histol. 23 (2001).
    """
    factors = np.diag([hematoxylin, eosin, eosin])
    density = _density(img, 256)
    return _pass_light(_mix(density, np.linalg.inv(STAIN_OD) @ factors @ STAIN_OD), img, 256)


def measure_stains(img: np.ndarray) -> Stains:
    """Find the stain vectors of an image and how much there is of each.

    Args:
        img: uint8, (H, W, 3), RGB.

    Raises:
        UnfitImageError: hardly any pixel is tissue, or all tissue has one color, more or
            less strong.

    Source:
        Macenko et al., ISBI 2009. Their maxima count tissue alone here, lest an image with
        much glass be overstained.
    """
    return _stains(_density(img, GLASS))


def normalize_stains(
    img: np.ndarray, target: Stains = TARGET_STAINS, source: Stains | None = None
) -> np.ndarray:
    """Replace the stains of an image by those of the target, amount for amount.

    Args:
        img: uint8, (H, W, 3), RGB.
        target: stains to give it.
        source: its own, or those of the slide that it is a tile of; by default measured.

    Returns:
        uint8, (H, W, 3), RGB.

    Raises:
        UnfitImageError: as ``measure_stains``.

    Source:
        Macenko et al., ISBI 2009.
    """
    density = _density(img, GLASS)
    source = source or _stains(density)
    # Splitting, scaling and mixing are one 3 x 3 matrix.
    scale = np.diag(target.maxima / source.maxima)
    matrix = np.linalg.pinv(source.vectors) @ scale @ target.vectors
    return _pass_light(_mix(density, matrix), img, GLASS)


def measure_colors(img: np.ndarray) -> Colors:
    """Mean and spread of an image in the color space l-alpha-beta.

    Args:
        img: uint8, (H, W, 3), RGB.

    Raises:
        UnfitImageError: hardly any pixel is tissue, or the image is gray.

    Source:
        Reinhard et al., IEEE Comput. Graph. Appl. 21 (2001).
    """
    return _colors(_log_lms(img), img)


def normalize_colors(
    img: np.ndarray, target: Colors = TARGET_COLORS, source: Colors | None = None
) -> np.ndarray:
    """Give an image the mean and spread of the target in l-alpha-beta.

    Glass counts like tissue, so it takes a tint where image and target have unlike shares of it.

    Args:
        img: uint8, (H, W, 3), RGB.
        target: mean and spread to give it.
        source: its own, or those of the slide that it is a tile of; by default measured.

    Returns:
        uint8, (H, W, 3), RGB.

    Raises:
        UnfitImageError: as ``measure_colors``.

    Source:
        Reinhard et al., IEEE Comput. Graph. Appl. 21 (2001).
    """
    log_lms = _log_lms(img)
    source = source or _colors(log_lms, img)
    to_lab, ratio = LMS_TO_LAB.T, target.std / source.std
    from_lab = np.linalg.inv(to_lab)
    log_lms = _mix(log_lms, to_lab @ np.diag(ratio) @ from_lab)
    log_lms += _single((target.mean - ratio * source.mean) @ from_lab)
    log_lms *= np.float32(np.log(10))
    lms = np.exp(log_lms, out=log_lms)
    # Not the inverse that the paper prints: that one makes white 1 % too blue.
    return _to_gray(_mix(lms, np.linalg.inv(RGB_TO_LMS).T), img, 256)


def tissue_share(img: np.ndarray) -> float:
    """Share of the pixels that are neither glass nor as dark as ink, 0 to 1.

    Args:
        img: uint8, (H, W, 3), RGB.
    """
    return _is_tissue(_density(img, GLASS)).mean()


def _mix(pixels: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """``pixels @ matrix``, float32, (N, 3); a BLAS would wake its threads for so thin a product."""
    return cv2.transform(pixels[:, None], matrix.T)[:, 0]


def _single(values: np.ndarray) -> np.ndarray:
    return values.astype(np.float32)


def _density(img: np.ndarray, light: float) -> np.ndarray:
    """Optical density of each pixel, float32, (H * W, 3); the 1 keeps black finite."""
    table = _single(-np.log((np.arange(256) + 1) / light))
    return np.take(table, img.reshape(-1, 3))


def _pass_light(density: np.ndarray, like: np.ndarray, light: float) -> np.ndarray:
    """What is left of the light behind ``density``, which is overwritten, as an image."""
    np.negative(density, out=density)
    return _to_gray(np.exp(density, out=density), like, light)


def _to_gray(fraction: np.ndarray, like: np.ndarray, light: float) -> np.ndarray:
    """Fractions of the light, overwritten, as gray values in the shape of the image ``like``."""
    fraction *= light
    fraction -= 0.5  # 1 as in _density, less 0.5 to round where the cast truncates
    np.clip(fraction, 0, 255, out=fraction)
    return fraction.astype(np.uint8).reshape(like.shape)


def _is_tissue(density: np.ndarray) -> np.ndarray:
    mean = density @ np.full(3, 1 / 3, dtype=np.float32)
    return (mean >= MIN_DENSITY) & (mean <= MAX_DENSITY)


def _tissue(density: np.ndarray) -> np.ndarray:
    """The rows of ``density`` that belong to tissue."""
    tissue = density[_is_tissue(density)]
    if len(tissue) < MIN_TISSUE * len(density):
        share = len(tissue) / len(density)
        raise UnfitImageError(f'tissue on {share:.2%} of it, expected {MIN_TISSUE:.0%} or more')
    return tissue


def _stains(density: np.ndarray) -> Stains:
    tissue = _tissue(density)
    # The eigenvectors of this product are the right singular vectors of ``tissue``.
    plane = np.linalg.eigh(tissue.T @ tissue)[1][:, :0:-1]  # columns, the larger one first
    # Densities are positive but for a little noise, and so is the first column, once its sign
    # is chosen: no angle comes near 180 degrees, where it would wrap.
    plane[:, 0] *= np.sign(plane[:, 0].sum())
    along, across = (tissue @ plane).T
    low, high = np.percentile(np.arctan2(across, along), [1, 99])
    if high - low < MIN_ANGLE:
        raise UnfitImageError(
            f'colors {high - low:.3f} radians apart in optical density, expected two stains '
            f'{MIN_ANGLE} or more apart'
        )
    vectors = np.array([[np.cos(a), np.sin(a)] for a in (low, high)]) @ plane.T
    vectors = vectors[np.argsort(-vectors[:, 0])]  # hematoxylin takes out more of the red
    amounts = tissue @ _single(np.linalg.pinv(vectors))
    return Stains(vectors, np.percentile(amounts, 99, axis=0))


def _log_lms(img: np.ndarray) -> np.ndarray:
    """Log 10 of the responses of the cones, float32, (H * W, 3)."""
    table = _single((np.arange(256) + 1) / 256)
    lms = _mix(np.take(table, img.reshape(-1, 3)), RGB_TO_LMS.T)
    return np.log10(lms, out=lms)


def _colors(log_lms: np.ndarray, img: np.ndarray) -> Colors:
    _tissue(_density(img, GLASS))  # stretched to the target, bare glass would look like tissue
    lab = _mix(log_lms, LMS_TO_LAB.T)
    colors = Colors(lab.mean(0, dtype=np.float64), lab.std(0, dtype=np.float64))
    if colors.std.min() < MIN_SPREAD:
        spread = ', '.join(f'{value:.1e}' for value in colors.std)
        raise UnfitImageError(f'spread of l, alpha, beta {spread}, expected {MIN_SPREAD} or more')
    return colors
