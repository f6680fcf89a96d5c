"""What all readers share: the records between raw files and COCO JSON, and its writing.

A reader is a module with two functions::

    find_images(raw: Path) -> list[Path]            one entry for each training image
    read_image(entry: Path) -> AnnotatedImage       runs in a worker process

and, where the format has them, ``find_test_images(raw) -> tuple[list[ImageFile], list[str]]``,
the images to predict and a line for each that cannot be used. All raise ``UserError`` for what
they cannot read.
"""

import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from nucseg_mmdet.errors import UserError
from nucseg_mmdet.masks import Polygon

CATEGORIES = [{'id': 1, 'name': 'nucleus'}]
NUM_FOLDS = 4
PNG_END = b'\x00\x00\x00\x00IEND\xaeB`\x82'  # every complete PNG ends with this chunk


@dataclass
class Nucleus:
    """One nucleus: the annotation without its ids.

    Attributes:
        polygons: on pixel edges, px.
        area: of the mask, px.
        bbox: xywh of the mask, px.
    """

    polygons: list[Polygon]
    area: int
    bbox: tuple[int, int, int, int]


@dataclass
class ImageFile:
    """One image as it will stand in the COCO JSON.

    Attributes:
        path: of the raw file.
        height: px.
        width: px.
        id: image id, where the raw data gives one.
        organ: where known; images of one organ are dealt over the folds.
    """

    path: Path
    height: int
    width: int
    id: int | None = None
    organ: str | None = None


@dataclass
class AnnotatedImage:
    """A training image with its nuclei, and what was wrong with single ones."""

    image: ImageFile
    nuclei: list[Nucleus]
    problems: list[str] = field(default_factory=list)


@dataclass
class Summary:
    """What was written.

    Attributes:
        images: training images.
        nuclei: in the training images.
        test_images: images to predict.
        left_out: one line for each file left out (``skip_bad``).
    """

    images: int
    nuclei: int
    test_images: int
    left_out: list[str]


def decode_image(path: Path) -> np.ndarray:
    """Read an image file as it is stored.

    Args:
        path: PNG or any format of OpenCV.

    Returns:
        uint8 or uint16, (H, W) or (H, W, C), BGR(A).

    Raises:
        UserError: the file is missing, truncated or no image.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UserError(f'{path}: {error.strerror}, expected an image') from None
    if path.suffix.lower() == '.png' and not data.endswith(PNG_END):
        raise UserError(f'{path}: PNG without its end ({len(data)} bytes), expected a whole file')
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED) if data else None
    if image is None:
        raise UserError(f'{path}: not readable, expected an image')
    return image


def prepare(
    entries: Sequence[Path],
    read_image: Callable[[Path], AnnotatedImage],
    test_images: Sequence[ImageFile],
    test_problems: Sequence[str],
    out: Path,
    *,
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
        skip_bad: leave out what has problems instead of refusing the whole.
        overwrite: replace ``out`` if an earlier call made it.
        workers: processes; by default one a core.
        progress: wraps the iterator over the images, e.g. in a progress bar.

    Returns:
        Counts, and what was left out.

    Raises:
        UserError: problems were found and ``skip_bad`` is not set, no image is left, or
            ``out`` is there already.
    """
    check_target(out, overwrite)
    annotated: list[AnnotatedImage] = []
    problems = list(test_problems)
    for outcome in progress(_read_all(entries, read_image, workers), len(entries)):
        if isinstance(outcome, str):
            problems.append(outcome)
        else:
            annotated.append(outcome)
            problems += outcome.problems
    if problems and not skip_bad:
        raise UserError('\n'.join([*problems, 'nothing written; --skip-bad leaves these out']))
    if not annotated:
        raise UserError(
            '\n'.join([*problems, f'{out}: no training image is left, nothing written'])
        )
    for index, item in enumerate(annotated):
        item.image.id = index + 1

    partial = out.with_name(f'.{out.name}.partial')
    shutil.rmtree(partial, ignore_errors=True)
    _write(partial, annotated, test_images)
    if out.exists():
        shutil.rmtree(out)
    os.replace(partial, out)
    return Summary(
        images=len(annotated),
        nuclei=sum(len(item.nuclei) for item in annotated),
        test_images=len(test_images),
        left_out=problems,
    )


