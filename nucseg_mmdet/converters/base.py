"""What all readers share: the records between raw files and COCO JSON, and its writing.

A reader is a module with two functions and a constant::

    find_images(raw: Path, ...) -> list[Entry]      one entry for each training image
    read_image(entry: Entry) -> AnnotatedImage      runs in a worker process
    OPTIONS: dict[str, str]                         further text arguments of find_images: help

and, where the format has them, ``find_test_images(raw) -> tuple[list[ImageFile], list[str]]``,
the images to predict and a line for each that cannot be used; and
``find_left_out(raw: Path, ...) -> list[str]``, a line for each folder, or kind of files in it, that
``find_images`` passes over. What an entry is (a path, a pair of paths, ...) is the reader's own
business; it is pickled. All raise ``UserError`` for what they cannot read.
"""

import functools
import itertools
import json
import shutil
from collections import Counter
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np

from nucseg_mmdet.converters.folds import deal_folds, fold_notes
from nucseg_mmdet.converters.pool import in_processes
from nucseg_mmdet.converters.target import check_target
from nucseg_mmdet.imaging.image_files import encode
from nucseg_mmdet.structures.coco_entries import (
    CATEGORY_ID,
    make_annotation,
    make_categories,
    make_image,
)
from nucseg_mmdet.structures.polygons import Polygon
from nucseg_mmdet.utils.errors import UserError, count_nuclei, few, say_unforeseen
from nucseg_mmdet.utils.files import new_folder

Entry = TypeVar('Entry')
# Class name -> the types of nuclei that it takes in; empty: each type is a class.
Classes = Mapping[str, Sequence[str]]


@dataclass
class Nucleus:
    """One nucleus: the annotation without its ids.

    Attributes:
        polygons: on pixel edges, px.
        area: of the mask, px.
        bbox: xywh of the mask, px.
        type: of nucleus, where the raw data tells, e.g. 'inflammatory'.
    """

    polygons: list[Polygon]
    area: int
    bbox: tuple[int, int, int, int]
    type: str | None = None


@dataclass
class ImageFile:
    """One image as it will stand in the COCO JSON.

    Attributes:
        path: of the raw file.
        height: px.
        width: px.
        id: image id, where the raw data gives one.
        organ: where known; images of one organ are dealt over the folds.
        pixels: uint8, (H, W) or (H, W, 3), BGR. Written as PNG; None where the raw file
            is copied byte for byte.
        name: of the written file; by default the raw file's, with ``.png`` for pixels.
        notes: what was done to the pixels, a line each.
        slide: name of the slide that the image is a part of; None where each image is its own.
    """

    path: Path
    height: int
    width: int
    id: int | None = None
    organ: str | None = None
    pixels: np.ndarray | None = None
    name: str = ''
    notes: list[str] = field(default_factory=list)
    slide: str | None = None

    def __post_init__(self) -> None:
        if not self.name:
            self.name = self.path.name if self.pixels is None else f'{self.path.stem}.png'


@dataclass
class AnnotatedImage:
    """A training image with its nuclei.

    Attributes:
        image: the image.
        nuclei: those that can be used.
        problems: a line for each nucleus that cannot.
        notes: what a user should know, though nothing is wrong.
    """

    image: ImageFile
    nuclei: list[Nucleus]
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


@dataclass
class Summary:
    """What was written.

    Attributes:
        images: training images.
        nuclei: in the training images, by class.
        test_images: images to predict.
        left_out: one line for each file left out (``skip_bad``).
        notes: of the readers, on folds, and what classes leave out.
    """

    images: int
    nuclei: dict[str, int]
    test_images: int
    left_out: list[str]
    notes: list[str]


