"""Stain strengths and normalizations against the papers' formulas in double precision."""

import subprocess
import sys

import cv2
import numpy as np
import pytest
from skimage.color import combine_stains, hed_from_rgb, rgb_from_hed, separate_stains

from nucseg_mmdet.imaging import stain
from nucseg_mmdet.synthetic.fields import synthesize

# Hematoxylin and eosin of a made-up laboratory, and of another; optical density in R, G, B.
HERE = np.array([[0.62, 0.69, 0.37], [0.15, 0.85, 0.50]])
THERE = np.array([[0.50, 0.76, 0.42], [0.25, 0.80, 0.55]])
HERE /= np.linalg.norm(HERE, axis=1, keepdims=True)
THERE /= np.linalg.norm(THERE, axis=1, keepdims=True)


@pytest.fixture(scope='module')
def tissue():
    return synthesize(4, 96, 128)[0]


def mixture(share=0.5, seed=0):
    """Amounts of both stains, (120, 120, 2): a tenth of the pixels has one stain alone."""
    rng = np.random.default_rng(seed)
    amounts = rng.uniform(0.2, 1.0, (14_400, 2))
    amounts[:720, 0] = 0
    amounts[720:1440, 1] = 0
    amounts[1440:] *= 2 * np.array([share, 1 - share])
    return amounts.reshape(120, 120, 2)


def render(amounts, vectors, light=240):
    return np.clip(np.rint(light * np.exp(-amounts @ vectors) - 1), 0, 255).astype(np.uint8)


def largest_difference(left, right):
    return np.abs(left.astype(int) - right).max()


def test_imports_neither_torch_nor_mm():
    code = (
        'import sys, nucseg_mmdet.imaging.stain; '
        'sys.exit(any(m.split(".")[0] in ("torch", "mmcv", "mmdet", "mmengine", "scipy") '
        'for m in sys.modules))'
    )
    assert subprocess.run([sys.executable, '-c', code]).returncode == 0


@pytest.mark.parametrize(('hematoxylin', 'eosin'), [(0.6, 1.0), (1.0, 1.4), (1.3, 0.7)])
def test_scaling_is_the_formula(hematoxylin, eosin):
    img = np.random.default_rng(1).integers(0, 256, (64, 80, 3), dtype=np.uint8)
    amounts = -np.log((img + 1.0) / 256) @ np.linalg.inv(stain.STAIN_OD)
    light = 256 * np.exp(-(amounts * [hematoxylin, eosin, eosin]) @ stain.STAIN_OD) - 1
    expected = np.clip(np.rint(light), 0, 255)
    assert largest_difference(stain.scale_stains(img, hematoxylin, eosin), expected) <= 1


def test_scaling_agrees_with_skimage(tissue):
    np.testing.assert_array_equal(stain.STAIN_OD, rgb_from_hed)
    amounts = separate_stains((tissue + 1.0) / 256, hed_from_rgb)
    kept = (amounts > 0).all(-1)  # skimage sets negative amounts to 0
    assert kept.mean() > 0.5
    expected = 256 * combine_stains(amounts * [1.3, 0.8, 0.8], rgb_from_hed) - 1
    scaled = stain.scale_stains(tissue, 1.3, 0.8)
    assert largest_difference(scaled[kept], expected[kept]) <= 1


@pytest.mark.parametrize(('row', 'factors'), [(0, (2, 1)), (1, (1, 2)), (2, (1, 2))])
def test_twice_one_stain(row, factors):
    """A pixel of one stain alone gets twice its density, and the other factor plays no part."""
    img = np.rint(256 * np.exp(-0.5 * stain.STAIN_OD[row]) - 1).astype(np.uint8)[None, None]
    doubled = 256 * np.exp(-1.0 * stain.STAIN_OD[row]) - 1
    # Half a gray value of rounding in the input becomes up to one of the output.
    np.testing.assert_allclose(stain.scale_stains(img, *factors)[0, 0], doubled, atol=1.6)


def test_factor_1_changes_nothing_and_white_stays():
    img = np.random.default_rng(2).integers(0, 256, (256, 256, 3), dtype=np.uint8)
    np.testing.assert_array_equal(stain.scale_stains(img, 1, 1), img)
    white = np.full((4, 5, 3), 255, dtype=np.uint8)
    np.testing.assert_array_equal(stain.scale_stains(white, 1.7, 0.4), white)


