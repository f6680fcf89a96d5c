"""Table and outlines out of one GeoParquet file, for a folder that has no CSV and GeoJSON."""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import shapely

from nucseg_mmdet.utils.errors import UserError, first_line
from nucseg_mmdet.viewer.sources import (
    CENTROIDS,
    ID,
    MAX_ID,
    NOT_MEASURED,
    NUCLEUS,
    Color,
    Outlines,
    Table,
)

if TYPE_CHECKING:
    from pyarrow.parquet import ParquetFile

CLASS, GEOMETRY = 'class', 'geometry'
BATCH = 250  # nuclei whose outlines are read at once
BATCH_BYTES = 1 << 25  # of their outlines: 8,000 vertices each


@contextlib.contextmanager
def _open(path: Path) -> Iterator['ParquetFile']:
    """Open a file; what cannot be read of it as long as this lasts is told in one line."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise UserError(f'{path}: needs pyarrow to be read: pip install pyarrow') from None
    try:
        with parquet.ParquetFile(path) as file:
            names = file.schema_arrow.names
            missing = [name for name in (ID, *CENTROIDS, GEOMETRY) if name not in names]
            if missing:
                raise UserError(f'{path}: no column {missing[0]}, expected the table of a run')
            if len(set(names)) < len(names):
                raise UserError(f'{path}: two columns of one name, expected the table of a run')
            rows, size = file.metadata.num_rows, path.stat().st_size
            if rows > size:  # packed: no nuclei are so much alike
                raise UserError(f'{path}: {rows:,} rows in {size:,} bytes, expected nuclei')
            yield file
    except (OSError, pyarrow.ArrowException) as error:
        raise UserError(
            f'{path}: no Parquet ({first_line(error)}), expected the table of a run'
        ) from None


def read_table(path: Path) -> Table:
    """Read the numbers; rows are counted.

    Raises:
        UserError: it can't be read, or lacks a column.
    """
    import pyarrow.types as kinds

    with _open(path) as file:
        fields = [
            field
            for field in file.schema_arrow
            if kinds.is_floating(field.type) or kinds.is_integer(field.type)
        ]
        table = file.read([field.name for field in fields])
    columns = {name: table[name].to_numpy() for name in table.column_names}
    values = {name: v.astype(np.float32) for name, v in columns.items() if name not in NOT_MEASURED}
    places = (ID, *CENTROIDS)
    if not all(name in columns and np.isfinite(columns[name]).all() for name in places):
        raise UserError(f'{path}: a nucleus without id or place, expected both')
    if not values:
        raise UserError(f'{path}: no column of numbers besides places, expected measurements')
    ids, centroids = columns[ID], np.stack([columns[name] for name in CENTROIDS], 1)
    if not (np.abs(ids.astype(float)) <= MAX_ID).all():
        raise UserError(f'{path}: an id beyond {MAX_ID:,}, expected a number of a run')
    return Table(ids.astype(np.int64), centroids, values, np.arange(len(ids)))


def read_outlines(path: Path, colors: Mapping[str, Color]) -> Iterator[Outlines]:
    """Read the outlines in batches, in their order.

    Args:
        path: of the file.
        colors: of classes, by name.

    Raises:
        UserError: it can't be read, or a geometry is no polygon.
    """
    with _open(path) as file:
        wanted = [name for name in (GEOMETRY, CLASS) if name in file.schema_arrow.names]
        for batch in file.iter_batches(BATCH, columns=wanted):
            if (found := batch[GEOMETRY].nbytes) > BATCH_BYTES:
                raise UserError(
                    f'{path}: {found:,} bytes of outlines of {len(batch):,} nuclei, expected at '
                    f'most {BATCH_BYTES:,}'
                )
            try:
                polygons = shapely.from_wkb(batch[GEOMETRY].to_pylist())
            except (shapely.errors.ShapelyError, TypeError) as error:
                raise UserError(f'{path}: geometry that is none ({error})') from None
            rings, owner = shapely.get_rings(polygons, return_index=True)
            counts = np.bincount(owner, minlength=len(polygons))
            if not counts.all():
                raise UserError(f'{path}: a nucleus without outline, expected a polygon')
            points, ring = shapely.get_coordinates(rings, return_index=True)
            sizes = np.bincount(ring)
            last = np.cumsum(sizes) - 1  # which is the first one again
            classes = [NUCLEUS] * len(polygons)
            if CLASS in wanted:
                names = batch[CLASS].to_pylist()
                names = [str(name) if name else None for name in names]
                classes = [(name, colors.get(name)) if name else NUCLEUS for name in names]
            yield Outlines(np.delete(points, last, axis=0), sizes - 1, counts, classes)


def read_row(path: Path, number: int) -> dict[str, str]:
    """Read one row as text, numbers as the CSV has them; undefined ones are empty."""
    with _open(path) as file:
        group = 0
        while number >= file.metadata.row_group(group).num_rows:
            number -= file.metadata.row_group(group).num_rows
            group += 1
        names = [name for name in file.schema_arrow.names if name != GEOMETRY]
        (row,) = file.read_row_group(group, names).slice(number, 1).to_pylist()
    return {name: _text(value) for name, value in row.items()}


def _text(value: Any) -> str:
    if value is None:
        return ''
    return f'{value:.6g}' if isinstance(value, float) else str(value)
