"""COCO truth and results files with the one category ``nucleus``, read and checked.

Every entry is checked, so that a wrong file ends in one line that names it. Images,
annotations and results are counted from 0 there; mask 5 belongs to annotation or result 5.
"""

import gzip
import json
import reprlib
import sys
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from nucseg_mmdet.structures import rle
from nucseg_mmdet.structures.polygons import segmentation_to_rle
from nucseg_mmdet.utils.errors import UserError

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


def read_truth(path: Path) -> list[TruthImage]:
    """Read COCO truth from a ``.json``, ``.json.gz`` or ``.zip`` file, see ``parse_truth``.

    Raises:
        UserError: the file cannot be read, or is not what was expected.
    """
    return parse_truth(load_json(path), str(path))


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
            *sizes[image_id],
            [rles[i] for i in groups[image_id]],
            areas[groups[image_id]],
        )
        for image_id in sorted(sizes)
    ]


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
        if not abs(score) <= sys.float_info.max:  # which whole numbers may exceed
            raise UserError(f'{where}: score is {score}, expected a finite number')
    rles, areas = _read_masks(data, sizes, source)
    values = np.array([result['score'] for result in data], np.float64)
    return {
        image_id: Detections([rles[i] for i in index], areas[index], values[index])
        for image_id, index in _group(data, sizes).items()
    }


def load_json(path: Path) -> Any:
    """Read JSON, plain, in gzip, or ``answer.json`` at the root of a zip file.

    Raises:
        UserError: the file is missing, damaged or no JSON.
    """
    try:
        if path.suffix == '.zip':
            with zipfile.ZipFile(path) as archive:
                text = archive.read('answer.json')
        elif path.suffix == '.gz':
            text = gzip.decompress(path.read_bytes())
        else:
            text = path.read_bytes()
    except KeyError:
        raise UserError(f'{path}: found no answer.json at its root, expected one') from None
    except (zipfile.BadZipFile, gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UserError(f'{path}: found a damaged archive ({error}), expected JSON') from None
    except OSError as error:
        raise UserError(f'{path}: {error.strerror}, expected a JSON file') from None
    try:
        return json.loads(text)
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
    """Refuse what pycocotools would take for boxes, or rasterise for hours."""
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