@pytest.mark.parametrize('share', [0.2, 0.5, 0.8])
def test_stains_of_a_mixture_are_found(share):
    """Whichever of the two there is more of, the redder-absorbing one comes first."""
    amounts = mixture(share)
    found = stain.measure_stains(render(amounts, HERE))
    # Gray values are whole numbers, and 1 % of the angles lie outside the percentiles.
    np.testing.assert_allclose(found.vectors, HERE, atol=0.01)
    np.testing.assert_allclose(found.maxima, np.percentile(amounts, 99, axis=(0, 1)), rtol=0.02)


def test_glass_does_not_count():
    img = render(mixture(), HERE)
    glass = np.full((360, 120, 3), 238, dtype=np.uint8)
    found = stain.measure_stains(np.concatenate([img, glass]))
    for value, expected in zip(found, stain.measure_stains(img), strict=True):
        np.testing.assert_allclose(value, expected, rtol=1e-5)


def test_normalized_mixture_is_the_other_laboratorys():
    amounts = mixture()
    target = stain.Stains(THERE, 1.2 * np.percentile(amounts, 99, axis=(0, 1)))
    normalized = stain.normalize_stains(render(amounts, HERE), target)
    difference = np.abs(normalized.astype(int) - render(1.2 * amounts, THERE))
    assert difference.mean() < 1
    assert difference.max() <= 4  # where dark: rounding of 1 in 50 gray values is 2 %, and so on


def test_stain_normalization_is_the_paper(tissue):
    """Macenko et al. step by step: density, threshold, plane, angles, amounts, new light."""
    density = -np.log((tissue.reshape(-1, 3) + 1.0) / 240)
    kept = density[density.mean(1) >= 0.15]
    first, second = np.linalg.svd(kept, full_matrices=False)[2][:2]
    first = first if first @ kept.mean(0) > 0 else -first
    angles = np.arctan2(kept @ second, kept @ first)
    ends = [
        np.cos(angle) * first + np.sin(angle) * second for angle in np.percentile(angles, [1, 99])
    ]
    vectors = np.array(sorted(ends, key=lambda vector: vector[0], reverse=True))
    maxima = np.percentile(np.linalg.lstsq(vectors.T, kept.T, rcond=None)[0], 99, axis=1)
    amounts = np.linalg.lstsq(vectors.T, density.T, rcond=None)[0].T
    target = stain.Stains(THERE, np.array([2.0, 1.0]))
    light = 240 * np.exp(-(amounts * target.maxima / maxima) @ target.vectors) - 1
    expected = np.clip(np.rint(light), 0, 255).reshape(tissue.shape)

    found = stain.measure_stains(tissue)
    np.testing.assert_allclose(found.vectors, vectors, atol=1e-4)
    np.testing.assert_allclose(found.maxima, maxima, rtol=1e-4)
    assert largest_difference(stain.normalize_stains(tissue, target), expected) <= 1


def lms_and_lab(img):
    """Equations 4 to 6 of Reinhard et al., written out."""
    red, green, blue = np.moveaxis((img + 1.0) / 256, -1, 0)
    long = np.log10(0.3811 * red + 0.5783 * green + 0.0402 * blue)
    medium = np.log10(0.1967 * red + 0.7244 * green + 0.0782 * blue)
    short = np.log10(0.0241 * red + 0.1288 * green + 0.8444 * blue)
    lightness = (long + medium + short) / np.sqrt(3)
    alpha = (long + medium - 2 * short) / np.sqrt(6)
    return np.stack([lightness, alpha, (long - medium) / np.sqrt(2)], axis=-1)


def test_colors_are_those_of_the_paper(tissue):
    lab = lms_and_lab(tissue)
    found = stain.measure_colors(tissue)
    np.testing.assert_allclose(found.mean, lab.mean((0, 1)), atol=1e-6)
    np.testing.assert_allclose(found.std, lab.std((0, 1)), atol=1e-6)


