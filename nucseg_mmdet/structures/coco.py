"""COCO truth and results: the entries of both are made here, and files are read and checked.

Every entry of a file is checked, so that a wrong file ends in one line that names it. Images,
annotations and results are counted from 0 there; mask 5 belongs to annotation or result 5.
"""

import functools
import json
import reprlib
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from nucseg_mmdet.structures import rle
from nucseg_mmdet.structures.polygons import Polygon, segmentation_to_rle
from nucseg_mmdet.utils.errors import UserError
from nucseg_mmdet.utils.reading import read_packed

CATEGORY_ID = 1
MAX_PIXELS = 2**32 - 1  # of an image; pycocotools counts runs in 32 bits


class TruthImage(NamedTuple):
    """An image of the truth and its nuclei.

    Attributes:
        id: as in the file.
        file_name: as in the file.
        height: px.
        width: px.
        rles: N masks, compressed COCO run lengths.
        areas: int64, (N,), px.
    """

    id: int
    file_name: str
    height: int
    width: int
    rles: list[dict]
    areas: np.ndarray


class Detections(NamedTuple):
    """The results of one image, in the order of the file.

    Attributes:
        rles: N masks, compressed COCO run lengths.
        areas: int64, (N,), px.
        scores: float64, (N,), finite.
    """

    rles: list[dict]
    areas: np.ndarray
    scores: np.ndarray


def make_categories(names: Sequence[str] = ('nucleus',)) -> list[dict[str, Any]]:
    """Make the categories of a COCO file, numbered from 1."""
    return [dict(id=index, name=name) for index, name in enumerate(names, start=CATEGORY_ID)]


def make_image(
    image_id: int | None, file_name: str, height: int, width: int, organ: str | None = None
) -> dict[str, Any]:
    """Make an image of a COCO file; this project's own key ``organ`` only where it is known."""
    image = dict(id=image_id, file_name=file_name, height=height, width=width)
    return image if organ is None else image | dict(organ=organ)


def make_annotation(
    annotation_id: int,
    image_id: int | None,
    segmentation: list[Polygon] | dict,
    area: int,
    bbox: Sequence[float] | None = None,
    category_id: int = CATEGORY_ID,
    kind: str | None = None,
) -> dict[str, Any]:
    """Make an annotation of a COCO file: one nucleus.

    Args:
        annotation_id: from 1; pycocotools takes 0 for "no match".
        image_id: of its image.
        segmentation: polygons on pixel edges, or an RLE.
        area: of the mask, px.
        bbox: xywh of the mask, px; left out where nobody reads it.
        category_id: of its class.
        kind: type of the nucleus, for this project's own key ``type``, where it is known.
    """
    annotation: dict[str, Any] = dict(
        id=annotation_id, image_id=image_id, category_id=category_id, segmentation=segmentation
    )
    annotation['area'] = area
    if bbox is not None:
        annotation['bbox'] = list(bbox)
    annotation['iscrowd'] = 0
    if kind is not None:
        annotation['type'] = kind
    return annotation


def make_results(
    image_id: int, boxes: np.ndarray, scores: np.ndarray, rles: Sequence[Mapping[str, Any]]
) -> list[dict[str, Any]]:
    """Make the results of an image for a COCO results file.

    Args:
        image_id: of the image.
        boxes: float, (N, 4), xyxy, px; written as xywh with two decimals.
        scores: float, (N,).
        rles: N masks, ``counts`` in bytes, which become text.
    """
    boxes = boxes.astype(np.float64).round(2)
    boxes[:, 2:] -= boxes[:, :2]
    return [
        dict(
            image_id=image_id,
            bbox=box,
            score=score,
            category_id=CATEGORY_ID,
            segmentation=dict(size=list(mask['size']), counts=mask['counts'].decode()),
        )
        for box, score, mask in zip(boxes.round(2).tolist(), scores.tolist(), rles, strict=True)
    ]


def read_truth(path: Path) -> list[TruthImage]:
    """Read COCO truth from a ``.json``, ``.json.gz`` or ``.zip`` file, see ``parse_truth``.

    Raises:
        UserError: the file cannot be read, or is not what was expected.
    """
    return parse_truth(load_shared_json(path), str(path))


def read_results(path: Path, images: Sequence[TruthImage]) -> dict[int, Detections]:
    """Read COCO results from a ``.json``, ``.json.gz`` or ``.zip`` file, see ``parse_results``.

    Raises:
        UserError: the file cannot be read, or is not what was expected.
    """
    return parse_results(load_json(path), images, str(path))


