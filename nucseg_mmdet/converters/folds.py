"""Folds: which training images are held out together."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from nucseg_mmdet.converters.base import ImageFile

NUM_FOLDS = 4


def deal_folds(images: Sequence['ImageFile']) -> list[set[int]]:
    """Deal the images over the folds, organ after organ, so that organs are spread evenly.

    The images of a slide stay together: slides of many images come first, each to the fold that
    has the fewest. Where there are fewer slides than folds, each image is dealt on its own. A
    fold of more than half of the images is the last one, since fold 1 is held out by default.

    Args:
        images: whose ids are set.

    Returns:
        The held-out image ids of each fold; no fold for fewer images than folds.
    """
    if len(images) < NUM_FOLDS:
        return []
    ordered = sorted(images, key=lambda image: (image.organ or '', image.name))
    slides = _ids_by_slide(ordered)
    if len(slides) < NUM_FOLDS:
        slides = [[image.id] for image in ordered]
    folds: list[set[int]] = [set() for _ in range(NUM_FOLDS)]
    for ids in sorted(slides, key=len, reverse=True):  # equal ones keep their order
        min(folds, key=len).update(ids)
    return sorted(folds, key=lambda fold: 2 * len(fold) > len(images))


def too_few_slides(images: Sequence['ImageFile']) -> list[str]:
    """A line where there are folds, and too few slides for folds that share none."""
    num_slides = len(_ids_by_slide(images))
    if not num_slides < NUM_FOLDS <= len(images):
        return []
    return [
        f'fewer slides ({num_slides}) than folds ({NUM_FOLDS}): held-out images are of slides '
        'that are trained on as well, so their scores tell nothing of other slides'
    ]


def _ids_by_slide(images: Sequence['ImageFile']) -> list[list[int]]:
    """The ids of each slide's images, in order; an image without a slide is its own."""
    slides: dict[Path | int, list[int]] = {}
    for image in images:
        slides.setdefault(image.slide or image.id, []).append(image.id)
    return list(slides.values())
