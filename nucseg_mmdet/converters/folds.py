"""Folds: which training images are held out together."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from nucseg_mmdet.converters.tcga import patient_of

if TYPE_CHECKING:
    from nucseg_mmdet.converters.base import ImageFile

NUM_FOLDS = 4


def deal_folds(images: Sequence['ImageFile']) -> list[set[int]]:
    """Deal the images over the folds, organ after organ, so that organs are spread evenly.

    The images of a slide stay together, and so do those of a patient, where their names have the
    barcodes of TCGA: slides of many images come first, each to the fold that has the fewest. Where
    there are fewer slides than folds, each image is dealt on its own. A fold of more than half of
    the images is the last one, since fold 1 is held out by default.

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


def fold_notes(images: Sequence['ImageFile']) -> list[str]:
    """A line where there are too few images for folds, or too few slides for any to share none."""
    num_slides = len(_ids_by_slide(images))
    if len(images) < NUM_FOLDS:
        return [f'no folds: {len(images)} training images, {NUM_FOLDS} are needed to hold some out']
    if num_slides >= NUM_FOLDS:
        return []
    return [
        f'fewer slides ({num_slides}) than folds ({NUM_FOLDS}): held-out images are of slides '
        'that are trained on as well, so their scores tell nothing of other slides'
    ]


def _ids_by_slide(images: Sequence['ImageFile']) -> list[list[int]]:
    """The ids of each patient's or slide's images, in order; one without either is its own."""
    slides: dict[str | int, list[int]] = {}
    for image in images:
        slides.setdefault(patient_of(image.name) or image.slide or image.id, []).append(image.id)
    return list(slides.values())
