"""Nuclei as SpatialData, the scverse's format."""

import contextlib
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nucseg_mmdet.export.geoparquet import ROW_GROUP, GeoParquet, import_pyarrow
from nucseg_mmdet.export.outlines import polygons
from nucseg_mmdet.export.writer import FolderWriter
from nucseg_mmdet.structures.classes import NucleusClass
from nucseg_mmdet.structures.nuclei import Nuclei
from nucseg_mmdet.utils.errors import UserError

if TYPE_CHECKING:
    import zarr

SHAPES, TABLE = 'nuclei', 'table'  # names of the elements
# AnnData's marks of what a group or an array is; obs, var and the rest of X are made of these.
ARRAY = {'encoding-type': 'array', 'encoding-version': '0.2.0'}
STRINGS = {'encoding-type': 'string-array', 'encoding-version': '0.2.0'}
STRING = {'encoding-type': 'string', 'encoding-version': '0.2.0'}
DICT = {'encoding-type': 'dict', 'encoding-version': '0.1.0'}
FRAME = {'encoding-type': 'dataframe', 'encoding-version': '0.2.0', '_index': '_index'}
CATEGORICAL = {'encoding-type': 'categorical', 'encoding-version': '0.2.0', 'ordered': False}


class SpatialData(FolderWriter):
    """A SpatialData store: outlines as shapes ``nuclei``, numbers as AnnData ``table``.

    Shapes are in full-resolution pixels of the slide (system ``global``) and in microns
    (``microns``). The table has the measurements as ``X``, the score and, of several, the class in
    ``obs``, the centroids in pixels in ``obsm['spatial']``; ``instance_id`` is the number in the
    other tables. Without nuclei the store has no element. The slide is not copied:
    ``attrs['slide']`` says where it is, and its size.

    spatialdata itself holds all shapes and the whole table in memory to write them; here rows go
    to disk as they come, so the store is written by its specification, with zarr and pyarrow.

    Source:
        SpatialData's design document, store version 0.2, shapes 0.3, tables 0.2; AnnData's
        on-disk format 0.1.0.
    """

    suffix = '.spatialdata.zarr'
    nucleus_bytes = 300

    @classmethod
    def check(cls) -> None:
        import_zarr('spatialdata')
        import_pyarrow()

    def _start(self) -> None:
        zarr = import_zarr('spatialdata')
        self._root = zarr.create_group(self._folder, zarr_format=3)
        self._root.attrs['spatialdata_attrs'] = {
            'version': '0.2',
            'spatialdata_software_version': '0.7.3',  # by whose reader it was tested
        }
        if self.options.source is not None:
            target = self.target
            self._root.attrs['slide'] = {
                'path': str(self.options.source.resolve()),
                'width': target.width,
                'height': target.height,
                'microns_per_pixel': target.slide_mpp,
            }
        self._waiting: list[dict[str, np.ndarray]] = []

    def _start_elements(self) -> None:
        """Lay out shapes and table, which spatialdata does not take empty."""
        shapes = self._root.create_group('shapes').create_group(SHAPES)
        shapes.attrs.update(_shape_attributes(self.target.slide_mpp))
        path = Path(self._folder, 'shapes', SHAPES, 'shapes.parquet')
        file = self._held.enter_context(path.open('wb'))
        columns = GeoParquet(file, dict(instance_id='int64'), index='instance_id')
        self._shapes = self._held.enter_context(columns)
        table = self._root.create_group('tables').create_group(TABLE)
        self._rows = _start_table(table, self.names, self.options.classes)

    def _write(self, nuclei: Nuclei, ids: np.ndarray) -> None:
        if ids[0] == 1:
            self._start_elements()
        self._shapes.write(dict(instance_id=ids), polygons(nuclei, self.target))
        self._waiting.append(
            {
                'X': nuclei.measurements,
                'obs/_index': ids,
                'obs/instance_id': ids,
                'obs/region/codes': np.zeros(len(ids), np.int8),
                'obs/score': nuclei.scores,
                'obs/class/codes': nuclei.labels.astype(np.int16),
                'obsm/spatial': self.target.to_slide(nuclei.centroids),
            }
        )
        if sum(len(rows['X']) for rows in self._waiting) >= ROW_GROUP:
            self._write_waiting()

    def _write_waiting(self) -> None:
        for name, array in self._rows.items():
            rows = np.concatenate([waiting[name] for waiting in self._waiting])
            array.append(rows.astype(str).astype(object) if name == 'obs/_index' else rows)
        self._waiting = []

    def _finish(self) -> None:
        if self._waiting:
            self._write_waiting()
        # SpatialData reads both, zarr warns of both: that the third version of its format does not
        # specify consolidated metadata, and that Parquet is no part of a store.
        with warnings.catch_warnings():
            warnings.simplefilter('ignore', UserWarning)
            import_zarr('spatialdata').consolidate_metadata(self._folder)


