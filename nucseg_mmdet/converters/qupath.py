"""Reader of QuPath's GeoJSON, with its images or slides.

::

    RAW/**/<name>.geojson        also .geojson.gz; or RAW is one such file, of any suffix
    RAW/**/<name>.svs            the image or slide, of any format of tools/segment.py;
                                 --images names another folder

Annotations whose class is named like 'Region*' say what is fully annotated: every nucleus in
them, and each is an annotation or a detection of any other class, or of none. They are cut into
fields at 0.25 microns per pixel; what lies in the field but in no region becomes white. The
class of a nucleus is its type; those of a class 'Ignore*' are left out. A pixel belongs to a
nucleus if its center lies within the outline, so what tools/segment.py wrote comes back as it was.
"""

import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from functools import reduce
from itertools import pairwise, product
from pathlib import Path
from typing import NamedTuple

import numpy as np
import shapely

from nucseg_mmdet.converters.base import AnnotatedImage, ImageFile, Nucleus
from nucseg_mmdet.converters.nuclei import from_mask
from nucseg_mmdet.converters.qupath_geojson import QuPathObject, read_objects
from nucseg_mmdet.converters.raw_images import LINKS, folders_left_out
from nucseg_mmdet.slides.base import RegionError, Slide, name_of
from nucseg_mmdet.slides.open import IMAGES, SCANS, open_slide
from nucseg_mmdet.slides.pixel_size import MODEL_MPP
from nucseg_mmdet.structures.polygons import fill_rings
from nucseg_mmdet.utils.errors import UserError, count_nuclei, counted, some

OPTIONS = {
    'images': 'folder of the images or slides, default: that of the GeoJSON files',
    'regions': "classes of the regions, with * for any letters, default: 'Region*,annotated'; "
    "'all' takes whole images",
    'mpp': 'microns per pixel of all images, default: what the files say',
    'field': 'largest side of a field, px of 0.25 microns, default: 1000',
}
REGIONS = 'Region*,annotated'
IGNORED = 'Ignore*'  # as QuPath's own class
FIELD = 1_000  # px
SMALL = 2  # px of 0.25 microns; what is wider in x and y covers the center of a pixel
SLACK = 1  # px by which a region may reach beyond the image without a note
NO_IMAGES = ('.geojson', '.json', '.gz', '.csv', '.parquet')  # results beside the image
ENDING = re.compile(r'\.geojson(\.gz)?$', re.IGNORECASE)


class Entry(NamedTuple):
    """One field of a slide.

    Attributes:
        image: the slide.
        mpp: its microns per pixel, if not those that the file says.
        name: of the field's file.
        scale: full-resolution px per px of 0.25 microns.
        field: x, y, width, height, px of 0.25 microns.
        region: rings of what is annotated, full-resolution px.
        nuclei: that reach into the field.
        problems: of the GeoJSON file, with its first field.
        notes: likewise.
        error: why there is no field.
    """

    image: Path
    mpp: float | None = None
    name: str = ''
    scale: float = 1.0
    field: tuple[int, int, int, int] = (0, 0, 0, 0)
    region: Sequence[np.ndarray] = ()
    nuclei: Sequence[QuPathObject] = ()
    problems: Sequence[str] = ()
    notes: Sequence[str] = ()
    error: str | None = None


def find_images(
    raw: Path,
    images: str | None = None,
    regions: str = REGIONS,
    mpp: str | None = None,
    field: str | None = None,
) -> list[Entry]:
    """The fields of all GeoJSON files, by name.

    Raises:
        UserError: ``raw`` is missing or has no GeoJSON file, or an option is not possible.
    """
    side = int(_number(field, 'field', 64)) if field else FIELD
    microns = _number(mpp, 'mpp', 0) if mpp else None
    paths = [raw] if raw.is_file() else sorted(path for path in raw.rglob('*') if _is_geojson(path))
    if not paths:
        found = 'no .geojson file' if raw.is_dir() else 'no such file or folder'
        raise UserError(f'{raw}: {found}, expected one for each image')
    entries = []
    for path in paths:
        try:
            image = _find_image(path, Path(images) if images else path.parent)
            with open_slide(image, microns) as slide:
                entries += _fields(path, image, slide, microns, regions, side)
        except UserError as error:
            entries.append(Entry(path, error=str(error)))
    return entries


def find_left_out(raw: Path, images: str | None = None, **_: str) -> list[str]:
    """A line for each folder that ``find_images`` passes over, and where images have no GeoJSON."""
    if raw.is_file():
        return []
    lines = folders_left_out(raw, ['**/*'], _is_geojson, LINKS)
    paths = [path for path in raw.rglob('*') if _is_geojson(path)]
    folders = {Path(images)} if images else {path.parent for path in paths}
    names = {_image_name(path) for path in paths}
    for folder in sorted(folder for folder in folders if folder.is_dir()):
        alone = [
            path.name
            for path in sorted(folder.iterdir())
            if path.suffix.lower() in IMAGES + SCANS
            and path.is_file()
            and not {*_names(path), path.name.split('.')[0]} & names  # x.tissue.png goes with x
        ]
        if alone:
            lines.append(f'{folder}: no GeoJSON of their names, left out: {some(alone)}')
    return lines