def prepare(
    entries: Sequence[Entry],
    read_image: Callable[[Entry], AnnotatedImage],
    test_images: Sequence[ImageFile],
    test_problems: Sequence[str],
    out: Path,
    *,
    classes: Classes | None = None,
    skip_bad: bool = False,
    overwrite: bool = False,
    workers: int | None = None,
    progress: Callable[[Iterable, int], Iterable] = lambda items, total: items,
) -> Summary:
    """Write a data set: ``out/train``, ``out/test``, ``out/annotations/*.json``.

    The training images get ids from 1 in the order of ``entries``, the nuclei from 1
    in the order of the images. All is written beside ``out`` and renamed at the end.

    Args:
        entries: passed to ``read_image`` one by one.
        read_image: module-level function, called in worker processes.
        test_images: copied and listed in ``test.json``.
        test_problems: a line for each test image that cannot be used.
        out: folder to make.
        classes: of the JSON; by default the one class nucleus.
        skip_bad: leave out what has problems instead of refusing the whole.
        overwrite: replace ``out`` if an earlier call made it.
        workers: processes; by default one a core.
        progress: wraps the iterator over the images, e.g. in a progress bar.

    Returns:
        Counts, and what was left out.

    Raises:
        UserError: problems were found and ``skip_bad`` is not set, no image is left, two
            images have one name, ``classes`` do not fit, or ``out`` is there already.
    """
    check_target(out, overwrite)
    with new_folder(out, replace=True) as partial:
        for name in ('annotations', 'train', 'test'):
            (partial / name).mkdir()
        convert = functools.partial(_convert, read_image, partial / 'train')
        outcomes = list(progress(in_processes(convert, entries, workers), len(entries)))
        annotated = [one for one in outcomes if isinstance(one, AnnotatedImage)]
        of_each = ([one] if isinstance(one, str) else one.problems for one in outcomes)
        problems = [*test_problems, *itertools.chain.from_iterable(of_each)]
        images = [item.image for item in annotated]
        _check_images(images, problems, skip_bad, out)
        for number, image in enumerate(images, start=1):
            image.id = number
        truth = to_coco(annotated, classes)
        _write(partial, truth, images, test_images)
    counts = Counter(annotation['category_id'] for annotation in truth['annotations'])
    return Summary(
        images=len(annotated),
        nuclei={category['name']: counts[category['id']] for category in truth['categories']},
        test_images=len(test_images),
        left_out=problems,
        notes=_notes(annotated, truth),
    )


def _notes(annotated: Sequence[AnnotatedImage], truth: dict) -> list[str]:
    """What a user should know of the images, whose nuclei were written as ``truth``."""
    notes = fold_notes([item.image for item in annotated])
    notes += _alike([item.image for item in annotated])
    notes += [note for item in annotated for note in item.notes]
    empty = len(annotated) - len({entry['image_id'] for entry in truth['annotations']})
    if empty:
        notes.append(
            f'{empty:,} of {len(annotated):,} images have no nucleus; tools/train.py leaves them '
            'out unless --keep-empty is given'
        )
    dropped = sum(len(item.nuclei) for item in annotated) - len(truth['annotations'])
    if dropped:
        notes.append(f'{count_nuclei(dropped)} of types that no class takes in, left out')
    return notes


def _alike(images: Sequence[ImageFile]) -> list[str]:
    """The notes of images, in a line for all of which the same is said: one kind hides no other."""
    paths: dict[str, list[Path]] = {}
    for image in images:
        for note in image.notes:
            paths.setdefault(note.removeprefix(f'{image.path}: '), []).append(image.path)
    return [
        f'{first}{f" and {len(others)} more" if others else ""}: {note}'
        for note, (first, *others) in paths.items()
    ]


def _convert(
    read_image: Callable[[Entry], AnnotatedImage], folder: Path, entry: Entry
) -> AnnotatedImage | str:
    """Read an image and write its file; where it cannot be read, return the reason."""
    try:
        item = read_image(entry)
    except UserError as error:
        return str(error)
    except Exception as error:
        return f'{_name(entry)}: {say_unforeseen(error)}'
    image, target = item.image, folder / item.image.name
    if image.pixels is None:
        shutil.copyfile(image.path, target)
    else:
        target.write_bytes(encode('.png', image.pixels))
        image.pixels = None  # not sent to the main process, which would hold those of all
    _take_once(item)
    return item


def _take_once(item: AnnotatedImage) -> None:
    """Leave out nuclei that stand in the annotations more than once, in place."""
    different = {(nucleus.type, repr(nucleus.polygons)): nucleus for nucleus in item.nuclei}
    twice = len(item.nuclei) - len(different)
    if twice:
        item.notes.append(f'{item.image.path}: {count_nuclei(twice)} there twice, taken once')
        item.nuclei = list(different.values())


