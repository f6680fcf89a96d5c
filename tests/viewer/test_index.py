"""The index of nuclei: every number against the table, by hand or by brute force."""

import json
import os

import numpy as np
import pytest

from nucseg_mmdet.utils.errors import UserError
from nucseg_mmdet.viewer import build
from nucseg_mmdet.viewer.container import read_container
from nucseg_mmdet.viewer.index import Filter, NucleiIndex
from nucseg_mmdet.viewer.results import find_results
from tests.viewer.conftest import HEIGHT, MPP, NAME, PITCH, WIDTH, table, write_again


@pytest.fixture(scope='module')
def index(shared_folder):
    return NucleiIndex(find_results(shared_folder)[0][0])


def unpack(data):
    """A tile's bytes, as the docstring of ``NucleiIndex.tile`` has them."""
    num, num_rings, num_points, _ = np.frombuffer(data, '<u4', 4).tolist()
    parts, at = {}, 16
    for name, dtype, count in [
        ('centers', '<f4', 2 * num),
        ('scores', '<f4', num),
        ('values', '<f4', num),
        ('ring_sizes', '<u4', num_rings),
        ('owners', '<u4', num_rings),
        ('points', '<i2', 2 * num_points),
        ('classes', 'u1', num),
    ]:
        parts[name] = np.frombuffer(data, dtype, count, at)
        at += parts[name].nbytes
    assert at == len(data)
    return parts


def test_counts_are_those_of_the_table(index, rows):
    scores = [float(row['score']) for row in rows]
    (counts,) = index.info['counts']
    assert len(counts) == 1001
    assert index.info['num'] == len(rows) == 468
    assert counts == [sum(score >= k / 1000 for score in scores) for k in range(1001)]


def test_columns_are_those_of_the_table(index, rows):
    names = [column['name'] for column in index.info['columns']]
    assert names == [name for name in rows[0] if not name.startswith(('id', 'centroid'))]


