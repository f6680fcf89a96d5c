"""QuPath's GeoJSON, of versions 0.2 to 0.6, read into objects."""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from nucseg_mmdet.utils.errors import UserError
from nucseg_mmdet.utils.reading import MOST, read_packed

MAX_COORDINATE = 1e8  # px; a hundred times the largest slide
KINDS, NO_NUCLEI = ('annotation', 'detection', 'cell'), ('tile', 'tmaCore', 'root')
# Up to version 0.2 the type stood in the id.
OLD_TYPES = dict(
    PathAnnotationObject='annotation',
    PathDetectionObject='detection',
    PathCellObject='cell',
    PathTileObject='tile',
    TMACoreObject='tmaCore',
    PathRootObject='root',
)


class QuPathObject(NamedTuple):
    """An annotation, a detection or a cell.

    Attributes:
        kind: 'annotation', 'detection', 'cell', ...
        name: of its class; derived classes as QuPath shows them, 'Tumor: Positive'.
        rings: float64, (P, 2) each; x, y of outlines and holes, full-resolution px. Of a cell
            those of its nucleus.
    """

    kind: str
    name: str | None
    rings: list[np.ndarray]

    @property
    def box(self) -> tuple[float, float, float, float]:
        """xyxy, full-resolution px."""
        points = np.concatenate(self.rings)
        return (*points.min(0), *points.max(0))

    def moved(self, x: float, y: float) -> 'QuPathObject':
        """Shift it, full-resolution px."""
        return self._replace(rings=[ring + np.array([x, y]) for ring in self.rings])


def read_objects(path: Path) -> tuple[list[QuPathObject], list[str]]:
    """Read the objects of a file, also those within others.

    Args:
        path: GeoJSON, compressed or not: a collection, a list of features, or one feature.

    Returns:
        The objects, without tiles, TMA cores and the root, and a line for each that is not
        as expected.

    Raises:
        UserError: the file cannot be read, or is neither of objects nor of a collection of none.
    """
    objects: list[QuPathObject] = []
    problems: list[str] = []
    count = 0

    def take(item: dict) -> dict | None:
        # Called for each JSON object as soon as it is read, so that of a million nuclei
        # no more than the vertices is kept.
        nonlocal count
        if item.get('type') != 'Feature':
            return item
        count += 1
        try:
            read = _read_feature(item)
        except UserError as error:
            problems.append(f'{path}: object {count}, id {item.get("id")!r:.60}: {error}')
        else:
            if read.kind not in NO_NUCLEI:
                objects.append(read)
        return None

    try:
        content = json.loads(read_packed(path, f'{path.stem}.geojson', MOST), object_hook=take)
    except (ValueError, RecursionError) as error:
        raise UserError(f'{path}: no JSON ({error}), expected GeoJSON of QuPath') from None
    is_empty = isinstance(content, dict) and content.get('features') == []  # of nothing found
    if not count and not is_empty:
        raise UserError(f'{path}: no object, expected GeoJSON of QuPath with features')
    return objects, problems


def _read_feature(feature: dict) -> QuPathObject:
    properties = feature.get('properties') or {}
    if not isinstance(properties, dict):
        raise UserError(f'properties are {properties!r:.60}, expected an object')
    kind = OLD_TYPES.get(str(feature.get('id')), 'annotation')
    for key in ('type', 'object_type', 'objectType'):  # of 0.4, of 0.3, of 0.4 and later
        kind = properties.get(key) or kind
    kind = OLD_TYPES.get(kind, kind) if isinstance(kind, str) else 'annotation'
    if kind in NO_NUCLEI:
        return QuPathObject(kind, None, [])
    if kind not in KINDS:
        raise UserError(f'its type is {kind!r:.60}, expected one of {", ".join(KINDS)}')
    geometry = feature.get('geometry')
    if kind == 'cell':
        geometry = feature.get('nucleusGeometry')
        if geometry is None:
            raise UserError('a cell without a nucleus, expected one with it')
    return QuPathObject(kind, _class_name(properties.get('classification')), _rings(geometry))


def _class_name(classification: Any) -> str | None:
    if isinstance(classification, dict):
        names = classification.get('names') or classification.get('name')
        names = names if isinstance(names, list) else [names]
        classification = ': '.join(name for name in names if isinstance(name, str))
    return classification if classification and isinstance(classification, str) else None


def _rings(geometry: Any) -> list[np.ndarray]:
    kind = geometry.get('type') if isinstance(geometry, dict) else None
    if kind not in ('Polygon', 'MultiPolygon'):
        raise UserError(f'geometry is {kind}, expected a Polygon or a MultiPolygon')
    plane = geometry.get('plane') or {}
    if not isinstance(plane, dict) or plane.get('z') or plane.get('t'):
        raise UserError(f'lies on plane {plane!r:.60}, expected the first one')
    coordinates: Any = geometry.get('coordinates')  # of JSON; None is told below
    polygons = coordinates if kind == 'MultiPolygon' else [coordinates]
    try:
        rings = [
            np.array([point[:2] for point in ring], float) for rings in polygons for ring in rings
        ]
    except (TypeError, ValueError, OverflowError):  # the last of 400 digits, which JSON may have
        raise UserError(f'coordinates are {coordinates!r:.60}, expected rings of x, y') from None
    if not rings:
        raise UserError('geometry is empty, expected an outline')
    for ring in rings:
        if ring.ndim != 2 or ring.shape[1] != 2 or len(ring) < 4:
            raise UserError(f'a ring is {ring.tolist()!r:.60}, expected 4 or more of x, y')
        if not (np.abs(ring) <= MAX_COORDINATE).all():
            raise UserError('a coordinate is not finite or too large, expected px of the slide')
    return rings
