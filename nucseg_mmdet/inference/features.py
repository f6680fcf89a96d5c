"""Further numbers of nuclei, for which all of a slide's, or its pixels, are needed."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import replace

import numpy as np

from nucseg_mmdet.export.painting import paint
from nucseg_mmdet.imaging.neighborhood import NEIGHBORHOOD, neighborhood
from nucseg_mmdet.imaging.texture import TEXTURE, texture
from nucseg_mmdet.inference.frame import Frame
from nucseg_mmdet.slides.base import RegionError, Slide
from nucseg_mmdet.slides.pixel_size import MODEL_MPP
from nucseg_mmdet.structures.nuclei import Nuclei
from nucseg_mmdet.structures.rle import painting_order

FEATURES = (*NEIGHBORHOOD, *TEXTURE)
BLOCK = 2_048  # working px; nuclei whose centroids lie in one share a part of the slide


def with_features(
    batches: Callable[[], Iterable[Nuclei]], slide: Slide, frame: Frame
) -> Iterator[Nuclei]:
    """Add the columns of ``FEATURES`` to the measurements of nuclei.

    The batches are gone through twice: first for all centroids, which alone stay in memory.

    Args:
        batches: gives the nuclei of the slide, the same each time.
        slide: opened.
        frame: of the working image.

    Yields:
        The batches.
    """
    centroids = [np.zeros((0, 2)), *(nuclei.centroids for nuclei in batches())]
    around = neighborhood(np.concatenate(centroids) * MODEL_MPP)
    first = 0
    for nuclei in batches():
        near = around[first : first + len(nuclei)]
        first += len(nuclei)
        columns = [nuclei.measurements, near, measure_texture(nuclei, slide, frame)]
        yield replace(nuclei, measurements=np.hstack(columns))


def measure_texture(nuclei: Nuclei, slide: Slide, frame: Frame) -> np.ndarray:
    """Measure nuclei on the slide, block by block.

    A contested pixel goes to the higher score, as in the label image.

    Returns:
        float32, (N, len(TEXTURE)); NaN where the slide cannot be read.
    """
    columns = np.full((len(nuclei), len(TEXTURE)), np.nan, np.float32)
    blocks = (nuclei.centroids // BLOCK).astype(np.int64)
    for block in np.unique(blocks, axis=0):
        chosen = np.flatnonzero((blocks == block).all(1))
        chosen = chosen[painting_order(nuclei.scores[chosen])]
        part = nuclei.take(chosen)
        low, high = part.points.min(0), part.points.max(0)
        width, height = (high - low).tolist()
        labels = np.zeros((height, width), np.int32)
        paint(labels, (part.points - low).astype(np.int64), part.sizes, np.arange(len(part)) + 1)
        with suppress(RegionError):
            image = frame.read(slide, *low.tolist(), width, height)
            columns[chosen] = texture(labels, image, len(part))
    return columns
