"""The two files that an index is made of, read as streams: the table and the outlines."""

import csv
import gzip
import json
import re
import zlib
from collections.abc import Iterator, Sequence
from io import BytesIO
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from nucseg_mmdet.utils.errors import UserError

ID = 'id'
CENTROIDS = ('centroid_x_px', 'centroid_y_px')  # full-resolution px
NOT_MEASURED = (ID, *CENTROIDS, 'centroid_x_um', 'centroid_y_um')
SCORE = 'score'
MAX_ID = 1 << 53  # what a float holds of whole numbers
BLOCK = 1 << 23  # bytes or characters that are read at once
BATCH = 5000  # nuclei
BATCH_POINTS = 1 << 21  # vertices after which a batch ends, however few nuclei it has
MOST_FEATURE = 1 << 24  # characters of a nucleus: a million vertices
FEATURES = re.compile(r'"features"\s*:\s*\[')
BETWEEN = re.compile(r'[\s,]*')

Color = tuple[int, int, int] | None  # r, g, b; None if not said
NUCLEUS: tuple[str, Color] = ('Nucleus', None)  # class and color of what has none


class Table(NamedTuple):
    """The table of N nuclei.

    Attributes:
        ids: int64, (N,).
        centroids: float64, (N, 2); x, y, full-resolution px.
        values: float32, (N,), of each numeric column that is neither id nor place, by name.
        rows: int64, (N,); byte at which each row begins in the file, or its number in Parquet.
    """

    ids: np.ndarray
    centroids: np.ndarray
    values: dict[str, np.ndarray]
    rows: np.ndarray


class Outlines(NamedTuple):
    """Outlines of some nuclei.

    Attributes:
        points: float64, (P, 2); x, y of vertices, full-resolution px, no ring's first one twice.
        ring_sizes: int64, (R,); vertices of each ring, P in total.
        rings: int64, (N,); rings of each nucleus, R in total.
        classes: name and color (r, g, b; None if not said) of each nucleus' class.
    """

    points: np.ndarray
    ring_sizes: np.ndarray
    rings: np.ndarray
    classes: list[tuple[str, Color]]


def read_table(path: Path) -> Table:
    """Read a CSV table.

    Raises:
        UserError: it can't be read, lacks a column, or has text where numbers are expected.
    """
    try:
        with path.open('rb') as file:
            names = _cells(file.readline())
            missing = [name for name in (ID, *CENTROIDS) if name not in names]
            if missing:
                raise UserError(f'{path}: no column {missing[0]}, expected the table of a run')
            return _read_blocks(path, file, names)
    except OSError as error:
        raise UserError(f'{path}: cannot be read ({error.strerror})') from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f'{path}: no CSV ({error}), expected the table of a run') from None


def _read_blocks(path: Path, file: Any, names: list[str]) -> Table:
    columns: list[int] | None = None
    rows, parts = [np.zeros(0, np.int64)], []
    at = file.tell()
    while block := file.read(BLOCK):
        block += file.readline()
        ends = np.flatnonzero(np.frombuffer(block, np.uint8) == ord('\n')) + 1
        starts = np.concatenate([[0], ends[ends < len(block)]])
        rows.append(starts + at)
        at += len(block)
        columns = columns or _numeric(names, block)
        text = block.replace(b'\r', b'').replace(b',,', b',nan,').replace(b',,', b',nan,')
        text = text.replace(b',\n', b',nan\n')
        try:
            part = np.loadtxt(
                BytesIO(text), delimiter=',', usecols=columns, ndmin=2, quotechar='"', comments=None
            )
        except ValueError as error:
            raise UserError(f'{path}: {error}, expected numbers') from None
        if len(part) != len(starts):
            raise UserError(f'{path}: empty lines or text of several lines, expected a row a line')
        parts.append(part)
    columns = columns or _numeric(names, b'')
    numbers = np.concatenate(parts) if parts else np.zeros((0, len(columns)))
    table = dict(zip([names[column] for column in columns], numbers.T, strict=True))
    if not all(np.isfinite(table[name]).all() for name in (ID, *CENTROIDS)):
        raise UserError(f'{path}: a nucleus without id or place, expected both')
    if not (np.abs(table[ID]) <= MAX_ID).all():
        raise UserError(f'{path}: id {np.abs(table[ID]).max():g}, expected a number of a run')
    values = {name: v.astype(np.float32) for name, v in table.items() if name not in NOT_MEASURED}
    if not values:
        raise UserError(f'{path}: no column of numbers besides places, expected measurements')
    centroids = np.stack([table[name] for name in CENTROIDS], 1)
    return Table(table[ID].astype(np.int64), centroids, values, np.concatenate(rows))


def _cells(line: bytes) -> list[str]:
    return next(csv.reader([line.decode()]), [])


