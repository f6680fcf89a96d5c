"""COCO truth and results, read and checked; ``coco_entries`` makes the entries of both.

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
from nucseg_mmdet.structures.coco_entries import CATEGORY_ID
from nucseg_mmdet.structures.polygons import segmentation_to_rle
from nucseg_mmdet.utils.errors import UserError
from nucseg_mmdet.utils.reading import read_packed

MAX_PIXELS = 2**32 - 1  # of an image; pycocotools counts runs in 32 bits
ROUNDING = 1e-6  # of a score, beyond 0 and 1
MOST_PX = 2**31  # of a side of a box, which libraries read as whole numbers


class TruthImage(NamedTuple):
    """An image of the truth and its nuclei.

    Attributes:
        id: as in the file.
        file_name: as in the file.
        height: px.
        width: px.
        rles: N masks, compressed COCO run lengths.
        areas: int64, (N,), px.
        labels: int64, (N,); which of the file's categories, from 0.
    """

    id: int
    file_name: str
    height: int
    width: int
    rles: list[dict]
    areas: np.ndarray
    labels: np.ndarray


class Detections(NamedTuple):
    """The results of one image, in the order of the file.

    Attributes:
        rles: N masks, compressed COCO run lengths.
        areas: int64, (N,), px.
        scores: float64, (N,), finite.
        labels: int64, (N,); which of the truth's categories, from 0.
    """

    rles: list[dict]
    areas: np.ndarray
    scores: np.ndarray
    labels: np.ndarray


def read_truth(path: Path) -> list[TruthImage]:
    """Read COCO truth from a ``.json``, ``.json.gz`` or ``.zip`` file, see ``parse_truth``.

    Raises:
        UserError: the file cannot be read, or is not what was expected.
    """
    return parse_truth(load_shared_json(path), str(path))


def read_categories(path: Path) -> dict[int, str]:
    """Read the categories of COCO truth: their names by id, in order.

    Raises:
        UserError: the file cannot be read, or has none.
    """
    return parse_categories(load_shared_json(path), str(path))


def read_results(
    path: Path, images: Sequence[TruthImage], category_ids: Sequence[int] = (CATEGORY_ID,)
) -> dict[int, Detections]:
    """Read COCO results from a ``.json``, ``.json.gz`` or ``.zip`` file, see ``parse_results``.

    Raises:
        UserError: the file cannot be read, or is not what was expected.
    """
    return parse_results(load_json(path), images, str(path), category_ids)


def parse_truth(data: Any, source: str) -> list[TruthImage]:
    """Check COCO truth and group it by image.

    Args:
        data: ``images``, ``annotations`` and ``categories`` of a COCO file. A
            ``segmentation`` is a list of polygons or an RLE, compressed or not.
        source: what messages call the data.

    Returns:
        The images by ascending id.

    Raises:
        UserError: a part is missing or wrong, or an annotation is a crowd.
    """
    if not isinstance(data, dict):
        raise UserError(f'{source}: found {type(data).__name__}, expected a COCO object')
    infos, annotations = (get_field(data, key, list, source) for key in ('images', 'annotations'))
    category_ids = list(parse_categories(data, source))
    sizes, names = {}, {}
    for index, info in enumerate(infos):
        where = f'{source}: image {index}'
        image_id = get_field(info, 'id', int, where)
        if image_id in sizes:
            raise UserError(f'{where}: id {image_id} is taken, expected another')
        height, width = (get_field(info, side, int, where) for side in ('height', 'width'))
        if min(height, width) < 1 or height * width > MAX_PIXELS:
            raise UserError(f'{where}: is {height} x {width} px, expected 1 to {MAX_PIXELS:,} px')
        sizes[image_id] = (height, width)
        names[image_id] = get_field(info, 'file_name', str, where)
    if not sizes:
        raise UserError(f'{source}: found no images, expected at least one')

    for index, annotation in enumerate(annotations):
        where = f'{source}: annotation {index}'
        _check_ids(annotation, sizes, category_ids, where)
        if annotation.get('iscrowd'):
            raise UserError(f'{where}: is a crowd, expected one nucleus, with iscrowd 0')
    rles, areas = _read_masks(annotations, sizes, source)
    labels = _labels(annotations, category_ids)
    groups = _group(annotations, sizes)
    return [
        TruthImage(
            image_id,
            names[image_id],
            sizes[image_id][0],
            sizes[image_id][1],
            [rles[i] for i in groups[image_id]],
            areas[groups[image_id]],
            labels[groups[image_id]],
        )
        for image_id in sorted(sizes)
    ]


def parse_categories(data: Any, source: str) -> dict[int, str]:
    """Check the categories of COCO truth.

    Returns:
        Their names by id, in order; a category without a name has none, ''.

    Raises:
        UserError: there is none, or two have one id.
    """
    categories = get_field(data, 'categories', list, source)
    found = [get_field(category, 'id', int, f'{source}: category') for category in categories]
    if not found or len(set(found)) < len(found):
        raise UserError(f'{source}: categories have ids {found!r:.100}, expected different ones')
    names = [str(category.get('name') or '') for category in categories]
    return dict(zip(found, names, strict=True))


def check_truth(data: Any, source: str) -> None:
    """Check COCO truth, beside what ``parse_truth`` checks for what mmdet reads.

    Args:
        data: as for ``parse_truth``; ids, boxes and areas of annotations are checked as well.
        source: what messages call the data.

    Raises:
        UserError: as ``parse_truth``.
    """
    parse_truth(data, source)
    for category in data['categories']:
        get_field(category, 'name', str, f'{source}: category')
    seen: set[int] = set()
    for index, annotation in enumerate(data['annotations']):
        where = f'{source}: annotation {index}'
        number = get_field(annotation, 'id', int, where)
        if number in seen:
            raise UserError(f'{where}: id {number} is taken, expected another')
        seen.add(number)
        box = get_field(annotation, 'bbox', list, where)
        if len(box) != 4 or not all(is_finite(side) and abs(side) < MOST_PX for side in box):
            raise UserError(f'{where}: bbox is {reprlib.repr(box)}, expected x, y, width, height')
        if not is_finite(get_field(annotation, 'area', int | float, where)):
            raise UserError(f'{where}: area is {annotation["area"]}, expected a number of px')


def is_finite(value: Any) -> bool:
    """Whether a value is a number that a float can hold, and not true or false."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and abs(value) <= sys.float_info.max  # which whole numbers may exceed


