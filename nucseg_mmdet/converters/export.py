"""Prepared data back to label maps or to a mask for each nucleus, without loss.

::

    labels   OUT/images/<name>.png   OUT/labels/<name>.png, 16 bit: 0 background, nuclei from 1
    masks    OUT/<name>/images/<name>.png   OUT/<name>/masks/mask_0001.png ..., 0 and 255

and OUT/types.csv (file_name,label,type) where the nuclei have types; a label there is the
number in the label map or of the mask. Each nucleus has a line there, with an empty type where
it has none. The numbers follow the order of the JSON. The readers label-map and dsb2018 read
these layouts. An image of more than 65,535 nuclei gets a 32 bit TIFF as label map. Nuclei that
overlap fit in masks only.
"""

import csv
import functools
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from nucseg_mmdet.converters import coco
from nucseg_mmdet.converters.base import ImageFile
from nucseg_mmdet.converters.label_map import TYPES_HEADER
from nucseg_mmdet.converters.pool import in_processes
from nucseg_mmdet.imaging.image_files import encode, read_color
from nucseg_mmdet.structures.rle import areas, coco_mask, label_map
from nucseg_mmdet.utils.errors import UserError
from nucseg_mmdet.utils.files import new_folder

LAYOUTS = ('labels', 'masks')


class Written(NamedTuple):
    """An image that was written: its file name and the types of its nuclei, in order."""

    file_name: str
    types: list[str | None]


def export(
    data: Path,
    out: Path,
    layout: str = 'labels',
    part: str = 'train',
    workers: int | None = None,
    progress: Callable[[Iterable, int], Iterable] = lambda items, total: items,
) -> tuple[int, int]:
    """Write the images and nuclei of a prepared data set in another layout.

    Args:
        data: folder that ``base.prepare`` made.
        out: folder to make; written beside and renamed.
        layout: one of ``LAYOUTS``.
        part: name of the JSON file under ``annotations``, without suffix.
        workers: processes; by default one a core.
        progress: wraps the iterator over the images, e.g. in a progress bar.

    Returns:
        The numbers of images and nuclei.

    Raises:
        UserError: ``data`` is no prepared data set or broken, ``out`` is there already, two
            images differ in their suffix only, or nuclei overlap in a label map.
    """
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise UserError(f'{out}: there already, expected a folder to make')
    entries = coco.find_images(data / 'annotations' / f'{part}.json', str(data / 'train'))
    names = [entry.path.stem.casefold() for entry in entries]
    for index, name in enumerate(names):
        if name in names[:index]:
            raise UserError(
                f'{entries[index].path}: another image has this name up to the suffix, '
                'expected different ones'
            )
    with new_folder(out) as partial:
        write = functools.partial(_write_image, partial, layout)
        written = list(progress(in_processes(write, entries, workers), len(entries)))
        _write_types(partial / 'types.csv', written)
    return len(written), sum(len(item.types) for item in written)


def _write_image(out: Path, layout: str, entry: coco.Entry) -> Written:
    image, rles, problems = coco.read_masks(entry)
    if problems:
        raise UserError(problems[0])
    annotations = [entry.annotations[index] for index in rles]
    folder = out if layout == 'labels' else out / entry.path.stem
    target = folder / 'images' / f'{entry.path.stem}.png'
    target.parent.mkdir(parents=True, exist_ok=True)
    if image.pixels is None and entry.path.suffix.lower() == '.png':
        shutil.copyfile(entry.path, target)
    else:
        pixels = read_color(entry.path) if image.pixels is None else image.pixels
        target.write_bytes(encode('.png', pixels))
    if layout == 'labels':
        _write_labels(out / 'labels', image, rles, annotations)
    else:
        _write_masks(folder / 'masks', rles)
    kinds = [coco.type_of(annotation, entry.types) for annotation in annotations]
    return Written(target.name, kinds)


def _write_labels(
    folder: Path, image: ImageFile, rles: dict[int, dict], annotations: list[dict]
) -> None:
    masks = list(rles.values())
    labels = label_map(masks, image.height, image.width)
    painted = np.bincount(labels.ravel(), minlength=len(masks) + 1)[1:]
    covered = np.flatnonzero(painted != areas(masks))
    if covered.size:
        mask = coco_mask.decode(masks[covered[0]]).astype(bool)
        by = labels[mask].max() - 1  # a later one: earlier ones do not cover it
        shared = np.count_nonzero(labels[mask] == by + 1)
        raise UserError(
            f'{image.path}: annotations {annotations[covered[0]]["id"]} and '
            f'{annotations[by]["id"]} share {shared} px, which no label map can hold; masks can'
        )
    folder.mkdir(exist_ok=True)
    if len(masks) <= np.iinfo(np.uint16).max:
        (folder / f'{image.path.stem}.png').write_bytes(encode('.png', labels.astype(np.uint16)))
    else:
        (folder / f'{image.path.stem}.tif').write_bytes(encode('.tif', labels))


def _write_masks(folder: Path, rles: dict[int, dict]) -> None:
    folder.mkdir()
    digits = max(4, len(str(len(rles))))  # so that the order of names is that of the nuclei
    for number, rle in enumerate(rles.values(), start=1):
        mask = coco_mask.decode(rle) * np.uint8(255)
        (folder / f'mask_{number:0{digits}}.png').write_bytes(encode('.png', mask))


def _write_types(path: Path, written: list[Written]) -> None:
    rows = [
        (item.file_name, number, kind)  # the writer leaves the place of None empty
        for item in written
        for number, kind in enumerate(item.types, start=1)
    ]
    if any(kind for _, _, kind in rows):
        with path.open('w', newline='', encoding='utf-8') as file:
            csv.writer(file, lineterminator='\n').writerows([TYPES_HEADER, *rows])
