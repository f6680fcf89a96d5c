"""Reader of PanNuke: 256 px patches of 19 tissues, five types of nuclei.

::

    RAW/**/fold<N>/images.npy    (P, 256, 256, 3), whole numbers 0 to 255, RGB
    RAW/**/fold<N>/masks.npy     (P, 256, 256, 6), a label map for each type, background
    RAW/**/fold<N>/types.npy     (P,), tissue of each patch; it deals the folds

for one or several folds, whose files may lie in other folders (``Fold 1/images/fold1/...``,
``Fold 1/masks/fold1/...``); or the three files in RAW itself. They are mapped, not loaded.
Where two types claim a pixel, both nuclei keep it: COCO allows overlaps.
"""

import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from nucseg_mmdet.converters.base import AnnotatedImage, ImageFile
from nucseg_mmdet.converters.nuclei import check_labels, from_labels
from nucseg_mmdet.converters.raw_images import LINKS, folders_left_out
from nucseg_mmdet.utils.errors import UserError
from nucseg_mmdet.utils.reading import read_array

OPTIONS: dict[str, str] = {}
FILES = ('images.npy', 'masks.npy', 'types.npy')
# Gamper et al., "PanNuke Dataset Extension, Insights and Baselines" (2020), by channel.
TYPES = ('neoplastic', 'inflammatory', 'connective', 'dead', 'epithelial')


class Entry(NamedTuple):
    """A patch.

    Attributes:
        images: path of images.npy.
        masks: path of masks.npy.
        tissue: of the patch.
        fold: number as text, empty if unknown.
        patch: its index in the files, from 0.
    """

    images: Path
    masks: Path
    tissue: str
    fold: str
    patch: int


def find_images(raw: Path) -> list[Entry]:
    """The patches, fold by fold.

    Raises:
        UserError: a file is missing, broken, or not of the expected shape.
    """
    if not raw.is_dir():
        raise UserError(f'{raw}: no such folder, expected images.npy, masks.npy and types.npy')
    files: dict[str, dict[str, Path]] = {}
    for path in sorted(raw.rglob('*.npy')):
        if path.name in FILES:
            numbers = re.findall(r'fold[ _]?(\d+)', str(path.relative_to(raw)), re.IGNORECASE)
            fold = files.setdefault(numbers[-1] if numbers else '', {})
            other = fold.setdefault(path.stem, path)
            if other is not path:
                raise UserError(f'{path}: same fold as {other}, expected one {path.name} a fold')
    if not files:
        raise UserError(f'{raw}: no images.npy in it or below, expected one for each fold')
    return [entry for fold in sorted(files) for entry in _patches(raw, fold, files[fold])]


def find_left_out(raw: Path) -> list[str]:
    """A line for each folder that ``find_images`` does not look into."""
    return folders_left_out(raw, ['**/*'], lambda path: path.name in FILES, LINKS)


def _patches(raw: Path, fold: str, files: dict[str, Path]) -> list[Entry]:
    missing = {'images', 'masks', 'types'} - files.keys()
    if missing:
        raise UserError(f'{raw}: fold {fold!r} has no {min(missing)}.npy, expected one')
    images, masks, types = (read_array(files[name]) for name in ('images', 'masks', 'types'))
    count = len(types)
    if types.ndim != 1 or types.dtype.kind != 'U':
        raise UserError(f'{files["types"]}: {types.dtype} {types.shape}, expected texts (P,)')
    for name, array, channels in (('images', images, 3), ('masks', masks, len(TYPES) + 1)):
        if array.ndim != 4 or (len(array), array.shape[3]) != (count, channels):
            raise UserError(
                f'{files[name]}: shape {array.shape}, expected ({count}, H, W, {channels})'
            )
    if images.shape[:3] != masks.shape[:3]:
        raise UserError(
            f'{files["masks"]}: shape {masks.shape}, expected {images.shape[:3]} as the images'
        )
    return [
        Entry(files['images'], files['masks'], str(types[index]), fold, index)
        for index in range(count)
    ]


def read_image(entry: Entry) -> AnnotatedImage:
    """Read one patch and its nuclei.

    Raises:
        UserError: values of the image are no whole numbers from 0 to 255, or labels are
            none.
    """
    rgb = read_array(entry.images)[entry.patch]
    with np.errstate(invalid='ignore'):  # the comparison tells
        pixels = rgb.astype(np.uint8)
    if not (pixels == rgb).all():
        raise UserError(
            f'{entry.images}: patch {entry.patch} has values from {rgb.min()} to {rgb.max()}, '
            'expected whole numbers from 0 to 255'
        )
    height, width = pixels.shape[:2]
    name = f'fold{entry.fold}_{entry.patch:04}.png' if entry.fold else f'{entry.patch:04}.png'
    image = ImageFile(
        # A path of its own, so that messages and names tell patches apart.
        entry.images / str(entry.patch),
        height,
        width,
        organ=entry.tissue,
        pixels=np.ascontiguousarray(pixels[..., ::-1]),
        name=name,
    )
    nuclei = []
    masks = read_array(entry.masks)[entry.patch]
    for channel, kind in enumerate(TYPES):
        where = entry.masks / f'patch {entry.patch}, channel {channel}'
        labels = check_labels(masks[..., channel], (height, width), where)
        for nucleus in from_labels(labels).values():
            nucleus.type = kind
            nuclei.append(nucleus)
    return AnnotatedImage(image, nuclei)