def _name(entry: object) -> str:
    """What messages call the entry of a reader: the first path in it."""
    if isinstance(entry, tuple):
        names = [_name(part) for part in entry if isinstance(part, Path | tuple)]
        return names[0] if names else ''
    return str(entry)


def _check_images(
    images: Sequence[ImageFile], problems: Sequence[str], skip_bad: bool, out: Path
) -> None:
    """Refuse problems unless they may be skipped, a set without images, and equal names.

    Two images are written to one file also where only the case of their names differs.
    """
    if problems and not skip_bad:
        last = 'nothing written; --skip-bad leaves these out'
        raise UserError(*few(problems), last)
    if not images:
        last = f'{out}: no training image is left, nothing written'
        raise UserError(*few(problems), last)
    seen: dict[str, Path] = {}
    for image in images:
        other = seen.setdefault(image.name.casefold(), image.path)
        if other is not image.path:
            raise UserError(
                f'{image.path}: would become {image.name} as {other} does, expected different names'
            )


def _write(
    folder: Path, truth: dict, images: Sequence[ImageFile], test_images: Sequence[ImageFile]
) -> None:
    for image in test_images:
        shutil.copyfile(image.path, folder / 'test' / image.name)
    _write_json(folder / 'annotations' / 'train.json', truth)
    test = dict(
        images=[_image_record(image) for image in test_images],
        annotations=[],
        categories=truth['categories'],
    )
    _write_json(folder / 'annotations' / 'test.json', test)
    for number, held_out in enumerate(deal_folds(images), start=1):
        every = {image.id for image in images}
        for part, ids in (('train', every - held_out), ('val', held_out)):
            _write_json(folder / 'annotations' / f'fold{number}_{part}.json', subset(truth, ids))


def _image_record(image: ImageFile) -> dict:
    return make_image(image.id, image.name, image.height, image.width, image.organ, image.slide)


def _write_json(path: Path, content: dict) -> None:
    path.write_text(json.dumps(content))


def to_coco(annotated: Sequence[AnnotatedImage], classes: Classes | None = None) -> dict:
    """Make the COCO JSON of images whose ids are set; nuclei are numbered from 1.

    An annotation keeps the type of its nucleus under ``type``, whatever its category.

    Args:
        annotated: the images.
        classes: by default all nuclei are of the one category nucleus.

    Raises:
        UserError: ``classes`` ask for types that the nuclei do not have.
    """
    categories, id_of_type = make_categories(), None
    if classes is not None:
        names, id_of_type = _number_types(annotated, classes)
        categories = make_categories(names)
    annotations = []
    for item in annotated:
        for nucleus in item.nuclei:
            category_id = CATEGORY_ID if id_of_type is None else id_of_type.get(nucleus.type)
            if category_id is None:
                continue
            annotations.append(
                make_annotation(
                    len(annotations) + 1,
                    item.image.id,
                    nucleus.polygons,
                    nucleus.area,
                    nucleus.bbox,
                    category_id,
                    nucleus.type,
                )
            )
    images = [_image_record(item.image) for item in annotated]
    return dict(images=images, annotations=annotations, categories=categories)


def _number_types(
    annotated: Sequence[AnnotatedImage], classes: Classes
) -> tuple[list[str], dict[str | None, int]]:
    """The names of the categories, and the category id (from 1) of each type."""
    every = {nucleus.type for item in annotated for nucleus in item.nuclei}
    found = {kind for kind in every if kind is not None}
    if found != every:
        raise UserError(
            '--classes: the data has nuclei without a type, expected one for each, or no --classes'
        )
    wanted = classes or {name: [name] for name in sorted(found)}
    unknown = {name for types in wanted.values() for name in types} - found
    if unknown:
        raise UserError(
            f'classes: no nucleus of type {", ".join(sorted(unknown))}, '
            f'the data read has {", ".join(sorted(found))}'
        )
    numbered = enumerate(wanted.values(), start=1)
    return list(wanted), {name: number for number, types in numbered for name in types}


def subset(truth: dict, image_ids: Container[int | None]) -> dict:
    """The part of a COCO JSON that concerns some images, ids unchanged."""
    return dict(
        images=[image for image in truth['images'] if image['id'] in image_ids],
        annotations=[entry for entry in truth['annotations'] if entry['image_id'] in image_ids],
        categories=truth['categories'],
    )
