"""Reader of COCO instance JSON, with polygons or run lengths.

::

    RAW                          the JSON file
    its folder/<file_name>       the images; --images names another folder

The pixels of a nucleus are those that pycocotools gives; nuclei may overlap. The type of a
nucleus is its annotation's ``type``, as this project writes it, or else the name of its
category, unless that is nucleus.
"""

import os
from collections.abc import Iterable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path, PurePosixPath
from typing import NamedTuple
from unicodedata import normalize
from urllib.parse import unquote

from nucseg_mmdet.converters.base import AnnotatedImage, ImageFile
from nucseg_mmdet.converters.nuclei import from_mask
from nucseg_mmdet.converters.raw_images import open_raw_image
from nucseg_mmdet.imaging.image_files import read_size
from nucseg_mmdet.structures.coco import get_field, load_json, parse_truth
from nucseg_mmdet.structures.coco_entries import CATEGORY_ID
from nucseg_mmdet.structures.coco_tidy import tidy
from nucseg_mmdet.structures.rle import coco_mask
from nucseg_mmdet.utils.errors import UserError, some

OPTIONS = {
    'images': 'folder of the images, default: that of the JSON file',
    'crowds': "'nuclei' takes annotations with iscrowd 1 for a nucleus each: CVAT marks masks so; "
    'by default they are refused, since a crowd may be many nuclei',
}
IMAGE_ID = 1  # any: an annotation is checked as the only one of its image


class Entry(NamedTuple):
    """An image of the JSON file and its annotations.

    Attributes:
        source: the JSON file.
        path: of the image.
        info: the image's object.
        annotations: of the image.
        types: names of the categories by id.
        notes: on the file, with its first image.
    """

    source: Path
    path: Path
    info: dict
    annotations: list[dict]
    types: dict[int, str]
    notes: Sequence[str] = ()


def find_images(raw: Path, images: str | None = None, crowds: str | None = None) -> list[Entry]:
    """The images of a JSON file in its order, each with its annotations.

    Raises:
        UserError: the file is no COCO JSON, ids stand twice or are unknown, an organ or a type
            is no text, an image is to be looked for outside the folder, or an option is not
            possible.
    """
    if crowds not in (None, 'nuclei'):
        raise UserError(f"--crowds {crowds}: expected 'nuclei', or no such option")
    folder = Path(images) if images else raw.parent
    data, notes = tidy(load_json(raw), partial(_size_of, folder))
    infos, annotations, categories = (
        get_field(data, key, list, str(raw)) for key in ('images', 'annotations', 'categories')
    )
    if crowds:
        notes += _take_crowds(annotations)
    notes += _leave_foreign_types(annotations)
    types = _types_of(categories, raw)
    if not folder.is_dir():
        raise UserError(f'{folder}: no such folder, expected the images')
    entries, respelled = {}, 0
    for index, info in enumerate(infos):
        where = f'{raw}: image {index}'
        number = get_field(info, 'id', int, where)
        if number in entries:
            raise UserError(f'{where}: id {number} is taken, expected another')
        named = _inside(get_field(info, 'file_name', str, where), where)
        path = folder / _as_on_disk(folder, named)
        respelled += path != folder / named
        _check_text(info, 'organ', where)
        _check_text(info, 'slide', where)
        entries[number] = Entry(raw, path, info, [], types)
    for index, annotation in enumerate(annotations):
        where = f'{raw}: annotation {index}'
        number = get_field(annotation, 'image_id', int, where)
        category = get_field(annotation, 'category_id', int, where)
        if number not in entries or category not in types:
            raise UserError(
                f'{where}: image_id {number}, category_id {category}: one is not there, '
                'expected both in the file'
            )
        entries[number].annotations.append(annotation)
    if not entries:
        raise UserError(f'{raw}: no images, expected at least one')
    _check_folder(folder, entries.values(), raw)
    if respelled:
        notes.append(f'{respelled:,} file names in percent signs or other Unicode than the files')
    first, *others = entries.values()
    return [first._replace(notes=[f'{raw}: {note}' for note in notes]), *others]


def _types_of(categories: list, raw: Path) -> dict[int, str]:
    """The names of the categories by id, checked."""
    types = {}
    for index, category in enumerate(categories):
        where = f'{raw}: category {index}'
        types[get_field(category, 'id', int, where)] = get_field(category, 'name', str, where)
    if len(types) != len(categories):
        raise UserError(f'{raw}: {len(categories)} categories, {len(types)} ids, expected as many')
    return types


def _check_folder(folder: Path, entries: Iterable[Entry], raw: Path) -> None:
    """Refuse a folder that has no image of the file: it is another one."""
    entries = list(entries)
    if not any(os.path.lexists(entry.path) for entry in entries):
        listed = some([entry.info['file_name'] for entry in entries])
        raise UserError(
            f'{folder}: none of the images of {raw.name} ({listed}), expected them, or --images '
            'with the folder that has them'
        )


