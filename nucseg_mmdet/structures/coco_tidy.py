"""COCO files as common tools write them, made what the format says.

Only what can be read in one way is changed: ids and sizes that are whole numbers as text or floats,
paths with backslashes, sizes of images that are left out or -1, a polygon without the list around
it or as points, categories of any id and name where all are nuclei. The rest stays, for the checks
of ``coco`` to refuse.
"""

import copy
import re
from collections.abc import Callable, Collection
from typing import Any

from nucseg_mmdet.structures.coco_entries import CATEGORY_ID, make_categories

SizeOf = Callable[[str], tuple[int, int] | None]
WHOLE = ('id', 'image_id', 'category_id', 'width', 'height', 'iscrowd')  # keys


def tidy(data: Any, size_of: SizeOf | None = None) -> tuple[Any, list[str]]:
    """Make COCO truth what the format says.

    Args:
        data: of a JSON file; not changed.
        size_of: gives width and height, px, of an image by its file name, None if it is not there.

    Returns:
        The truth, and a line for each kind of change.
    """
    if not isinstance(data, dict):
        return data, []
    data, notes = copy.deepcopy(data), []
    parts = {key: _objects(data.get(key)) for key in ('images', 'annotations', 'categories')}
    _note(notes, sum(_read_numbers(entry) for part in parts.values() for entry in part),
          'ids or sizes as text or floats, read as whole numbers')  # fmt: skip
    paths = [
        image
        for image in parts['images']
        if isinstance(image.get('file_name'), str) and '\\' in image['file_name']
    ]
    for image in paths:
        image['file_name'] = image['file_name'].replace('\\', '/')
    _note(notes, len(paths), 'file names with backslashes, read as paths')
    _note(notes, sum(_read_polygons(annotation) for annotation in parts['annotations']),
          'masks as a bare list of coordinates or points, read as polygons')  # fmt: skip
    masks = {
        annotation.get('image_id'): annotation['segmentation'].get('size')
        for annotation in parts['annotations']
        if isinstance(annotation.get('segmentation'), dict) and _is_id(annotation.get('image_id'))
    }
    filled = 0
    for image in parts['images']:
        if not any(image.get(side) in (None, 0, -1) for side in ('width', 'height')):
            continue
        size = size_of(image['file_name']) if size_of and image.get('file_name') else None
        mask = masks.get(image['id']) if _is_id(image.get('id')) else None
        if size is None and isinstance(mask, list) and len(mask) == 2:
            size = mask[1], mask[0]
        if size is not None:
            image['width'], image['height'] = size
            filled += 1
    _note(notes, filled, 'images without width and height, taken from the images themselves')
    return data, notes


def as_one_class(data: Any) -> tuple[Any, list[str], set[int]]:
    """Take all categories of tidy truth for nuclei; an annotation of no category stays wrong.

    Returns:
        The truth, not changed in place; a line where there are several categories; and the ids
        that mean a nucleus in results.
    """
    if not isinstance(data, dict):
        return data, [], {CATEGORY_ID}
    categories = _objects(data.get('categories'))
    known = {category['id'] for category in categories if _is_id(category.get('id'))}
    as_it_is = known == {CATEGORY_ID} or len(known) != len(categories) or not known
    if as_it_is or not isinstance(data.get('annotations'), list):
        return data, [], {CATEGORY_ID}
    annotations = [
        dict(entry, category_id=CATEGORY_ID)
        if isinstance(entry, dict) and _is_id(entry.get('category_id'))
        and entry['category_id'] in known
        else entry
        for entry in data['annotations']
    ]  # fmt: skip
    names = ', '.join(str(category.get('name'))[:40] for category in categories)
    notes = [f'{len(known)} categories ({names}), all taken for nuclei'] if len(known) > 1 else []
    data = dict(data, annotations=annotations, categories=make_categories())
    return data, notes, known | {CATEGORY_ID}


def has_types(data: Any, results: Any) -> bool:
    """Whether tidy truth has several categories, and results have several of these.

    Results of one category alone may well be of a model that knows nuclei of one class.
    """
    if not isinstance(data, dict) or not isinstance(results, list):
        return False
    known = [category.get('id') for category in _objects(data.get('categories'))]
    found = [entry.get('category_id') for entry in _objects(tidy_results(results, ()))]
    if not all(map(_is_id, [*known, *found])):
        return False
    return len(set(known)) > 1 and len(set(found)) > 1 and set(found) <= set(known)


def tidy_results(data: Any, nucleus_ids: Collection[int]) -> Any:
    """Make COCO results what the format says; category ids that mean a nucleus become 1."""
    if not isinstance(data, list):
        return data
    data = [dict(entry) if isinstance(entry, dict) else entry for entry in data]
    for entry in _objects(data):
        _read_numbers(entry)
        _read_polygons(entry)
        if _is_id(entry.get('category_id')) and entry['category_id'] in nucleus_ids:
            entry['category_id'] = CATEGORY_ID
    return data


def _objects(part: Any) -> list[dict]:
    return [entry for entry in part if isinstance(entry, dict)] if isinstance(part, list) else []


def _is_id(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _read_numbers(entry: dict) -> bool:
    """Turn ids and sizes that are whole numbers into such, in place; whether there were any."""
    changed = False
    for key in WHOLE:
        value = entry.get(key)
        if (isinstance(value, float) and value.is_integer()) or (
            isinstance(value, str) and re.fullmatch('[0-9]{1,18}', value)
        ):
            entry[key] = int(value)
            changed = True
    return changed


def _read_polygons(entry: dict) -> bool:
    """Make [x, y, ...], [[x, y], ...] and [[[x, y], ...], ...] polygons, in place; whether so."""
    masks = entry.get('segmentation')
    if not isinstance(masks, list) or not masks:
        return False
    bare = len(masks) >= 6 and all(map(_is_number, masks))
    polygons = [masks] if bare or (len(masks) >= 3 and all(map(_is_point, masks))) else masks
    read = [
        [value for point in polygon for value in point]
        if isinstance(polygon, list) and polygon and all(map(_is_point, polygon))
        else polygon
        for polygon in polygons
    ]
    entry['segmentation'] = read
    return read != masks


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_point(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(_is_number, value))


def _note(notes: list[str], number: int, text: str) -> None:
    if number:
        notes.append(f'{number:,} {text}')