def import_zarr(form: str):
    """Import zarr, or say how to get it.

    Raises:
        UserError: it is not installed.
    """
    with contextlib.suppress(ImportError):
        import zarr

        return zarr
    raise UserError(f'format {form} needs zarr (Python 3.11 or later): pip install zarr')


def _shape_attributes(mpp: float) -> dict:
    """What SpatialData keeps of shapes beside their file.

    Args:
        mpp: microns per full-resolution px.
    """

    def system(name: str) -> dict:
        axes = [dict(name=axis, type='space', unit='unit') for axis in 'xy']
        return dict(name=name, axes=axes)

    ends = [dict(input=system('xy'), output=system(name)) for name in ('global', 'microns')]
    return {
        'encoding-type': 'ngff:shapes',
        'axes': ['x', 'y'],
        'coordinateTransformations': [
            dict(type='identity', **ends[0]),
            dict(type='scale', scale=[mpp, mpp], **ends[1]),
        ],
        'spatialdata_attrs': {'version': '0.3'},
    }


def _start_table(
    table: 'zarr.Group', measurements: Sequence[str], classes: Sequence[NucleusClass]
) -> dict[str, 'zarr.Array']:
    """Lay out an AnnData table; returns the arrays that grow with the nuclei, by path."""
    keys = dict(region=SHAPES, region_key='region', instance_key='instance_id')
    table.attrs.update(
        {
            'encoding-type': 'anndata',
            'encoding-version': '0.1.0',
            'spatialdata-encoding-type': 'ngff:regions_table',
            'version': '0.2',
            **keys,
        }
    )
    for name in ('layers', 'obsm', 'obsp', 'uns', 'uns/spatialdata_attrs', 'varm', 'varp'):
        table.create_group(name).attrs.update(DICT)
    for name, value in keys.items():
        one = table.create_array(f'uns/spatialdata_attrs/{name}', shape=(), dtype=str)
        one[...] = value
        one.attrs.update(STRING)
    columns = ['region', 'instance_id', 'score']
    texts = {'var/_index': measurements, 'obs/region/categories': [SHAPES]}
    if len(classes) > 1:
        columns.append('class')
        texts['obs/class/categories'] = [one.name for one in classes]
        # Where scanpy looks for the colors of a column.
        texts['uns/class_colors'] = [f'#{bytes(one.color).hex()}' for one in classes]
    table.create_group('obs').attrs.update({**FRAME, 'column-order': columns})
    table.create_group('var').attrs.update({**FRAME, 'column-order': []})
    for name in ('region', 'class')[: 1 + ('class' in columns)]:
        table.create_group(f'obs/{name}').attrs.update(CATEGORICAL)
    for name, values in texts.items():
        array = table.create_array(name, shape=(len(values),), dtype=str)
        array[:] = np.array(values, object)
        array.attrs.update(STRINGS)

    rows = {}
    for name, width, kind in (
        ('X', (len(measurements),), np.float32),
        ('obs/_index', (), str),
        ('obs/instance_id', (), np.int64),
        ('obs/region/codes', (), np.int8),
        *([('obs/class/codes', (), np.int16)] if 'class' in columns else []),
        ('obs/score', (), np.float32),
        ('obsm/spatial', (2,), np.float64),
    ):
        rows[name] = table.create_array(
            name, shape=(0, *width), chunks=(ROW_GROUP, *width), dtype=kind
        )
        rows[name].attrs.update(STRINGS if kind is str else ARRAY)
    return rows