def _number(text: str, option: str, least: float) -> float:
    try:
        value = float(text)
    except ValueError:
        value = np.nan
    if not least <= value < np.inf:
        raise UserError(f'--{option} {text}: expected a number from {least} on')
    return value


def _is_geojson(path: Path) -> bool:
    return bool(ENDING.search(path.name)) and not path.name.startswith('.') and path.is_file()


def _image_name(path: Path) -> str:
    """What the image of a GeoJSON file is called, with or without its suffix."""
    return re.sub(r'\.(geo)?json(\.gz)?$', '', path.name, flags=re.IGNORECASE)


def _names(image: Path) -> set[str]:
    return {image.name, image.stem, name_of(image)}


def _find_image(path: Path, folder: Path) -> Path:
    """The image that a GeoJSON file is named after, with or without the image's own suffix."""
    name = _image_name(path)
    found = sorted(
        item
        for item in (folder.iterdir() if folder.is_dir() else [])
        if item.is_file() and name in _names(item) and item.suffix.lower() not in NO_IMAGES
    )
    if len(found) != 1:
        names = ', '.join(item.name for item in found) or 'none'
        raise UserError(
            f'{path}: images named {name} in {folder}: {names}, expected one; --images names '
            'another folder'
        )
    return found[0]


def _fields(
    path: Path, image: Path, slide: Slide, mpp: float | None, regions: str, side: int
) -> list[Entry]:
    """Cut the regions of a slide into fields, each with its nuclei."""
    objects, problems = read_objects(path)
    if slide.bounds:  # QuPath counts from the corner of the scanned part
        objects = [item.moved(*slide.bounds[:2]) for item in objects]
    notes = [f'{image}: {note}' for note in slide.notes]
    if slide.pixel_size.assumed:
        notes.append(f'{image}: {slide.pixel_size.source} microns per pixel, see --mpp')
    areas, nuclei = _sort(objects, regions, notes, path)
    scale = MODEL_MPP / slide.mpp
    whole = shapely.box(0, 0, slide.width, slide.height)
    shapes = [] if regions == 'all' else [_shape(item) for item in areas]
    area = whole if regions == 'all' else whole.intersection(shapely.union_all(shapes))
    parts = [part for part in shapely.get_parts(area) if part.area > 0]
    if not parts:
        raise UserError(
            f'{path}: no annotation of a class named {regions.replace(",", " or ")} on the image, '
            'expected one around what is fully annotated; --regions all takes whole images'
        )
    boxes = np.array([item.box for item in nuclei]).reshape(-1, 4)
    small = (boxes[:, 2:] - boxes[:, :2] < SMALL * scale).any(1)
    entries, seen = [], np.zeros(len(nuclei), bool)
    outer = shapely.box(boxes[:, 0], boxes[:, 1], boxes[:, 2], boxes[:, 3])
    for part in parts:
        rings = [np.array(ring.coords) for ring in (part.exterior, *part.interiors)]
        clear = shapely.covers(part, outer) & ~small
        for window in _windows(part, scale, side, (slide.width, slide.height)):
            x, y, width, height = (value * scale for value in window)
            inside = (boxes[:, :2] < (x + width, y + height)) & (boxes[:, 2:] > (x, y))
            inside = np.flatnonzero(inside.all(1))
            chosen = [nuclei[index] for index in inside]
            name = f'{name_of(image)}_x{round(x)}_y{round(y)}.png'
            entry = Entry(image, mpp, name, scale, window, rings, chosen)
            entries.append(entry)
            seen[inside] |= clear[inside]
            doubtful = inside[~seen[inside]]
            seen[doubtful] = _show(entry, [nuclei[index] for index in doubtful])
    if not seen.all():
        many = count_nuclei(np.count_nonzero(~seen))
        notes.append(f'{path}: {many} in no region, or without a pixel in it, left out')
    notes += [f'{path}: {line}' for line in _beyond(shapes, whole)]
    entries[0] = entries[0]._replace(problems=problems, notes=notes)
    return entries


def _beyond(regions: Sequence[shapely.Geometry], whole: shapely.Polygon) -> list[str]:
    """A line for the regions that are not on the image, and one for those that reach beyond it."""
    off = [not whole.intersection(region).area for region in regions]
    lines = []
    if any(off):
        lines.append(f'{counted(sum(off), "region")} beyond the image or flat, left out')
    around = whole.buffer(SLACK, join_style='mitre')
    cut = [region for region, is_off in zip(regions, off, strict=True) if not is_off]
    if num := sum(not around.covers(region) for region in cut):
        lines.append(f'{counted(num, "region")} cut at the border of the image')
    return lines