def _take_crowds(annotations: list) -> list[str]:
    """Take crowds for nuclei, in place; a line that says how many."""
    found = [entry for entry in annotations if isinstance(entry, dict) and entry.get('iscrowd')]
    for entry in found:
        entry['iscrowd'] = 0
    return [f'{len(found):,} annotations with iscrowd 1, each taken for a nucleus'] if found else []


def _leave_foreign_types(annotations: list) -> list[str]:
    """Take out ``type`` of annotations where it is none of nuclei, in place; a line that says so.

    Other tools have a key of this name for the kind of mask, say. One that tells nuclei apart is a
    text, and all that have it are of one category, as ``--classes`` gathers types.
    """
    typed = [one for one in annotations if isinstance(one, dict) and one.get('type') is not None]
    if all(isinstance(one['type'], str) for one in typed):
        pairs = {(one['type'], repr(one.get('category_id'))) for one in typed}
        if len(pairs) == len({kind for kind, _ in pairs}):
            return []
    for one in typed:
        del one['type']
    return [f"{len(typed):,} annotations with a 'type' that is none of nuclei, left out"]


def _size_of(folder: Path, name: str) -> tuple[int, int] | None:
    try:
        return read_size(folder / _as_on_disk(folder, _inside(name, name)))
    except UserError:
        return None  # told when the image is read


def _as_on_disk(folder: Path, name: PurePosixPath) -> PurePosixPath:
    """The name by which a file is there: tools write %20, and macOS letters and accents apart."""
    if os.path.lexists(folder / name):
        return name
    spellings = (
        normalize(form, text) for text in (str(name), unquote(str(name))) for form in ('NFC', 'NFD')
    )
    found = []
    for spelling in dict.fromkeys(spellings):
        with suppress(UserError, ValueError):  # which leads elsewhere, or has a NUL
            if os.path.isfile(folder / _inside(spelling, spelling)):
                found.append(PurePosixPath(spelling))
    return found[0] if len(found) == 1 else name


def _check_text(entry: dict, key: str, where: str) -> None:
    """Refuse a field that may be left out but is no text: organs and types are sorted."""
    if entry.get(key) is not None:
        get_field(entry, key, str, where)


def _inside(name: str, where: str) -> PurePosixPath:
    """Refuse a file name that leads out of the folder."""
    path = PurePosixPath(name)
    leads_out = '..' in path.parts or path.stem in ('.', '..')  # also without its suffix
    if not path.name or path.is_absolute() or leads_out or '\\' in name or ':' in name:
        raise UserError(f'{where}: file_name {name!r}, expected a file in the folder')
    return path


def read_image(entry: Entry) -> AnnotatedImage:
    """Read one training image and its annotations.

    Annotations that cannot be used are left out, with a line each in ``problems``.

    Raises:
        UserError: the image is missing, broken, or not of the listed size.
    """
    image, rles, problems = read_masks(entry)
    image.organ, image.slide = entry.info.get('organ'), entry.info.get('slide')
    nuclei = []
    for index, rle in rles.items():
        kind = type_of(entry.annotations[index], entry.types)
        nuclei.append(from_mask(coco_mask.decode(rle), kind=kind))
    return AnnotatedImage(image, nuclei, problems, list(entry.notes))


def type_of(annotation: dict, types: dict[int, str]) -> str | None:
    """The type of a nucleus: the annotation's own, or the name of its category but for nucleus."""
    kind = annotation.get('type')
    if kind is None and list(types.values()) != ['nucleus']:
        return types[annotation['category_id']]
    return kind


def read_masks(entry: Entry) -> tuple[ImageFile, dict[int, dict], list[str]]:
    """Check an image and its annotations.

    Returns:
        The image, the compressed RLEs by index of the annotation, and a line for each
        annotation that cannot be used.

    Raises:
        UserError: the image is missing, broken, or not of the listed size.
    """
    image = open_raw_image(entry.path)
    listed = (entry.info.get('height'), entry.info.get('width'))
    if (image.height, image.width) != listed:
        raise UserError(
            f'{entry.path}: {image.width} x {image.height} px, '
            f'expected {listed[1]} x {listed[0]} px as in {entry.source.name}'
        )
    info = dict(entry.info, id=IMAGE_ID)
    rles, problems = {}, []
    for index, annotation in enumerate(entry.annotations):
        where = f'{entry.source}: {entry.path.name}, annotation id {annotation.get("id")}'
        alone = dict(annotation, image_id=IMAGE_ID, category_id=CATEGORY_ID)
        coco = dict(images=[info], annotations=[alone], categories=[dict(id=CATEGORY_ID)])
        try:
            truth = parse_truth(coco, where)[0]
            if not truth.areas[0]:
                raise UserError(f'{where}: no pixel inside, expected a nucleus')
        except UserError as error:
            more = ', or --crowds nuclei' if annotation.get('iscrowd') else ''
            problems.append(f'{error}{more}')
            continue
        rles[index] = truth.rles[0]
    return image, rles, problems