def parse_truth(data: Any, source: str) -> list[TruthImage]:
    """Check COCO truth and group it by image.

    Args:
        data: ``images``, ``annotations`` and ``categories`` of a COCO file. A
            ``segmentation`` is a list of polygons or an RLE, compressed or not.
        source: what messages call the data.

    Returns:
        The images by ascending id.

    Raises:
        UserError: a part is missing or wrong, there is another category, or an
            annotation is a crowd.
    """
    if not isinstance(data, dict):
        raise UserError(f'{source}: found {type(data).__name__}, expected a COCO object')
    infos, annotations, categories = (
        _field(data, key, list, source) for key in ('images', 'annotations', 'categories')
    )
    found = [_field(category, 'id', int, f'{source}: category') for category in categories]
    if found != [CATEGORY_ID]:
        raise UserError(f'{source}: categories have ids {found}, expected [{CATEGORY_ID}]')
    sizes, names = {}, {}
    for index, info in enumerate(infos):
        where = f'{source}: image {index}'
        image_id = _field(info, 'id', int, where)
        if image_id in sizes:
            raise UserError(f'{where}: id {image_id} is taken, expected another')
        height, width = (_field(info, side, int, where) for side in ('height', 'width'))
        if min(height, width) < 1 or height * width > MAX_PIXELS:
            raise UserError(f'{where}: is {height} x {width} px, expected 1 to {MAX_PIXELS:,} px')
        sizes[image_id] = (height, width)
        names[image_id] = _field(info, 'file_name', str, where)
    if not sizes:
        raise UserError(f'{source}: found no images, expected at least one')

    for index, annotation in enumerate(annotations):
        where = f'{source}: annotation {index}'
        _check_ids(annotation, sizes, where)
        if annotation.get('iscrowd'):
            raise UserError(f'{where}: is a crowd, expected one nucleus')
    rles, areas = _read_masks(annotations, sizes, source)
    groups = _group(annotations, sizes)
    return [
        TruthImage(
            image_id,
            names[image_id],
            sizes[image_id][0],
            sizes[image_id][1],
            [rles[i] for i in groups[image_id]],
            areas[groups[image_id]],
        )
        for image_id in sorted(sizes)
    ]


def check_truth(data: Any, source: str) -> None:
    """Check COCO truth of any classes, and beside what ``parse_truth`` checks what mmdet reads.

    Args:
        data: as for ``parse_truth``; ids, boxes and areas of annotations are checked as well.
        source: what messages call the data.

    Raises:
        UserError: as ``parse_truth``, but there may be several categories.
    """
    if not isinstance(data, dict):
        raise UserError(f'{source}: found {type(data).__name__}, expected a COCO object')
    annotations, categories = (
        _field(data, key, list, source) for key in ('annotations', 'categories')
    )
    known = [_field(category, 'id', int, f'{source}: category') for category in categories]
    for category in categories:
        _field(category, 'name', str, f'{source}: category')
    if not known or len(set(known)) < len(known):
        raise UserError(f'{source}: categories have ids {known!r:.100}, expected different ones')
    seen: set[int] = set()
    for index, annotation in enumerate(annotations):
        where = f'{source}: annotation {index}'
        category_id = _field(annotation, 'category_id', int, where)
        if category_id not in known:
            raise UserError(f'{where}: category_id is {category_id}, expected one of {known}')
        number = _field(annotation, 'id', int, where)
        if number in seen:
            raise UserError(f'{where}: id {number} is taken, expected another')
        seen.add(number)
        box = _field(annotation, 'bbox', list, where)
        if len(box) != 4 or not all(map(_is_finite, box)):
            raise UserError(f'{where}: bbox is {reprlib.repr(box)}, expected x, y, width, height')
        if not _is_finite(_field(annotation, 'area', int | float, where)):
            raise UserError(f'{where}: area is {annotation["area"]}, expected a number of px')
    one_class = [dict(annotation, category_id=CATEGORY_ID) for annotation in annotations]
    parse_truth(dict(data, annotations=one_class, categories=make_categories()), source)


