"""Image tiles: together they are the slide."""

import json

import cv2
import numpy as np
import pytest

from nucseg_mmdet.slides.base import ArraySlide
from nucseg_mmdet.slides.tissue import tissue_mask
from nucseg_mmdet.utils.errors import UserError
from nucseg_mmdet.viewer.images import OVERLAP, TILE, image_tile, num_levels, tissue_outlines


def smooth(height, width):
    """A slide without edges, so that JPEG is exact to a few gray levels."""
    y, x = np.mgrid[:height, :width]
    channels = [x * 255 / width, y * 255 / height, np.full_like(x, 90)]
    return ArraySlide(np.stack(channels, 2).astype(np.uint8), 0.25)


@pytest.mark.parametrize(('size', 'levels'), [(1, 1), (2, 2), (3, 3), (512, 10), (513, 11)])
def test_levels(size, levels):
    assert num_levels(size, 1) == levels


def test_tiles_make_up_the_slide():
    slide = smooth(700, 1100)
    top = num_levels(1100, 700) - 1
    rows = []
    for y in range(2):
        parts = [image_tile(slide, (top, x, y)) for x in range(3)]
        parts = [cv2.imdecode(np.frombuffer(part, np.uint8), cv2.IMREAD_COLOR) for part in parts]
        sizes = [TILE + OVERLAP, TILE + 2 * OVERLAP, 1100 - 2 * TILE + OVERLAP]
        assert [part.shape[1] for part in parts] == sizes
        rows.append(np.hstack([parts[0], *(part[:, 2 * OVERLAP :] for part in parts[1:])]))
    assert [len(row) for row in rows] == [TILE + OVERLAP, 700 - TILE + OVERLAP]
    found = np.vstack([rows[0], rows[1][2 * OVERLAP :]])[..., ::-1].astype(int)
    assert np.abs(found - slide.read(0, 0, 1100, 700)).max() <= 6


def test_coarser_level_is_half_as_large():
    slide = smooth(701, 1101)
    top = num_levels(1101, 701) - 1
    tile = image_tile(slide, (top - 1, 1, 0))
    image = cv2.imdecode(np.frombuffer(tile, np.uint8), cv2.IMREAD_COLOR)
    assert image.shape == (351, 551 - TILE + OVERLAP, 3)
    # Its first column but for the neighbor's shows x 1024 to 1026 of 1101, where red is 237.
    assert abs(int(image[10, OVERLAP, 2]) - 237) <= 4


@pytest.mark.parametrize('place', [(11, 3, 0), (11, 0, 2), (12, 0, 0), (11, -1, 0), (-1, 0, 0)])
def test_no_tile_beyond_the_slide(place):
    with pytest.raises(UserError, match='not of a slide'):
        image_tile(smooth(700, 1100), place)


def test_tissue_is_traced_to_the_edges_of_the_slide():
    # 32 px a pixel of the mask: 992 px are 31 of them. The margin that is searched is not traced.
    image = np.full((2010, 4000, 3), 243, np.uint8)
    image[:, :992] = (190, 120, 170)
    (ring,) = json.loads(tissue_outlines(ArraySlide(image, 0.25)))['rings']
    assert sorted(zip(ring[::2], ring[1::2], strict=True)) == [
        (0, 0), (0, 2010), (992, 0), (992, 2010)
    ]  # fmt: skip


def test_line_around_the_tissue_encloses_the_area_that_is_told():
    image = np.full((4000, 4000, 3), 243, np.uint8)
    cv2.circle(image, (1900, 2100), 1300, (190, 120, 170), -1)
    cv2.circle(image, (1900, 2100), 500, (243, 243, 243), -1)
    slide = ArraySlide(image, 0.25)
    areas = []
    for ring in json.loads(tissue_outlines(slide))['rings']:
        x, y = np.reshape(ring, (-1, 2)).T
        areas.append(abs(x @ np.roll(y, -1) - y @ np.roll(x, -1)) / 2)  # shoelace formula
    outer, hole = sorted(areas)[::-1]
    told = tissue_mask(slide).area_mm2(0.25, (0, 0, 4000, 4000))
    assert (outer - hole) * 0.25**2 / 1e6 == pytest.approx(told, rel=1e-12)


def test_holes_of_the_tissue_are_rings():
    image = np.full((4000, 4000, 3), (190, 120, 170), np.uint8)
    image[1024:3008, 1024:3008] = 243
    outer, hole = json.loads(tissue_outlines(ArraySlide(image, 0.25)))['rings']
    assert (min(outer), max(outer)) == (0, 4000)
    assert (min(hole), max(hole)) == (1024, 3008)