def check_target(out: Path, overwrite: bool) -> None:
    """Refuse to write where something is that this module did not make.

    Raises:
        UserError: ``out`` is a file, or a folder with content that may not be replaced.
    """
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not out.is_dir():
        raise UserError(f'{out}: a file, expected a folder to make')
    if not overwrite:
        raise UserError(f'{out}: there already; --overwrite replaces it')
    others = sorted({path.name for path in out.iterdir()} - {'annotations', 'train', 'test'})
    if others or not (out / 'annotations').is_dir():
        raise UserError(f'{out}: not a prepared data set (has {others}), will not replace it')


def _read_all(
    entries: Sequence[Path], read_image: Callable[[Path], AnnotatedImage], workers: int | None
) -> Iterator[AnnotatedImage | str]:
    with ProcessPoolExecutor(workers or os.cpu_count(), initializer=_one_thread) as pool:
        for future in [pool.submit(read_image, entry) for entry in entries]:
            try:
                yield future.result()
            except UserError as error:
                yield str(error)


def _one_thread() -> None:
    cv2.setNumThreads(1)  # the processes share the cores


def _write(
    folder: Path, annotated: Sequence[AnnotatedImage], test_images: Sequence[ImageFile]
) -> None:
    for name in ('annotations', 'train', 'test'):
        (folder / name).mkdir(parents=True)
    for item in annotated:
        shutil.copyfile(item.image.path, folder / 'train' / item.image.path.name)
    for image in test_images:
        shutil.copyfile(image.path, folder / 'test' / image.path.name)
    truth = to_coco(annotated)
    _write_json(folder / 'annotations' / 'train.json', truth)
    test = dict(
        images=[_image_record(image) for image in test_images],
        annotations=[],
        categories=CATEGORIES,
    )
    _write_json(folder / 'annotations' / 'test.json', test)
    for number, held_out in enumerate(deal_folds([item.image for item in annotated]), start=1):
        every = {item.image.id for item in annotated}
        for part, ids in (('train', every - held_out), ('val', held_out)):
            _write_json(folder / 'annotations' / f'fold{number}_{part}.json', subset(truth, ids))


def _image_record(image: ImageFile) -> dict:
    record = dict(id=image.id, file_name=image.path.name, height=image.height, width=image.width)
    if image.organ is not None:
        record['organ'] = image.organ
    return record


def _write_json(path: Path, content: dict) -> None:
    path.write_text(json.dumps(content))


def to_coco(annotated: Sequence[AnnotatedImage]) -> dict:
    """Make the COCO JSON of images whose ids are set; nuclei are numbered from 1."""
    annotations = []
    for item in annotated:
        for nucleus in item.nuclei:
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=item.image.id,
                    category_id=1,
                    segmentation=nucleus.polygons,
                    area=nucleus.area,
                    bbox=list(nucleus.bbox),
                    iscrowd=0,
                )
            )
    images = [_image_record(item.image) for item in annotated]
    return dict(images=images, annotations=annotations, categories=CATEGORIES)


def subset(truth: dict, image_ids: set[int]) -> dict:
    """The part of a COCO JSON that concerns some images, ids unchanged."""
    return dict(
        images=[image for image in truth['images'] if image['id'] in image_ids],
        annotations=[entry for entry in truth['annotations'] if entry['image_id'] in image_ids],
        categories=truth['categories'],
    )


def deal_folds(images: Sequence[ImageFile]) -> list[set[int]]:
    """Deal the images over the folds, organ after organ, so that organs are spread evenly.

    Returns:
        The held-out image ids of each fold; no fold for fewer images than folds.
    """
    if len(images) < NUM_FOLDS:
        return []
    ordered = sorted(images, key=lambda image: (image.organ or '', image.path.name))
    return [{image.id for image in ordered[fold::NUM_FOLDS]} for fold in range(NUM_FOLDS)]
