"""What the page shows beneath the nuclei: tiles of the slide as JPEG, outlines of the tissue."""

import hashlib
import json
import os
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np

from nucseg_mmdet.imaging.image_files import encode
from nucseg_mmdet.slides.base import Slide
from nucseg_mmdet.slides.open import open_shared
from nucseg_mmdet.slides.parts import further_files, slide_signs
from nucseg_mmdet.slides.parts import version_of as version_of_file
from nucseg_mmdet.slides.tissue import tissue_mask
from nucseg_mmdet.structures.polygons import mask_to_outlines
from nucseg_mmdet.utils.errors import UserError
from nucseg_mmdet.viewer.results import Result

TILE = 512  # px, side of an image tile
OVERLAP = 1  # px that a tile shows of its neighbors, without which OpenSeadragon stretches it
QUALITY = 88  # of JPEG: no artifact to be seen at one screen px for one image px
SAMPLES = 64  # slides whose bytes are known


def open_image(result: Result) -> Slide:
    """Open the slide that results belong to.

    Raises:
        UserError: it is not there, cannot be read, or is not the one that the results are of.
    """
    if result.slide is None:
        raise UserError(
            f'{result.summary["path"]}: no such file, expected the slide; name its folder'
        )
    slide = open_shared(result.slide, result.mpp)
    if (slide.width, slide.height) != (result.width, result.height):
        raise UserError(
            f'{result.slide}: {slide.width} x {slide.height} px, expected {result.width} x '
            f'{result.height} as the results are of'
        )
    known = (result.summary.get('identity') or {}).get('slide') or {}
    found = _sample(result.slide, version_of(result)) if known.get('sampled') else {}
    if any(known.get(key, value) != value for key, value in found.items()):
        raise UserError(f'{result.slide}: another image, expected the one that the results are of')
    return slide


def version_of(result: Result) -> str | None:
    """What is another text once the slide's files are others; None if there are none."""
    if result.slide is None or not os.path.isfile(result.slide):
        return None
    paths = [result.slide, *further_files(result.slide)]
    versions = repr([(path.name, version_of_file(path)) for path in paths])
    return hashlib.sha256(versions.encode()).hexdigest()


@lru_cache(maxsize=SAMPLES)
def _sample(path: Path, version: str | None) -> dict[str, int | str]:
    """Digests of some bytes from all over a slide, read once a version."""
    found = slide_signs(path)
    return {key: found[key] for key in found if key in ('sampled', 'others')}


def num_levels(width: int, height: int) -> int:
    """Levels of tiles; the last is the full size, each before it half of the next."""
    return max(0, max(width, height) - 1).bit_length() + 1


def image_tile(slide: Slide, place: tuple[int, int, int]) -> bytes:
    """Cut a tile and pack it as JPEG; those on an edge of the slide are smaller.

    Args:
        slide: to cut from.
        place: level, 0 is one px, ``num_levels - 1`` the full size; x, number of the tile from
            the left; y, likewise.

    Raises:
        UserError: there is no such tile.
        RegionError: the slide is damaged there.
    """
    level, x, y = place
    coarser = num_levels(slide.width, slide.height) - 1 - level
    scale = 2.0 ** max(0, coarser)
    across, down = (-(-side // scale) for side in (slide.width, slide.height))
    inside = 0 <= x * TILE < across and 0 <= y * TILE < down
    if not (inside and level >= 0 and coarser >= 0):
        raise UserError(
            f'tile {level}/{x}_{y}: not of a slide of {slide.width} x {slide.height} px'
        )
    (left, columns), (top, rows) = _span(x, across), _span(y, down)
    image = slide.read(left * scale, top * scale, columns * scale, rows * scale, scale)
    return encode('.jpg', image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, QUALITY])


def _span(number: int, length: float) -> tuple[float, float]:
    """Where a tile begins on an axis of its level, and how long it is, px."""
    start = max(0, number * TILE - OVERLAP)
    return start, min((number + 1) * TILE + OVERLAP, length) - start


def tissue_outlines(slide: Slide) -> bytes:
    """Trace the tissue: JSON, ``rings``, each ``[x0, y0, x1, y1, ...]``.

    It is what the area of the summary counts; the margin that is searched too lies outside. A hole
    is a ring as well. Vertices are full-resolution px, between the mask's pixels.

    Raises:
        RegionError: the slide is damaged.
    """
    mask = tissue_mask(slide)
    rows, columns = mask.tissue.shape
    # The last pixel ends where the slide does.
    across = np.append(np.arange(columns) * mask.scale, slide.width)
    down = np.append(np.arange(rows) * mask.scale, slide.height)
    rings = []
    for outline in mask_to_outlines(mask.tissue):
        x, y = np.array(outline, int).reshape(-1, 2).T
        rings.append(np.round(np.stack([across[x], down[y]], 1), 1).ravel().tolist())
    return json.dumps(dict(rings=rings)).encode()
