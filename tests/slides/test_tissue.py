"""Tissue against glass: what is kept, what is passed over."""

import cv2
import numpy as np
import pytest

from nucseg_mmdet.slides.base import ArraySlide
from nucseg_mmdet.slides.open import open_slide
from nucseg_mmdet.slides.tissue import TissueMask, draw_mask, find_tissue, tissue_mask

WHITE, YELLOW, GRAY, BLUISH = (243, 242, 243), (243, 240, 226), (218, 219, 220), (225, 232, 240)
TISSUE = (190, 120, 170)
# What eosin of a tenth of the usual strength leaves of white light.
FAINT = (243, 230, 238)
GRAYISH, BROWN = (150, 149, 151), (240, 228, 205)


def glass(color, size=100):
    """Low-power glass: a little noise, and corners 5 gray levels darker than the middle."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[-1 : 1 : size * 1j, -1 : 1 : size * 1j]
    image = np.array(color) + rng.normal(0, 0.4, (size, size, 3)) - 2.5 * (x**2 + y**2)[..., None]
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


@pytest.mark.parametrize('color', [WHITE, YELLOW, GRAY, BLUISH, (255, 255, 255)])
def test_glass_is_empty(color):
    assert not find_tissue(glass(color)).any()


@pytest.mark.parametrize('color', [WHITE, YELLOW, GRAY, BLUISH])
@pytest.mark.parametrize('stain', [TISSUE, FAINT])
def test_tissue_on_glass(color, stain):
    image = glass(color).astype(float)
    image[30:60, 20:70] *= np.array(stain) / WHITE  # the stain takes its share of any light
    expected = np.zeros((100, 100), bool)
    expected[30:60, 20:70] = True
    assert (find_tissue(image.astype(np.uint8)) == expected).mean() > 0.99


@pytest.mark.parametrize('stain', [TISSUE, FAINT, (120, 70, 130), (235, 215, 228), GRAYISH, BROWN])
def test_an_image_full_of_tissue_is_kept_whole(stain):
    rng = np.random.default_rng(0)
    image = np.clip(np.array(stain) + rng.normal(0, 0.4, (50, 50, 3)), 0, 255)
    assert find_tissue(image.astype(np.uint8)).mean() > 0.99


@pytest.mark.parametrize(
    ('color', 'is_tissue'),
    [
        *(((223, 243, 243), True), ((243, 223, 243), True), ((243, 243, 223), True)),
        *(((243, 236, 231), False), ((231, 236, 243), False)),  # a shade of yellow, of blue
    ],
)
def test_one_dark_channel_is_enough(color, is_tissue):
    image = np.full((100, 100, 3), 243, np.uint8)
    image[30:40, 20:30] = color
    assert find_tissue(image).sum() == (100 if is_tissue else 0)


def test_glass_is_the_brightest_of_what_may_be_glass():
    image = np.full((100, 100, 3), WHITE, np.uint8)
    image[:85] = (228, 227, 229)  # pale and gray: ln(244 / 229) is 0.063
    assert find_tissue(image).sum(axis=1).tolist() == [100] * 85 + [0] * 15


def test_black_borders_are_passed_over_and_pens_are_kept():
    image = glass(WHITE)
    image[:, :10] = 0
    image[:, 10] = 120  # the pixel that the border ends in
    image[20:25, 30:60] = (30, 60, 160)
    image[40:45, 30:60] = (20, 140, 70)
    image[60:65, 30:60] = (25, 25, 30)
    image[80:85, 30:60] = (0, 5, 160)
    found = find_tissue(image)
    assert not found[:, :20].any()
    assert found[:, 30:60].sum() == 4 * 5 * 30


def test_mask_has_a_margin_of_32_microns():
    image = np.full((1600, 1600, 3), 243, np.uint8)
    image[640:960, 640:960] = TISSUE
    # 10 x 10 px of 32 level-0 px, 8 microns; the margin is 4 px of them.
    mask = tissue_mask(ArraySlide(image, 0.25))
    assert (mask.scale, mask.tissue.shape) == (32, (50, 50))
    assert mask.tissue.sum() == 100
    # 320 px of 0.25 microns.
    assert mask.area_mm2(0.25, (0, 0, 1600, 1600)) == pytest.approx(0.08**2)
    rows, columns = mask.keep.any(axis=1), mask.keep.any(axis=0)
    assert np.flatnonzero(rows).tolist() == np.flatnonzero(columns).tolist() == [*range(16, 34)]
    assert not mask.keep[16, 16]  # it is round


@pytest.mark.parametrize('side', [20, 40, 300, 331, 1000])
def test_area_of_an_image_full_of_tissue_is_its_own(side):
    """Also where its sides are no multiples of 32 px, the pixels of the mask."""
    slide = ArraySlide(np.full((side, side + 7, 3), TISSUE, np.uint8), 0.25)
    found = tissue_mask(slide).area_mm2(0.25, (0, 0, side + 7, side))
    assert found == pytest.approx(side * (side + 7) * 0.25**2 / 1e6, rel=1e-9)


def test_area_in_a_region():
    image = np.full((640, 640, 3), 243, np.uint8)
    image[32:, 320:] = TISSUE
    mask = tissue_mask(ArraySlide(image, 0.5))  # pixels of 16 level-0 px
    assert mask.tissue.sum() == 38 * 20
    # Of 310 to 410 the last 90 px have tissue, of 25 to 75 the last 43.
    found = mask.area_mm2(0.5, (310, 25, 100, 50))
    assert found == pytest.approx(90 * 43 * 0.5**2 / 1e6, rel=1e-9)
    assert mask.area_mm2(0.5, (0, 0, 300, 640)) == 0


def test_rectangles_that_hold_tissue():
    keep = np.zeros((10, 20), bool)
    keep[4, 6] = True  # x 60 to 70, y 40 to 50
    keep[0, 0] = True
    mask = TissueMask(keep, keep, 10.0)
    found = [(0, 0, 200, 100), (60, 40, 1, 1), (65, 45, 1, 1), (0, 10, 61, 31), (-5, -5, 70, 50)]
    assert mask.holds(np.array(found)).all()
    assert not mask.holds(np.array([(0, 10, 60, 90), (70, 40, 9, 9), (20, 0, 180, 40)])).any()
    assert mask.holds(np.zeros((0, 4))).shape == (0,)


def test_what_is_left_behind_the_last_pixel_belongs_to_it():
    # 1000 px are 31.25 px of the mask; the last 8 px have none of their own.
    mask = tissue_mask(ArraySlide(np.full((1000, 1000, 3), TISSUE, np.uint8), 0.25))
    assert mask.tissue.shape == (31, 31)
    assert mask.holds(np.array([(995, 0, 5, 5), (0, 995, 5, 5), (995, 995, 20, 20)])).all()


@pytest.mark.parametrize(
    ('size', 'mpp', 'shape'),
    [
        ((5, 2000), 0.25, (1, 62)),  # thinner than a pixel of the mask
        ((3, 3), 0.25, (1, 1)),
        ((40, 40), 10.0, (40, 40)),  # coarser than the mask: never enlarged
        ((640, 640), None, (20, 20)),  # taken for 0.25
    ],
)
def test_odd_slides(size, mpp, shape):
    mask = tissue_mask(ArraySlide(np.full((*size, 3), TISSUE, np.uint8), mpp))
    assert mask.keep.shape == shape
    assert mask.keep.any()


def test_drawing_dims_what_is_passed_over():
    image = np.full((1600, 6000, 3), 243, np.uint8)  # drawn at a quarter
    image[:, :1600] = TISSUE
    slide = ArraySlide(image, 0.5)
    mask = tissue_mask(slide)
    tiles = np.array([(400, 0, 1200, 1600), (2400, 0, 800, 1600)])
    drawn = draw_mask(slide, mask, tiles)
    assert drawn.shape == (400, 1500, 3)
    assert (drawn[50, 200] == TISSUE).all()
    assert (drawn[50, 700] < 200).all()
    plain = draw_mask(slide, mask)
    changed = (drawn != plain).any(axis=2)
    assert np.flatnonzero(changed[200]).tolist() == [100, 400]
    assert not changed[:, 402:].any()  # the tile on glass is not drawn
    # The tissue ends at 400 px, its margin of 64 px of the slide behind it.
    edge = (plain[200] == (0, 140, 0)).all(axis=1)
    assert np.flatnonzero(edge[100:]).tolist() == [314, 315, 316]
    small = ArraySlide(np.full((30, 20, 3), 243, np.uint8), 0.25)
    assert draw_mask(small, tissue_mask(small)).shape == (30, 20, 3)  # never enlarged


@pytest.mark.slow
def test_no_nucleus_of_the_class_images_is_passed_over(class_data):
    for name in ('TCGA-B0-5710-01Z-00-DX1', 'TCGA-A7-A13F-01Z-00-DX1'):  # their lumens show glass
        folder = class_data / 'train' / name
        with open_slide(folder / 'images' / f'{name}.png', 0.25) as slide:
            mask = tissue_mask(slide)
        assert 0.9 < mask.tissue.mean() < 1
        masks = sorted((folder / 'masks').glob('*.png'))
        boxes = [cv2.boundingRect(cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)) for path in masks]
        assert len(boxes) > 300
        assert mask.holds(np.array(boxes)).all()
