"""Parquet files with a geometry in each row, as geopandas, QGIS and DuckDB read them."""

import json
from collections.abc import Mapping
from contextlib import ExitStack
from typing import BinaryIO

import numpy as np
import shapely

from nucseg_mmdet.utils.errors import UserError

ROW_GROUP = 1 << 16  # rows that a reader has to take at once
# Pixels are in no system of coordinates on earth.
GEO = dict(
    version='1.1.0',
    primary_column='geometry',
    columns=dict(
        geometry=dict(
            encoding='WKB', geometry_types=['Polygon'], crs=None, orientation='counterclockwise'
        )
    ),
)


def import_pyarrow():
    """Import pyarrow, or say how to get it.

    Raises:
        UserError: it is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise UserError('Parquet needs pyarrow: pip install pyarrow') from None
    return pyarrow


class GeoParquet(ExitStack):
    """Rows of numbers, and a polygon each, written in groups; closing it completes the file.

    Args:
        file: open for writing, not closed here.
        kinds: name and pyarrow's type of each column of numbers, the geometry comes last.
        index: of these the one that pandas is to take for the index.

    Raises:
        UserError: pyarrow is not installed.

    Source:
        GeoParquet 1.1.0 (geoparquet.org), metadata ``geo``.
    """

    def __init__(self, file: BinaryIO, kinds: Mapping[str, str], index: str | None = None) -> None:
        super().__init__()
        self._pyarrow = pyarrow = import_pyarrow()
        metadata = dict(geo=json.dumps(GEO))
        if index:
            metadata['pandas'] = json.dumps(_pandas(index))
        self._schema = pyarrow.schema([*kinds.items(), ('geometry', 'binary')], metadata)
        self._waiting: list[dict[str, np.ndarray]] = []
        self._writer = self.enter_context(
            pyarrow.parquet.ParquetWriter(file, self._schema, compression='zstd')
        )
        self.callback(self._write_waiting)

    def write(self, columns: Mapping[str, np.ndarray], polygons: np.ndarray) -> None:
        """Add rows.

        Args:
            columns: as ``kinds``, (N,) each; NaN becomes null.
            polygons: object, (N,), shapely's.
        """
        self._waiting.append(dict(columns, geometry=shapely.to_wkb(polygons)))
        if sum(len(rows['geometry']) for rows in self._waiting) >= ROW_GROUP:
            self._write_waiting()

    def _write_waiting(self) -> None:
        if not self._waiting:
            return
        arrays = [
            self._pyarrow.array(
                np.concatenate([rows[field.name] for rows in self._waiting]),
                field.type,
                from_pandas=True,  # NaN is null
            )
            for field in self._schema
        ]
        self._waiting = []
        self._writer.write_table(self._pyarrow.Table.from_arrays(arrays, schema=self._schema))


def _pandas(index: str) -> dict:
    """What pandas writes into a file to find its index again."""
    column = dict(
        name=index, field_name=index, pandas_type='int64', numpy_type='int64', metadata=None
    )
    return dict(index_columns=[index], column_indexes=[], columns=[column], pandas_version='2.0.0')
