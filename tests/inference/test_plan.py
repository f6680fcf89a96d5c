"""Which tiles of a slide are looked at, by hand."""

import numpy as np
import pytest

from nucseg_mmdet.inference.frame import make_frame
from nucseg_mmdet.inference.plan import find_tiles, tile_rectangles
from nucseg_mmdet.inference.tiling import make_grid
from nucseg_mmdet.slides.base import ArraySlide, RegionError


class Broken(ArraySlide):
    def read(self, *_):
        raise RegionError('broken')


def speck():
    """Glass of 1400 x 800 px with 48 x 48 px of tissue, which are 3 x 3 px of the mask."""
    image = np.full((800, 1400, 3), 243, np.uint8)
    image[656:704, 976:1024] = (190, 120, 170)
    return image


@pytest.fixture
def frame():
    return make_frame(ArraySlide(speck(), 0.5), (600, 100, 800, 700))


@pytest.fixture
def grid(frame):
    # Columns at 0, 513, 1026 with 574 px each, rows at 0, 446, 893 with 507 px.
    return make_grid(frame.width, frame.height, 600, 60)


def test_rectangles_lie_where_the_tiles_are(frame, grid):
    rectangles = tile_rectangles(frame, grid)
    assert rectangles.shape == (9, 4)
    # Column 1 and row 2, twice as many px as on the slide.
    assert rectangles[7].tolist() == [600 + 513 / 2, 100 + 893 / 2, 574 / 2, 507 / 2]


@pytest.mark.parametrize('skip_glass', [True, False])
def test_tissue_in_a_region(frame, grid, skip_glass):
    found = find_tiles(ArraySlide(speck(), 0.5), frame, grid, skip_glass)
    # With a margin of 128 px the tissue is from 624 to 976 and from 984 to 1336 px of the region.
    here = np.zeros((3, 3), bool)
    here[2, 1] = True
    assert (found.wanted == (here if skip_glass else True)).all()
    assert found.mm2 == pytest.approx((48 * 0.0005) ** 2)
    assert (found.picture is not None) == skip_glass
    assert found.notes == []


@pytest.mark.parametrize('black', [False, True])
def test_a_picture_without_tissue_is_told_unless_it_is_white(frame, grid, black):
    slide = ArraySlide(np.full((800, 1400, 3), 0 if black else 243, np.uint8), 0.5)
    found = find_tiles(slide, frame, grid, skip_glass=True)
    assert (found.wanted.any(), found.mm2) == (False, 0)
    said = 'no tissue is found, though the image is not white; --no-tissue-mask looks at all of it'
    assert found.notes == ([said] if black else [])


def test_glass_that_cannot_be_read_at_full_resolution_is_taken_for_white(frame, grid):
    class Torn(ArraySlide):
        def read(self, x, y, width, height, scale=1.0):
            if scale == 1:
                raise RegionError('torn')
            return super().read(x, y, width, height, scale)

    slide = Torn(np.full((800, 1400, 3), 243, np.uint8), 0.5)
    found = find_tiles(slide, frame, grid, skip_glass=True)
    assert not found.wanted.any()
    assert found.notes == ['torn; no picture of the tissue']


def test_all_of_a_region_where_tissue_cannot_be_told(frame, grid):
    found = find_tiles(Broken(speck(), 0.5), frame, grid, skip_glass=True)
    assert found.wanted.tolist() == [[True] * 3] * 3
    assert found.mm2 == pytest.approx(800 * 700 * 0.0005**2)
    assert found.notes == ['broken; the tissue is not told from glass']
