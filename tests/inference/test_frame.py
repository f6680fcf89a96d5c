"""The working image, by hand."""

import numpy as np
import pytest

from nucseg_mmdet.inference.frame import make_frame
from nucseg_mmdet.slides.base import ArraySlide
from nucseg_mmdet.utils.errors import UserError


def test_frame_by_hand():
    slide = ArraySlide(np.zeros((100, 200, 3), np.uint8), 0.5)
    assert make_frame(slide) == ((0, 0, 200, 100), 0.5, 0, 0, 400, 200)
    assert make_frame(slide, (10, 20, 31, 41)) == (
        (10, 20, 31, 41),
        0.5,
        20,
        40,
        62,
        82,
    )
    assert make_frame(ArraySlide(slide.read(0, 0, 200, 100))).scale == 1  # says nothing


def test_the_corner_is_that_of_the_first_pixel():
    # 11 / 2 and 7 / 2 are 5.5 and 3.5 px, which is rounded to even ones, 6 and 4.
    frame = make_frame(ArraySlide(np.zeros((60, 80, 3), np.uint8), 0.125), (11, 7, 40, 30))
    assert (frame.left, frame.top) == (6, 4)
    assert frame.corner == (12, 8)


def test_a_region_thinner_than_half_a_pixel_has_one():
    slide = ArraySlide(np.zeros((60, 80, 3), np.uint8), 0.05)
    assert make_frame(slide, (10, 20, 1, 30))[4:] == (1, 6)
    assert make_frame(slide, (10, 20, 40, 2))[4:] == (8, 1)


def test_frame_reads_the_working_image():
    image = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
    slide = ArraySlide(image, 0.125)
    whole = make_frame(slide)
    assert whole[2:] == (0, 0, 25, 20)
    part = make_frame(slide, (10, 20, 40, 20))
    expected = whole.read(slide, 5, 10, 20, 10)
    assert expected.shape == (10, 20, 3)
    assert (part.read(slide, 0, 0, 20, 10) == expected).all()
    assert (expected[0, 0] == np.rint(image[20:22, 10:12].mean((0, 1)))).all()


def test_a_region_is_clipped_to_the_slide():
    slide = ArraySlide(np.zeros((100, 200, 3), np.uint8), 0.25)
    assert make_frame(slide, (150, -20, 100, 60)).region == (150, 0, 50, 40)
    with pytest.raises(UserError, match='region 200,0,9,9 is not on the slide, which has 200 x'):
        make_frame(slide, (200, 0, 9, 9))
