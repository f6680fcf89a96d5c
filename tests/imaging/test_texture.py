"""Texture of nuclei, against scikit-image."""

import numpy as np
from skimage.feature import graycomatrix, graycoprops
from skimage.measure import regionprops

from nucseg_mmdet.imaging.stain import STAIN_OD
from nucseg_mmdet.imaging.texture import LEVELS, STEP, TEXTURE, texture
from nucseg_mmdet.synthetic import fields


def hematoxylin(image):
    density = -np.log10(np.maximum(image, 1) / 255) @ np.linalg.inv(STAIN_OD)
    return density[..., :2]


def test_as_scikit_image_has_it():
    image, labels = fields.synthesize(3, 120, 140)
    found = texture(labels, image, labels.max())
    assert found.dtype == np.float32
    density = hematoxylin(image)
    levels = np.clip(density[..., 0] / STEP, 0, LEVELS - 1).astype(np.uint8)
    for region in regionprops(labels, density):
        got = dict(zip(TEXTURE, found[region.label - 1], strict=True))
        np.testing.assert_allclose(
            [got['hematoxylin_od_sd'], got['eosin_od_sd']], region.intensity_std, rtol=1e-5
        )
        # The background is a level of its own, whose pairs are left out.
        y0, x0, y1, x1 = region.bbox
        gray = np.where(region.image, levels[y0:y1, x0:x1] + 1, 0).astype(np.uint8)
        angles = [0, np.pi / 4, np.pi / 2, 3 * np.pi / 4]
        matrix = graycomatrix(gray, [1], angles, LEVELS + 1, symmetric=True)[1:, 1:]
        expected = graycoprops(matrix, 'contrast').mean()
        np.testing.assert_allclose(got['hematoxylin_contrast'], expected, rtol=1e-5)


def test_two_levels_by_hand():
    # Stripes of black and white, one pixel wide, upright: neighbors along the stripes are alike.
    image = np.full((4, 6, 3), 255, np.uint8)
    image[:, ::2] = 128
    labels = np.zeros((4, 6), np.int32)
    labels[:, 1:5] = 2
    labels[0, 0] = 1
    found = texture(labels, image, 3)
    amount = hematoxylin(image)[0, 0, 0]
    step = int(amount / STEP)
    assert step > 0
    # Half of the pixels have it, the others none.
    np.testing.assert_allclose(found[1, 0], amount / 2, rtol=1e-6)
    assert found[1, 2] == step**2 * 3 / 4  # in three of four directions
    assert found[0, :2].tolist() == [0, 0]
    assert np.isnan(found[0, 2])  # one pixel has no pair
    assert np.isnan(found[2]).all()  # no pixel