def test_color_normalization_is_the_paper(tissue):
    """Equations 10 and 11, and the way back: equations 7 to 9."""
    lab = lms_and_lab(tissue)
    target = stain.Colors(np.array([-0.4, -0.03, 0.015]), np.array([0.2, 0.04, 0.01]))
    lab = (lab - lab.mean((0, 1))) * target.std / lab.std((0, 1)) + target.mean
    lightness, alpha, beta = np.moveaxis(lab / np.sqrt([3, 6, 2]), -1, 0)
    lms = 10 ** np.stack(
        [lightness + alpha + beta, lightness + alpha - beta, lightness - 2 * alpha], axis=-1
    )
    to_lms = np.array(
        [[0.3811, 0.5783, 0.0402], [0.1967, 0.7244, 0.0782], [0.0241, 0.1288, 0.8444]]
    )
    light = 256 * np.linalg.solve(to_lms, lms[..., None])[..., 0] - 1
    expected = np.clip(np.rint(light), 0, 255)
    normalized = stain.normalize_colors(tissue, target)
    assert largest_difference(normalized, expected) <= 1
    # The inverse as printed gives nearly the same; its blue is about 1 % too bright.
    back = [[4.4679, -3.5873, 0.1193], [-1.2186, 2.3809, -0.1624], [0.0497, -0.2439, 1.2045]]
    assert np.abs(normalized - np.clip(256 * lms @ np.transpose(back) - 1, 0, 255)).max() < 3


def test_normalized_colors_have_the_targets_mean_and_spread(tissue):
    target = stain.Colors(np.array([-0.5, -0.03, 0.015]), np.array([0.1, 0.03, 0.008]))
    lab = lms_and_lab(stain.normalize_colors(tissue, target))
    # Rounding to gray values; nothing is clipped at this spread.
    np.testing.assert_allclose(lab.mean((0, 1)), target.mean, atol=2e-4)
    np.testing.assert_allclose(lab.std((0, 1)), target.std, atol=2e-4)


def uniform(*color):
    return np.full((40, 40, 3), color, dtype=np.uint8)


def noise(low, high):
    return np.random.default_rng(3).integers(low, high, (40, 40, 3), dtype=np.uint8)


def ramp(color):
    """One color, more or less strong."""
    return render(np.linspace(0.2, 2, 1600).reshape(40, 40, 1), np.array([color]))


def speck():
    """Bare glass but for 9 px of tissue."""
    img = noise(236, 246)
    img[5:8, 5:8] = 150, 60, 120
    return img


UNFIT = {
    'white': uniform(255, 255, 255),
    'black': uniform(0, 0, 0),
    'one color': uniform(180, 90, 140),
    'gray ramp': ramp([1.0, 1.0, 1.0]),
    'glass': noise(236, 246),
    'dark noise': noise(0, 3),
    'speck': speck(),
}


@pytest.mark.parametrize('img', UNFIT.values(), ids=UNFIT)
@pytest.mark.parametrize('normalize', [stain.normalize_stains, stain.normalize_colors])
def test_unfit_images_are_refused(normalize, img):
    with pytest.raises(stain.UnfitImageError, match='expected'):
        normalize(img)


def test_a_single_stain_is_refused():
    with pytest.raises(stain.UnfitImageError, match='expected two stains'):
        stain.measure_stains(ramp([0.2, 0.8, 0.5]))


@pytest.mark.slow
def test_targets_are_the_class_medians(class_data):
    images = [
        cv2.imread(str(path), cv2.IMREAD_COLOR)[..., ::-1]
        for path in class_data.glob('train/*/images/*.png')
    ]
    assert len(images) == 24
    stains = [stain.measure_stains(img) for img in images]
    vectors = np.median([one.vectors for one in stains], axis=0)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    maxima = np.median([one.maxima for one in stains], axis=0)
    np.testing.assert_allclose(stain.TARGET_STAINS.vectors, vectors, atol=6e-4)
    np.testing.assert_allclose(stain.TARGET_STAINS.maxima, maxima, atol=6e-3)
    means, stds = np.swapaxes([stain.measure_colors(img) for img in images], 0, 1)
    np.testing.assert_allclose(stain.TARGET_COLORS.mean, np.median(means, axis=0), atol=6e-5)
    np.testing.assert_allclose(stain.TARGET_COLORS.std, np.median(stds, axis=0), atol=6e-5)
    np.testing.assert_allclose(stain.COVARIANCE_OF_MEAN, np.cov(means.T), atol=6e-5)
    np.testing.assert_allclose(stain.COVARIANCE_OF_LOG_STD, np.cov(np.log(stds).T), atol=6e-4)