def _sort(
    objects: Sequence[QuPathObject], regions: str, notes: list[str], path: Path
) -> tuple[list[QuPathObject], list[QuPathObject]]:
    """Tell regions from nuclei; what is neither gets a note."""
    areas, nuclei, ignored, others = [], [], 0, 0
    for item in objects:
        if item.kind == 'annotation' and _is_named(item, regions):
            areas.append(item)
        elif item.kind == 'annotation' and _is_named(item, REGIONS):
            others += 1
        elif _is_named(item, IGNORED):
            ignored += 1
        else:
            nuclei.append(item)
    if ignored:
        notes.append(f'{path}: {ignored:,} objects of a class Ignore* are left out')
    if others:
        names = REGIONS.replace(',', ' or ')
        notes.append(
            f'{path}: {others:,} annotations of a class {names} are no nuclei, and no regions by '
            f'--regions {regions}; left out'
        )
    return areas, nuclei


def _is_named(item: QuPathObject, patterns: str) -> bool:
    """Whether a pattern of several, with commas between them, is that of an object's class."""
    name = (item.name or '').casefold()
    return any(fnmatchcase(name, one.strip().casefold()) for one in patterns.split(','))


def _shape(region: QuPathObject) -> shapely.Geometry:
    """A region's area, by the even-odd rule."""
    rings = [shapely.make_valid(shapely.Polygon(ring)) for ring in region.rings]
    return reduce(shapely.symmetric_difference, rings)


def _show(entry: Entry, nuclei: Sequence[QuPathObject]) -> list[bool]:
    """Of which nuclei a field and its region show a pixel."""
    if not nuclei:
        return []
    annotated = _annotated(entry)
    return [_nucleus(item, entry, annotated) is not None for item in nuclei]


def _windows(
    part: shapely.Polygon, scale: float, side: int, size: tuple[int, int]
) -> list[tuple[int, int, int, int]]:
    """Cover a region with fields of like size: xywh, px of 0.25 microns, from the slide's grid."""
    most = [max(1, round(length / scale)) for length in size]
    bounds = np.array(part.bounds) / scale
    # Corners to 0.01 px of the slide, as QuPath has them, are those of pixels.
    slack = 0.01 / scale
    low = np.clip(np.floor(bounds[:2] + slack), 0, most).astype(int)
    high = np.clip(np.ceil(bounds[2:] - slack), low + 1, np.maximum(most, low + 1)).astype(int)
    columns, rows = (
        pairwise(
            np.linspace(start, end, -(-(end - start) // side) + 1).round().astype(int).tolist()
        )
        for start, end in zip(low, high, strict=True)
    )
    windows = []
    for (top, bottom), (left, right) in product(rows, columns):
        corners = (value * scale for value in (left, top, right, bottom))
        if part.intersection(shapely.box(*corners)).area > 0:
            windows.append((left, top, right - left, bottom - top))
    return windows


def read_image(entry: Entry) -> AnnotatedImage:
    """Read one field and its nuclei.

    Raises:
        UserError: there is no field, or the slide is damaged there.
    """
    if entry.error:
        raise UserError(entry.error)
    x, y, width, height = entry.field
    box = x * entry.scale, y * entry.scale, width * entry.scale, height * entry.scale
    with open_slide(entry.image, entry.mpp) as slide:
        try:
            pixels = slide.read(*box, entry.scale)
        except RegionError as error:
            raise UserError(f'{entry.image}: {error}') from None
    annotated = _annotated(entry)
    pixels = np.where(annotated[..., None], pixels, np.uint8(255))
    pixels = np.ascontiguousarray(pixels[..., ::-1])
    image = ImageFile(
        entry.image, height, width, pixels=pixels, name=entry.name, slide=entry.image.name
    )
    nuclei = [_nucleus(item, entry, annotated) for item in entry.nuclei]
    nuclei = [nucleus for nucleus in nuclei if nucleus is not None]
    return AnnotatedImage(image, nuclei, list(entry.problems), list(entry.notes))


def _annotated(entry: Entry) -> np.ndarray:
    """The pixels of a field that lie in its region."""
    x, y, width, height = entry.field
    return fill_rings([ring / entry.scale - (x, y) for ring in entry.region], height, width)


def _nucleus(item: QuPathObject, entry: Entry, annotated: np.ndarray) -> Nucleus | None:
    """What a field and its region show of a nucleus, if anything."""
    rings = [ring / entry.scale - entry.field[:2] for ring in item.rings]
    points = np.concatenate(rings)
    left, top = np.maximum(np.floor(points.min(0)), 0).astype(int).tolist()
    right, bottom = np.ceil(points.max(0)).astype(int).tolist()
    window = annotated[top:bottom, left:right]
    mask = fill_rings([ring - (left, top) for ring in rings], *window.shape) & window
    return from_mask(mask, (left, top), item.name) if mask.any() else None
