"""Folds: which training images are held out together."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from nucseg_mmdet.converters.tcga import patient_of

if TYPE_CHECKING:
    from nucseg_mmdet.converters.base import ImageFile

NUM_FOLDS = 4


def deal_folds(images: Sequence['ImageFile']) -> list[set[int | None]]:
    """Deal the images over the folds, organ after organ, so that organs are spread evenly.

    The images of a patient stay together, where their names have the barcodes of TCGA, and those of
    a slide: the largest groups come first, each to the fold that has the fewest images. Where there
    are fewer patients than folds, only slides stay together; where fewer slides, each image is
    dealt on its own. A fold of more than half of the images is the last one, since fold 1 is held
    out by default.

    Args:
        images: whose ids are set.

    Returns:
        The held-out image ids of each fold; no fold for fewer images than folds.
    """
    if len(images) < NUM_FOLDS:
        return []
    ordered = sorted(images, key=lambda image: (image.organ or '', image.name))
    for groups in (_by_patient(ordered), _by_slide(ordered), [[image.id] for image in ordered]):
        if len(groups) >= NUM_FOLDS:
            break
    folds: list[set[int | None]] = [set() for _ in range(NUM_FOLDS)]
    for ids in sorted(groups, key=len, reverse=True):  # equal ones keep their order
        min(folds, key=len).update(ids)
    return sorted(folds, key=lambda fold: 2 * len(fold) > len(images))


def fold_notes(images: Sequence['ImageFile']) -> list[str]:
    """A line where there are too few images for folds, or too few patients or slides to part."""
    if len(images) < NUM_FOLDS:
        return [f'no folds: {len(images)} training images, {NUM_FOLDS} are needed to hold some out']
    patients, slides = len(_by_patient(images)), len(_by_slide(images))
    if patients >= NUM_FOLDS:
        return []
    number, kind = (slides, 'slides') if slides < NUM_FOLDS else (patients, 'patients')
    return [
        f'fewer {kind} ({number}) than folds ({NUM_FOLDS}): held-out images are of {kind} '
        f'that are trained on as well, so their scores tell nothing of other {kind}'
    ]


def _by_patient(images: Sequence['ImageFile']) -> list[list[int | None]]:
    """The ids of each patient's images, in order; where none is known, of each slide's."""
    return _gather(images, lambda image: patient_of(image.name) or image.slide or image.id)


def _by_slide(images: Sequence['ImageFile']) -> list[list[int | None]]:
    """The ids of each slide's images, in order; an image without a slide is its own."""
    return _gather(images, lambda image: image.slide or image.id)


def _gather(
    images: Sequence['ImageFile'], group_of: Callable[['ImageFile'], str | int | None]
) -> list[list[int | None]]:
    groups: dict[str | int | None, list[int | None]] = {}
    for image in images:
        groups.setdefault(group_of(image), []).append(image.id)
    return list(groups.values())