def _is_finite(value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and abs(value) <= sys.float_info.max  # which whole numbers may exceed


def parse_results(data: Any, images: Sequence[TruthImage], source: str) -> dict[int, Detections]:
    """Check a COCO results list and group it by image.

    Args:
        data: a list of objects with ``image_id``, ``category_id``, ``score`` and
            ``segmentation`` (polygons or an RLE, compressed or not). Boxes are not read.
        images: the truth.
        source: what messages call the data.

    Returns:
        An entry for every image of the truth, with or without results.

    Raises:
        UserError: a part is missing or wrong, or belongs to an image not in the truth.
    """
    if not isinstance(data, list):
        raise UserError(f'{source}: found {type(data).__name__}, expected a list of COCO results')
    sizes = {image.id: (image.height, image.width) for image in images}
    for index, result in enumerate(data):
        where = f'{source}: result {index}'
        _check_ids(result, sizes, where)
        score = _field(result, 'score', int | float, where)
        if not _is_finite(score):
            raise UserError(f'{where}: score is {score}, expected a finite number')
    rles, areas = _read_masks(data, sizes, source)
    values = np.array([result['score'] for result in data], np.float64)
    return {
        image_id: Detections([rles[i] for i in index], areas[index], values[index])
        for image_id, index in _group(data, sizes).items()
    }


def load_shared_json(path: Path) -> Any:
    """Read JSON as ``load_json``, and keep it: data set, metric and tool read the same truth.

    The content is shared and must not be changed. Only the last file is kept.

    Raises:
        UserError: as ``load_json``.
    """
    try:
        status = path.stat()
    except OSError:
        return load_json(path)  # which says what is wrong
    return _load_version(path.resolve(), status.st_mtime_ns, status.st_size)


@functools.lru_cache(maxsize=1)
def _load_version(path: Path, mtime_ns: int, size: int) -> Any:
    """Read a file once for each of its versions, which time and size tell apart."""
    return load_json(path)


def load_json(path: Path) -> Any:
    """Read JSON, plain, in gzip, or ``answer.json`` at the root of a zip file.

    Raises:
        UserError: the file is missing, damaged or no JSON.
    """
    text = read_packed(path, 'answer.json')
    try:
        return json.loads(text)
    except RecursionError:
        raise UserError(f'{path}: found JSON nested too deep, expected COCO') from None
    except ValueError as error:
        raise UserError(f'{path}: found no valid JSON ({error}), expected JSON') from None


def _field(entry: Any, key: str, kind: Any, where: str) -> Any:
    """Get a field of a JSON object, checked for its type."""
    if not isinstance(entry, dict):
        raise UserError(f'{where}: found {type(entry).__name__}, expected an object')
    if key not in entry:
        raise UserError(f'{where}: found no {key}, expected one')
    value = entry[key]
    if not isinstance(value, kind) or isinstance(value, bool):
        name = getattr(kind, '__name__', str(kind))
        raise UserError(f'{where}: {key} is {reprlib.repr(value)}, expected {name}')
    return value


def _check_ids(entry: Any, sizes: Mapping[int, tuple[int, int]], where: str) -> None:
    image_id = _field(entry, 'image_id', int, where)
    if image_id not in sizes:
        known = reprlib.repr(sorted(sizes))
        raise UserError(f'{where}: image_id is {image_id}, expected one of {known}')
    category_id = _field(entry, 'category_id', int, where)
    if category_id != CATEGORY_ID:
        raise UserError(f'{where}: category_id is {category_id}, expected {CATEGORY_ID}')


def _read_masks(
    entries: Sequence[dict], sizes: Mapping[int, tuple[int, int]], source: str
) -> tuple[list[dict], np.ndarray]:
    """Turn the segmentations of all entries into checked RLEs and their areas."""
    rles = []
    for index, entry in enumerate(entries):
        where = f'{source}: mask {index}'
        height, width = sizes[entry['image_id']]
        segmentation = _field(entry, 'segmentation', list | dict, where)
        if isinstance(segmentation, list):
            _check_polygons(segmentation, 2 * max(height, width), where)
        else:
            _field(segmentation, 'size', list, where)
            counts = _field(segmentation, 'counts', str | bytes | list, where)
            if isinstance(counts, list) and not all(
                type(run) is int and 0 <= run <= MAX_PIXELS for run in counts
            ):
                found = reprlib.repr(counts)
                raise UserError(f'{where}: counts are {found}, expected 0 to {MAX_PIXELS:,} each')
        try:
            rles.append(segmentation_to_rle(segmentation, height, width))
        except ValueError as error:
            raise UserError(f'{where}: {error}') from None
    try:
        return rles, rle.areas(rles)
    except ValueError as error:
        raise UserError(f'{source}: {error}') from None


def _check_polygons(polygons: list, limit: float, where: str) -> None:
    """Refuse what pycocotools would take for boxes, or rasterize for hours."""
    if not polygons:
        raise UserError(f'{where}: found no polygons, expected at least one')
    for polygon in polygons:
        try:
            points = np.asarray(polygon, np.float64)
            valid = points.ndim == 1 and points.size >= 6 and points.size % 2 == 0
            valid = valid and bool((np.abs(points) <= limit).all())
        except (OverflowError, TypeError, ValueError):
            valid = False
        if not valid:
            raise UserError(
                f'{where}: polygon is {reprlib.repr(polygon)}, '
                'expected 6 or more coordinates x, y, ... in the image'
            )


def _group(entries: Sequence[dict], sizes: Mapping[int, Any]) -> dict[int, list[int]]:
    """List the indices of the entries of each image."""
    groups = {image_id: [] for image_id in sizes}
    for index, entry in enumerate(entries):
        groups[entry['image_id']].append(index)
    return groups