def test_every_nucleus_is_in_one_tile_of_each_level(index, rows):
    want = sorted(float(row['score']) for row in rows)
    for level in (0, 1, 2):
        side = 1024 << level
        found = []
        for y in range(-(-HEIGHT // side)):
            for x in range(-(-WIDTH // side)):
                tile = unpack(index.tile(level, x, y, None, False))
                centers = tile['centers'].reshape(-1, 2)
                assert ((centers >= 0) & (centers < side)).all()
                found += tile['scores'].tolist()
        np.testing.assert_allclose(sorted(found), want, atol=1e-6)


def test_outlines_of_a_tile(index):
    # Tile 1, 0 begins at x 1024; its first column of nuclei is that at x 1050, from y 50 down.
    tile = unpack(index.tile(0, 1, 0, 'area_um2', True))
    centers = tile['centers'].reshape(-1, 2)
    at = int(np.flatnonzero((centers == (1050 - 1024, 50)).all(1))[0])
    assert tile['values'][at] == 10 + 10
    (ring,) = np.flatnonzero(tile['owners'] == at)
    start = int(tile['ring_sizes'][:ring].sum())
    points = tile['points'].reshape(-1, 2)[start : start + tile['ring_sizes'][ring]] / 16
    corners = {(14, 42), (38, 42), (38, 58), (14, 58)}  # 26 -+ 12, 50 -+ 8
    assert {tuple(point) for point in points.tolist()} == corners
    # 10 columns (x 1050 to 1950, 2050 lies in the next tile) of 10 rows (y 50 to 950).
    assert len(centers) == 100


def test_no_tile_beyond_the_slide(index):
    assert unpack(index.tile(0, 500, 7, None, True))['centers'].size == 0


@pytest.mark.parametrize(
    ('box', 'score'),
    [
        ((0, 0, WIDTH, HEIGHT), 0.0),
        ((0, 0, WIDTH, HEIGHT), 0.7),
        ((1000, 900, 1950, 1750.5), 0.65),
        ((1050, 50, 1050.5, 50.5), 0.0),
        ((-500, -500, 40, 40), 0.0),
    ],
)
def test_view(index, rows, box, score):
    values = [
        float(row['area_um2'])
        for row in rows
        if box[0] <= float(row['centroid_x_px']) < box[2]
        and box[1] <= float(row['centroid_y_px']) < box[3]
        and float(row['score']) >= score
    ]
    found = index.view(box, Filter(score), 'area_um2')
    assert found['count'] == sum(found['bins']) == len(values)
    if values:
        assert found['median'] == np.median(values)
        assert found['mean'] == pytest.approx(np.mean(values))
    else:
        assert found['median'] is None


def test_undefined_values_are_counted_but_not_shown(index):
    found = index.view((0, 0, 100, 100), Filter(), 'circularity')
    assert (found['count'], sum(found['bins']), found['mean']) == (1, 0, None)


def test_density_holds_every_nucleus(index):
    cell, counts, mean = index.density(Filter(), 'area_um2')
    assert cell == 32 / MPP
    area = (cell * MPP / 1000) ** 2  # mm2
    assert counts.sum() * area == pytest.approx(468, rel=1e-4)  # smoothing moves, loses nothing
    # One nucleus in 100 x 100 px of 0.25 microns: 1 / 0.025^2 per mm2.
    assert np.median(counts) == pytest.approx(1600, rel=0.25)
    assert mean[0, 0] < 14 < 30 < mean[0, -2]  # areas grow from 10 to 35
    assert index.density(Filter(0.7), None)[1].sum() * area == pytest.approx(
        index.info['counts'][0][700], rel=1e-4
    )


def test_full_density_is_that_of_the_densest_cells(index):
    _, counts, _ = index.density(Filter(), None)
    assert counts.shape == (15, 21)
    assert np.count_nonzero(counts > index.full_density) <= 0.005 * counts.size
    assert index.full_density > np.median(counts)


def test_nucleus_at_a_place(index, rows):
    inside = index.nucleus_at(150 + 11.5, 250 - 7.5, 1, Filter())
    row = index.row(inside)
    assert row == rows[2 * (WIDTH // PITCH) + 1]
    assert sorted(index.outline(inside)[0]) == [[138, 242], [138, 258], [162, 242], [162, 258]]
    assert index.nucleus_at(200, 300, 1, Filter()) is None
    near = index.nucleus_at(170, 250, 25, Filter())
    assert index.row(near)['id'] == row['id']
    assert index.nucleus_at(150, 250, 1, Filter(score=float(row['score']) + 0.001)) is None


def test_nucleus_by_id(index, rows):
    assert index.row(index.nucleus_of(400)) == rows[399]
    assert index.nucleus_of(469) is None


def test_index_is_kept_until_a_source_changes(folder, monkeypatch):
    (result,), _ = find_results(folder)
    NucleiIndex(result)
    path = folder / f'{NAME}.view'
    made = path.stat().st_mtime_ns
    NucleiIndex(result)
    assert path.stat().st_mtime_ns == made
    lines = result.table.read_text().splitlines(keepends=True)
    lines[1] = lines[1].rsplit(',', 1)[0] + ',0.123\n'
    result.table.write_text(''.join(lines))
    assert NucleiIndex(result).info['lowest_score'] == pytest.approx(0.123)
    assert path.stat().st_mtime_ns != made
    monkeypatch.setattr(build, 'FORMAT', build.FORMAT + 1)
    stamp = path.stat().st_mtime_ns
    NucleiIndex(result)
    assert path.stat().st_mtime_ns != stamp


def test_no_row_of_a_table_that_has_changed(folder, rows):
    """The places of the rows are those of the old table."""
    index = NucleiIndex(find_results(folder)[0][0])
    assert index.row(index.nucleus_of(6)) == rows[5]
    write_again(folder)
    with pytest.raises(UserError, match='the results have changed, load the page again'):
        index.row(index.nucleus_of(6))
    index = NucleiIndex(find_results(folder)[0][0])
    assert index.row(index.nucleus_of(6)) == table(folder)[5]


def test_damaged_index_is_made_anew(folder):
    (result,), _ = find_results(folder)
    path = folder / f'{NAME}.view'
    path.write_bytes(b'no index')
    assert NucleiIndex(result).info['num'] == 468
    assert path.read_bytes().startswith(b'NUCVIEW1')


def test_index_that_is_a_pipe_is_not_waited_for(folder):
    (result,), _ = find_results(folder)
    path = folder / f'{NAME}.view'
    os.mkfifo(path)
    assert NucleiIndex(result).info['num'] == 468
    assert path.is_fifo()


@pytest.mark.parametrize(
    'name', ['ring_sizes', 'num_points', 'num_rings', 'first_points', 'first_rings']
)
def test_index_with_places_beyond_its_arrays_is_made_anew(folder, name):
    """A nucleus of two thousand million vertices would take as many gigabytes as there are."""
    (result,), _ = find_results(folder)
    want = NucleiIndex(result).tile(0, 0, 0, None, True)
    path = folder / f'{NAME}.view'
    array = read_container(path)[1][name]
    data = bytearray(path.read_bytes())
    # Every nucleus has one ring, so that two arrays are the same; that of the rings is the first.
    at = (data.index if name == 'ring_sizes' else data.rindex)(array.tobytes())
    data[at : at + array.itemsize] = np.array([1 << 30], array.dtype).tobytes()
    path.write_bytes(data)
    assert NucleiIndex(result).tile(0, 0, 0, None, True) == want
    assert path.read_bytes() != data


def test_folder_that_cannot_be_written_to(folder, monkeypatch):
    (result,), _ = find_results(folder)
    place = folder / f'{NAME}.view'
    place.mkdir()  # root may write anywhere, but not a file over a folder
    index = NucleiIndex(result)
    assert index.row(index.nucleus_of(3))['id'] == '3'
    assert os.listdir(place) == []
    assert not list(folder.glob('.*partial'))


def change_features(folder, change):
    path = folder / f'{NAME}.geojson'
    content = json.loads(path.read_text())
    change(content['features'])
    path.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        (lambda features: features.pop(), 'only 467 outlines, expected 468'),
        (lambda features: features.append(features[0]), 'more outlines, expected 468'),
        (lambda features: features.reverse(), 'no outline around the nucleus at 50,50'),
    ],
)
def test_files_of_two_runs_are_refused(folder, change, message):
    change_features(folder, change)
    (result,), _ = find_results(folder)
    with pytest.raises(UserError, match=message):
        NucleiIndex(result)
    assert not (folder / f'{NAME}.view').exists()
    assert not list(folder.glob('.*partial'))


def test_classes(folder):
    def mark(features):
        for feature in features[:100]:
            feature['properties']['classification'] = dict(name='Tumor', color=[1, 2, 3])

    change_features(folder, mark)
    index = NucleiIndex(find_results(folder)[0][0])
    assert index.info['classes'] == [
        dict(name='Tumor', color=[1, 2, 3]),
        dict(name='Nucleus', color=[220, 20, 60]),
    ]
    assert [counts[0] for counts in index.info['counts']] == [100, 368]
    whole = (0, 0, WIDTH, HEIGHT)
    assert index.view(whole, Filter(hidden=frozenset([0])), 'area_um2')['count'] == 368
    assert unpack(index.tile(2, 0, 0, None, False))['classes'].tolist().count(0) == 100


def test_more_classes_than_can_be_told_apart(folder):
    def mark(features):
        for number, feature in enumerate(features):
            feature['properties']['classification'] = dict(name=f'kind {number}')

    change_features(folder, mark)
    info = NucleiIndex(find_results(folder)[0][0]).info
    assert len(info['classes']) == len(info['counts']) == 256
    assert info['classes'][255] == dict(name='213 further classes', color=None)
    assert [counts[0] for counts in info['counts']] == [1] * 255 + [213]


@pytest.mark.parametrize('score', ['', 'inf'])
def test_nucleus_without_score_is_refused(folder, score):
    (result,), _ = find_results(folder)
    names, first, *others = result.table.read_text().splitlines()
    assert names.endswith(',score')
    first = first.rpartition(',')[0] + f',{score}'
    result.table.write_text('\n'.join([names, first, *others, '']))
    with pytest.raises(UserError, match=r'\.csv: a nucleus without a score, expected one of each'):
        NucleiIndex(result)


@pytest.mark.parametrize('values', [(3e38, -3e38), (3e38, 3e38)])
def test_measurement_of_the_largest_numbers(folder, values):
    (result,), _ = find_results(folder)
    names, *rows = result.table.read_text().splitlines()
    rows = [f'{row},{values[number % 2]}' for number, row in enumerate(rows)]
    result.table.write_text('\n'.join([f'{names},odd', *rows, '']))
    index = NucleiIndex(result)
    json.dumps(index.info, allow_nan=False)
    assert sum(index.view((0, 0, WIDTH, HEIGHT), Filter(), 'odd')['bins']) == 468


def test_slide_without_nuclei(folder):
    (result,), _ = find_results(folder)
    result.table.write_text(result.table.read_text().splitlines(keepends=True)[0])
    result.outlines.write_text('{"type":"FeatureCollection","features":[\n]}\n')
    index = NucleiIndex(result)
    assert index.info['num'] == 0
    assert unpack(index.tile(0, 0, 0, 'area_um2', True))['centers'].size == 0
    assert index.density(Filter(), None)[1].sum() == 0
    assert index.full_density == 1
    assert index.view((0, 0, 9, 9), Filter(), 'score')['count'] == 0
    assert index.nucleus_at(5, 5, 5, Filter()) is None