def parse_results(
    data: Any,
    images: Sequence[TruthImage],
    source: str,
    category_ids: Sequence[int] = (CATEGORY_ID,),
) -> dict[int, Detections]:
    """Check a COCO results list and group it by image.

    Args:
        data: a list of objects with ``image_id``, ``category_id``, ``score`` and
            ``segmentation`` (polygons or an RLE, compressed or not). Boxes are not read.
        images: the truth.
        source: what messages call the data.
        category_ids: of the truth, in order.

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
        _check_ids(result, sizes, category_ids, where)
        score = get_field(result, 'score', int | float, where)
        if not (is_finite(score) and -ROUNDING <= score <= 1 + ROUNDING):
            raise UserError(f'{where}: score is {score}, expected 0 to 1')
    rles, areas = _read_masks(data, sizes, source)
    values = np.array([result['score'] for result in data], np.float64)
    labels = _labels(data, category_ids)
    return {
        image_id: Detections([rles[i] for i in index], areas[index], values[index], labels[index])
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
    except (OSError, ValueError):
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


def get_field(entry: Any, key: str, kind: Any, where: str) -> Any:
    """Get a field of a JSON object, checked for its type.

    Args:
        entry: the object.
        key: of the field.
        kind: its type, or a union of several; true and false are no numbers.
        where: what messages call the object.

    Raises:
        UserError: it is no object, has no such field, or one of another type.
    """
    if not isinstance(entry, dict):
        raise UserError(f'{where}: found {type(entry).__name__}, expected an object')
    if key not in entry:
        raise UserError(f'{where}: found no {key}, expected one')
    value = entry[key]
    if not isinstance(value, kind) or isinstance(value, bool):
        name = getattr(kind, '__name__', str(kind))
        raise UserError(f'{where}: {key} is {reprlib.repr(value)}, expected {name}')
    return value


def _check_ids(
    entry: Any, sizes: Mapping[int, tuple[int, int]], category_ids: Sequence[int], where: str
) -> None:
    image_id = get_field(entry, 'image_id', int, where)
    if image_id not in sizes:
        known = reprlib.repr(sorted(sizes))
        raise UserError(f'{where}: image_id is {image_id}, expected one of {known}')
    category_id = get_field(entry, 'category_id', int, where)
    if category_id not in category_ids:
        known = category_ids[0] if len(category_ids) == 1 else f'one of {list(category_ids)!r:.100}'
        raise UserError(f'{where}: category_id is {category_id}, expected {known}')


def _labels(entries: Sequence[dict], category_ids: Sequence[int]) -> np.ndarray:
    """The places of the entries' categories among all: int64, (N,)."""
    place = {category_id: index for index, category_id in enumerate(category_ids)}
    return np.array([place[entry['category_id']] for entry in entries], np.int64)


def _read_masks(
    entries: Sequence[dict], sizes: Mapping[int, tuple[int, int]], source: str
) -> tuple[list[dict], np.ndarray]:
    """Turn the segmentations of all entries into checked RLEs and their areas."""
    rles = []
    for index, entry in enumerate(entries):
        where = f'{source}: mask {index}'
        height, width = sizes[entry['image_id']]
        segmentation = get_field(entry, 'segmentation', list | dict, where)
        if isinstance(segmentation, list):
            _check_polygons(segmentation, 2 * max(height, width), where)
        else:
            get_field(segmentation, 'size', list, where)
            counts = get_field(segmentation, 'counts', str | bytes | list, where)
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
