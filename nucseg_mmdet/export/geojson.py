"""GeoJSON as QuPath writes and reads it."""

import gzip
import json
import re
import uuid
from itertools import pairwise

import numpy as np
import shapely

from nucseg_mmdet.export.outlines import closed_rings, touching, valid_polygons
from nucseg_mmdet.export.writer import Options, Target, Writer
from nucseg_mmdet.structures.nuclei import Nuclei

GZIP_LEVEL = 5  # 6 takes twice and 9 five times as long, for files as large
FEATURE = (
    '{"type":"Feature","id":"%s","geometry":{"type":"Polygon","coordinates":[%s]},'
    '"properties":{"objectType":"detection",'
    '"classification":%s,"measurements":{NUMBERS}}}'
)
UNDEFINED = re.compile(r'"\w+":nan,')  # JSON has no NaN; the score comes last and has a value


class GeoJson(Writer):
    """A ``FeatureCollection`` of detections, one feature a line.

    Coordinates are full-resolution pixels, to 0.01 px as QuPath's own, from where QuPath counts:
    that is the scanned part's corner of a slide whose file tells of one. ``id`` is a
    UUID made from the slide's name, the region and the nucleus' number: the same in every run,
    another in another region of the slide. Measurements that are undefined are left out. QuPath
    reads it from version 0.4 on, compressed or not; docs/qupath.md has its rules.

    Source:
        QuPath's documentation, "Exporting annotations": full-resolution pixels, origin at the
        top left, ``FeatureCollection``. Its classes that read and write the rest:
        ``QuPathTypeAdapters`` (``id``, ``objectType``, measurements as an object, before 0.4 an
        array), ``GsonTools`` (classification with a color [r, g, b], before 0.4 an integer),
        ``ROITypeAdapters`` (rings, decimals), ``PathIO`` (``.geojson.gz``).
    """

    suffix = '.geojson'
    nucleus_bytes = 1_200

    @classmethod
    def file_name(cls, target: Target, options: Options) -> str:
        return super().file_name(target, options) + ('.gz' if options.compress else '')

    def _start(self) -> None:
        self._text = self._file
        if self.options.compress:  # no name, no time: the same nuclei make the same bytes
            packed = gzip.GzipFile('', 'wb', GZIP_LEVEL, self._file, mtime=0)
            self._text = self._held.enter_context(packed)
        numbers = ','.join(f'"{name}":%.6g' for name in (*self.names, 'score'))
        self._feature = FEATURE.replace('NUMBERS', numbers)
        kinds = [one._asdict() for one in self.options.classes]
        self._kinds = [json.dumps(kind, separators=(',', ':')) for kind in kinds]
        self._text.write(b'{"type":"FeatureCollection","features":[')

    def _write(self, nuclei: Nuclei, ids: np.ndarray) -> None:
        name = f'nucseg-mmdet:{self.target.text}/'
        if self.target.region:
            name += ','.join(map(str, self.target.region)) + '/'
        uuids = [str(uuid.uuid5(uuid.NAMESPACE_URL, f'{name}{i}')) for i in ids.tolist()]
        values = np.column_stack([nuclei.measurements, nuclei.scores])
        kinds = [self._kinds[label] for label in nuclei.labels.tolist()]
        rows = zip(uuids, self._polygons(nuclei), kinds, *values.T.tolist(), strict=True)
        features = [self._feature % row for row in rows]
        for index in np.flatnonzero(np.isnan(values).any(1)):
            features[index] = UNDEFINED.sub('', features[index])
        if ids[0] > 1:
            self._text.write(b',')
        self._text.write(('\n' + ',\n'.join(features)).encode())

    def _finish(self) -> None:
        self._text.write(b'\n]}\n')

    def _polygons(self, nuclei: Nuclei) -> list[str]:
        """The ``coordinates`` of each nucleus, without their outermost brackets."""
        (points, sizes), invalid = closed_rings(nuclei, self.target), touching(nuclei)
        points -= self.target.qupath_corner
        if self.options.simplify:
            polygons = valid_polygons(points, sizes, invalid)
            polygons = shapely.simplify(polygons, self.options.simplify, preserve_topology=True)
            return _polygon_texts(polygons)
        texts = _ring_texts(points, sizes)
        if len(invalid):
            rings = np.split(points, np.cumsum(sizes)[:-1])
            chosen = np.concatenate([rings[index] for index in invalid])
            polygons = valid_polygons(chosen, sizes[invalid], np.arange(len(invalid)))
            for index, text in zip(invalid, _polygon_texts(polygons), strict=True):
                texts[index] = text
        return texts


def _polygon_texts(polygons: np.ndarray) -> list[str]:
    rings, owner = shapely.get_rings(polygons, return_index=True)
    points, ring = shapely.get_coordinates(rings, return_index=True)
    texts = _ring_texts(points, np.bincount(ring))
    ends = np.cumsum(np.bincount(owner)).tolist()
    return [','.join(texts[start:end]) for start, end in pairwise([0, *ends])]


def _ring_texts(points: np.ndarray, sizes: np.ndarray) -> list[str]:
    """Write rings as JSON: one format a ring, without a Python object for each vertex."""
    whole = points.astype(np.int64)
    is_whole = (whole == points).all()
    vertex = '[%d,%d]' if is_whole else '[%.9g,%.9g]'
    numbers = (whole if is_whole else points).reshape(-1).tolist()
    formats = {size: f'[{",".join([vertex] * size)}]' for size in set(sizes.tolist())}
    ends = (2 * np.cumsum(sizes)).tolist()
    return [
        formats[size] % tuple(numbers[end - 2 * size : end])
        for size, end in zip(sizes.tolist(), ends, strict=True)
    ]
