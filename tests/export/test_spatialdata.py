"""SpatialData stores, read back by spatialdata itself, which is for Python 3.11 and later."""

from dataclasses import replace

import numpy as np
import pytest
import shapely

from nucseg_mmdet.export import geoparquet
from nucseg_mmdet.structures.classes import NucleusClass
from nucseg_mmdet.structures.nuclei import EMPTY, MEASUREMENTS
from tests.export.helpers import BAY, ONE, PLAIN, REGION, halves, nuclei_of, ovals, write

# Of spatialdata's own imports, and of anndata when spatialdata writes.
pytestmark = pytest.mark.filterwarnings(
    'ignore:Call to deprecated class Scaler:DeprecationWarning',
    'ignore:zarr v3 autosharding:UserWarning',
)


@pytest.fixture
def spatialdata():
    return pytest.importorskip('spatialdata', reason='spatialdata is for Python 3.11 and later')


def test_one_nucleus_by_hand(tmp_path, spatialdata):
    (path,) = write(tmp_path, ['spatialdata'], REGION, ONE)
    assert path == tmp_path / 'slide 1.spatialdata.zarr'
    data = spatialdata.read_zarr(path)
    shapes, table = data.shapes['nuclei'], data.tables['table']
    assert shapes.index.tolist() == [1]
    outline = shapely.box(100 + 2 / 2, 40 + 1 / 2, 100 + 5 / 2, 40 + 3 / 2)
    assert shapes.geometry.iloc[0].equals(outline)
    assert table.var_names.tolist() == list(MEASUREMENTS)
    np.testing.assert_array_equal(table.X, ONE.measurements)
    assert table.obs['instance_id'].tolist() == [1]
    assert table.obs['score'].tolist() == [0.75]
    assert table.obsm['spatial'].tolist() == [[100 + 3.5 / 2, 40 + 2 / 2]]
    # 0.25 microns at half the full resolution: 0.5 microns per px.
    microns = spatialdata.transform(shapes, to_coordinate_system='microns')
    assert microns.geometry.iloc[0].equals(shapely.affinity.scale(outline, 0.5, 0.5, origin=(0, 0)))


def test_many_nuclei_in_several_groups(tmp_path, spatialdata, monkeypatch):
    monkeypatch.setattr(geoparquet, 'ROW_GROUP', 16)
    monkeypatch.setattr('nucseg_mmdet.export.spatialdata.ROW_GROUP', 16)
    masks = [*ovals(50, 70, 90), np.pad(BAY, 3)]
    nuclei = nuclei_of(masks)
    (path,) = write(tmp_path, ['spatialdata'], PLAIN, *halves(nuclei))
    data = spatialdata.read_zarr(path)
    assert set(data.coordinate_systems) == {'global', 'microns'}
    shapes, table = data.shapes['nuclei'], data.tables['table']
    assert shapes.index.tolist() == table.obs['instance_id'].tolist() == list(range(1, 52))
    assert shapes.area.tolist() == [mask.sum() for mask in masks]
    assert shapes.is_valid.all()
    np.testing.assert_array_equal(table.X, nuclei.measurements)
    np.testing.assert_array_equal(table.obsm['spatial'], nuclei.centroids)
    # Shapes and table belong together, as spatialdata's own operations want it.
    box = spatialdata.bounding_box_query(
        data, axes=('x', 'y'), min_coordinate=[0, 0], max_coordinate=[45, 70],
        target_coordinate_system='global',
    )  # fmt: skip
    inside = box.shapes['nuclei'].index
    assert 0 < len(inside) < 51
    assert box.tables['table'].obs['instance_id'].tolist() == inside.tolist()
    values = spatialdata.get_values('area_um2', sdata=data, element_name='nuclei',
                                    table_name='table')  # fmt: skip
    np.testing.assert_array_equal(values['area_um2'], nuclei.measurements[:, 0])


def test_spatialdata_writes_the_same_again(tmp_path, spatialdata):
    nuclei = nuclei_of(ovals(9, 70, 90))
    (path,) = write(tmp_path, ['spatialdata'], PLAIN, nuclei)
    copy = tmp_path / 'copy.zarr'
    spatialdata.read_zarr(path).write(copy)
    again = spatialdata.read_zarr(copy)
    assert again.shapes['nuclei'].geometry.tolist() == nuclei.polygons().tolist()
    np.testing.assert_array_equal(again.tables['table'].X, nuclei.measurements)


def test_classes_and_the_slide(tmp_path, spatialdata):
    masks = ovals(9, 70, 90)
    labels = np.array([1, 0, 1, 1, 0, 0, 1, 0, 1], np.uint8)
    classes = (NucleusClass('large', (255, 0, 0)), NucleusClass('small', (0, 0, 255)))
    slide = tmp_path / 'slide.svs'
    (path,) = write(
        tmp_path, ['spatialdata'], PLAIN, replace(nuclei_of(masks), labels=labels),
        classes=classes, source=slide,
    )  # fmt: skip
    data = spatialdata.read_zarr(path)
    table = data.tables['table']
    assert table.obs['class'].tolist() == [classes[label].name for label in labels]
    assert table.obs['class'].cat.categories.tolist() == ['large', 'small']
    assert table.uns['class_colors'].tolist() == ['#ff0000', '#0000ff']
    assert data.attrs['slide'] == dict(path=str(slide), width=90, height=70, microns_per_pixel=0.25)


def test_no_nuclei(tmp_path, spatialdata):
    (path,) = write(tmp_path, ['spatialdata'], PLAIN, EMPTY)
    data = spatialdata.read_zarr(path)
    assert not data.shapes
    assert not data.tables
