"""A folder with Parquet alone shows what one with CSV and GeoJSON shows."""

import numpy as np
import pytest
import shapely

from nucseg_mmdet.export.writer import Options
from nucseg_mmdet.structures.classes import NucleusClass
from nucseg_mmdet.utils.errors import UserError
from nucseg_mmdet.viewer.index import Filter, NucleiIndex
from nucseg_mmdet.viewer.results import find_results
from tests.viewer.conftest import NAME, write_results

pyarrow = pytest.importorskip('pyarrow')
parquet = pytest.importorskip('pyarrow.parquet')
CLASSES = (NucleusClass('large', (255, 130, 0)), NucleusClass('<b>', (0, 205, 80)))


@pytest.fixture(scope='module')
def both(tmp_path_factory):
    """The index of one slide by either kind of files."""
    indices = []
    for formats in (('geojson', 'csv'), ('parquet',)):
        folder = tmp_path_factory.mktemp('results')
        write_results(folder, NAME, Options(classes=CLASSES), formats)
        ((result,), _) = find_results(folder)
        indices.append(NucleiIndex(result))
    return indices


def test_the_same_nuclei(both):
    one, other = both
    for key in ('num', 'counts', 'lowest_score'):
        assert one.info[key] == other.info[key]
    assert other.info['classes'] == [
        dict(name='large', color=[255, 130, 0]),
        dict(name='<b>', color=[0, 205, 80]),
    ]
    assert one.info['classes'] == other.info['classes']
    assert [column['name'] for column in one.info['columns']] == [
        column['name'] for column in other.info['columns']
    ]
    for x in range(3):
        assert one.tile(0, x, 0, 'area_um2', False) == other.tile(0, x, 0, 'area_um2', False)
    for index in range(one.info['num']):
        ((ring,), (again,)) = one.outline(index), other.outline(index)
        assert sorted(ring) == sorted(again)  # either may go around the other way
    hidden = Filter(0.8, frozenset({1}))
    box = (0.0, 0.0, 900.0, 900.0)
    assert one.view(box, hidden, 'area_um2') == other.view(box, hidden, 'area_um2')


def test_the_row_of_a_nucleus(both):
    one, other = (index.row(index.nucleus_at(250, 150, 5, Filter())) for index in both)
    assert list(one) == list(other)
    assert one['class'] == other['class']
    numbers = [name for name in one if name != 'class']
    np.testing.assert_allclose(
        [float(one[name] or 'nan') for name in numbers],
        [float(other[name] or 'nan') for name in numbers],
        rtol=1e-5,
    )
    first = both[1].row(both[1].nucleus_at(50, 50, 5, Filter()))
    assert first['circularity'] == ''  # undefined


@pytest.mark.parametrize('content', [b'', b'PAR1', b'id,centroid_x_px\n1,2\n'])
def test_other_files_are_refused(tmp_path, content):
    write_results(tmp_path, NAME, formats=('parquet',))
    (tmp_path / f'{NAME}.parquet').write_bytes(content)
    ((result,), _) = find_results(tmp_path)
    with pytest.raises(UserError, match='no Parquet'):
        NucleiIndex(result)


def test_a_damaged_column_is_refused(tmp_path):
    write_results(tmp_path, NAME, formats=('parquet',))
    path = tmp_path / f'{NAME}.parquet'
    content = bytearray(path.read_bytes())
    content[200 : len(content) // 2] = bytes(len(content) // 2 - 200)
    path.write_bytes(content)
    ((result,), _) = find_results(tmp_path)
    with pytest.raises(UserError, match='no Parquet'):
        NucleiIndex(result)


def test_another_table_is_refused(tmp_path):
    import pyarrow
    from pyarrow import parquet

    write_results(tmp_path, NAME, formats=('parquet',))
    parquet.write_table(pyarrow.table(dict(id=[1])), tmp_path / f'{NAME}.parquet')
    ((result,), _) = find_results(tmp_path)
    with pytest.raises(UserError, match='no column centroid_x_px, expected the table of a run'):
        NucleiIndex(result)


def write_changed(folder, change):
    """The results of a slide whose Parquet is another; their index is to be made."""
    write_results(folder, NAME, formats=('parquet',))
    path = folder / f'{NAME}.parquet'
    parquet.write_table(change(parquet.read_table(path)), path)
    ((result,), _) = find_results(folder)
    return result


def repeated(table, times):
    return table.take(np.zeros(times, int)).combine_chunks()


def fat(table):
    """A thousand times the same outline of 20,000 vertices, which is stored once."""
    circle = shapely.to_wkb(shapely.Point(50, 50).buffer(9, quad_segs=5000))
    table = repeated(table, 1000)
    at = table.column_names.index('geometry')
    return table.set_column(at, 'geometry', pyarrow.array([circle] * 1000))


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda table: repeated(table, 300_000), '300,000 rows in .* bytes, expected nuclei'),
        (fat, 'bytes of outlines of 250 nuclei, expected at most'),
        (
            lambda table: pyarrow.Table.from_arrays(
                [table['id'], *table.columns], ['id', *table.column_names]
            ),
            'two columns of one name',
        ),
        (
            lambda table: table.set_column(
                table.column_names.index('id'), 'id', pyarrow.array([1e300] * len(table))
            ),
            'an id beyond 9,007,199,254,740,992',
        ),
    ],
)
def test_odd_tables_are_refused(tmp_path, change, message):
    with pytest.raises(UserError, match=message):
        NucleiIndex(write_changed(tmp_path, change))


def test_classes_that_are_no_texts(tmp_path):
    kinds = [['a', 'b'], []]
    result = write_changed(
        tmp_path,
        lambda table: table.append_column(
            'class', pyarrow.array([kinds[number % 2] for number in range(len(table))])
        ),
    )
    names = [one['name'] for one in NucleiIndex(result).info['classes']]
    assert names == ["['a', 'b']", 'Nucleus']