def read_row(path: Path, header: Sequence[str], start: int) -> dict[str, str]:
    """Read one row of a CSV table, its cells as they stand there."""
    with path.open('rb') as file:
        file.seek(start)
        return dict(zip(header, _cells(file.readline()), strict=False))


def read_header(path: Path) -> list[str]:
    """Read the names of a CSV table's columns."""
    with path.open('rb') as file:
        return _cells(file.readline())


def _numeric(names: list[str], block: bytes) -> list[int]:
    """Find the columns of numbers by the first rows: those without text that is none."""
    rows = [_cells(line) for line in block.split(b'\n', 1000)[:1000] if line]
    return [
        column
        for column, name in enumerate(names)
        if name in (ID, *CENTROIDS) or all(_is_number(row[column : column + 1]) for row in rows)
    ]


def _is_number(cell: list[str]) -> bool:
    try:
        float(cell[0] or 'nan')
    except (ValueError, IndexError):
        return False
    return True


def read_outlines(path: Path) -> Iterator[Outlines]:
    """Read the outlines of a GeoJSON collection in batches, in their order.

    Raises:
        UserError: it can't be read, or a feature is no polygon.
    """
    features, more = enumerate(read_features(path), 1), True
    while more:
        rings, counts, classes, vertices = [], [], [], 0
        for number, feature in features:
            try:
                parts = _rings(feature['geometry'])
                classes.append(read_class(feature.get('properties') or {}))
            except (KeyError, TypeError, AttributeError, ValueError, OverflowError):
                raise UserError(f'{path}: feature {number} is no polygon, expected one') from None
            rings += parts
            counts.append(len(parts))
            vertices += sum(map(len, parts))
            if len(counts) == BATCH or vertices > BATCH_POINTS:
                break
        else:
            more = False
        if not counts:
            return
        sizes = np.array([len(ring) for ring in rings], np.int64)
        try:
            # Number by number: as an array of pairs it takes twenty times as long.
            numbers = np.fromiter(chain.from_iterable(chain.from_iterable(rings)), float)
            points = numbers.reshape(sizes.sum(), 2)
        except (TypeError, ValueError):
            raise UserError(f'{path}: vertices that are no pairs of numbers') from None
        yield Outlines(points, sizes, np.array(counts, np.int64), classes)


def read_features(path: Path) -> Iterator[dict[str, Any]]:
    """Read the features of a GeoJSON collection one after the other, however it is laid out.

    Raises:
        UserError: the file cannot be read, is none, or ends within a feature.
    """
    decoder = json.JSONDecoder()
    opener = gzip.open if path.suffix == '.gz' else open
    try:
        with opener(path, 'rt', encoding='utf-8') as file:
            text = file.read(BLOCK)
            found = FEATURES.search(text)
            if not found:
                raise UserError(f'{path}: no features, expected GeoJSON of a run')
            at = found.end()
            while True:
                at = BETWEEN.match(text, at).end()  # type: ignore[union-attr]
                if text[at : at + 1] == ']':
                    return
                try:
                    feature, at = decoder.raw_decode(text, at)
                except RecursionError:
                    raise UserError(f'{path}: lists in lists, expected GeoJSON of a run') from None
                except ValueError:  # the rest of it is still in the file, if the file is whole
                    more = file.read(BLOCK)
                    if not more:
                        raise UserError(f'{path}: ends within a feature, expected all') from None
                    text, at = text[at:] + more, 0
                    if len(text) > MOST_FEATURE + len(more):  # and is read again and again
                        raise UserError(
                            f'{path}: a feature of more than {MOST_FEATURE:,} characters, expected '
                            'the outline of a nucleus'
                        ) from None
                else:
                    yield feature
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise UserError(f'{path}: cannot be read ({error})') from None


def _rings(geometry: dict[str, Any]) -> list[list]:
    """The rings of a polygon or several, open: the first vertex does not come again."""
    if geometry['type'] == 'Polygon':
        rings = geometry['coordinates']
    elif geometry['type'] == 'MultiPolygon':
        rings = [ring for polygon in geometry['coordinates'] for ring in polygon]
    else:
        raise ValueError(geometry['type'])
    rings = [ring[:-1] if ring[0] == ring[-1] else ring for ring in rings if ring]
    if not rings or not all(rings):
        raise ValueError('no ring, or one of a point')
    return rings


def read_class(properties: dict[str, Any]) -> tuple[str, Color]:
    """Name and color of a feature's class, in QuPath's form of 0.4 and later."""
    found = properties.get('classification')
    if not isinstance(found, dict):
        return NUCLEUS
    names = found.get('names') or [found.get('name') or NUCLEUS[0]]
    color = found.get('color')
    if not (isinstance(color, list) and len(color) == 3):
        return ': '.join(map(str, names)), None
    red, green, blue = (min(max(int(part), 0), 255) for part in color)
    return ': '.join(map(str, names)), (red, green, blue)
