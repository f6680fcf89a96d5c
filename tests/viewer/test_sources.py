"""The table and the outlines as streams: every layout that may come, and what is refused."""

import gzip
import json

import numpy as np
import pytest

from nucseg_mmdet.utils.errors import UserError
from nucseg_mmdet.viewer import sources
from nucseg_mmdet.viewer.sources import read_header, read_outlines, read_row, read_table

HEAD = 'id,centroid_x_px,centroid_y_px,centroid_x_um,class,area_um2,score\n'
SQUARE = [[0, 0], [2, 0], [2, 2], [0, 2], [0, 0]]
HOLE = [[0.5, 0.5], [1, 0.5], [1, 1], [0.5, 0.5]]


def feature(geometry, **properties):
    return dict(type='Feature', geometry=geometry, properties=properties)


def polygon(*rings):
    return dict(type='Polygon', coordinates=list(rings))


@pytest.mark.parametrize('newline', ['\n', '\r\n'])
@pytest.mark.parametrize('block', [1, 40, 1 << 20])
def test_table(tmp_path, monkeypatch, newline, block):
    monkeypatch.setattr(sources, 'BLOCK', block)
    path = tmp_path / 'a.csv'
    lines = ['1,10.5,20,2,"a, b",3.5,0.7', '2,11,21,2,c,,0.99999', '7,12,22.25,2,d,4,']
    path.write_bytes((HEAD + '\n'.join([*lines, ''])).replace('\n', newline).encode())
    table = read_table(path)
    assert table.ids.tolist() == [1, 2, 7]
    assert table.centroids.tolist() == [[10.5, 20], [11, 21], [12, 22.25]]
    assert list(table.values) == ['area_um2', 'score']  # a class is no number
    np.testing.assert_array_equal(table.values['area_um2'], np.float32([3.5, np.nan, 4]))
    np.testing.assert_array_equal(table.values['score'], np.float32([0.7, 0.99999, np.nan]))
    row = read_row(path, read_header(path), int(table.rows[0]))
    assert row['class'] == 'a, b'
    assert row['area_um2'] == '3.5'
    assert read_row(path, read_header(path), int(table.rows[2]))['id'] == '7'


def test_table_without_rows(tmp_path):
    path = tmp_path / 'a.csv'
    path.write_text(HEAD)
    assert read_table(path).ids.size == 0


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('', 'no column id'),
        ('id,score\n1,2\n', 'no column centroid_x_px'),
        (HEAD + '1,2,3,4,a,5,6\n\n2,2,3,4,a,5,6\n', 'expected a row a line'),
        (HEAD + '1,,3,4,a,5,6\n', 'without id or place'),
        (HEAD + '1e300,2,3,4,a,5,6\n', 'id 1e.300, expected a number of a run'),
        (HEAD + 'one,2,3,4,a,5,6\n', 'expected numbers'),
    ],
)
def test_odd_table_is_refused(tmp_path, text, message):
    path = tmp_path / 'a.csv'
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        read_table(path)


@pytest.mark.parametrize('block', [1, 100, 1 << 20])
@pytest.mark.parametrize('indent', [None, 2])
@pytest.mark.parametrize('name', ['a.geojson', 'a.geojson.gz'])
def test_outlines(tmp_path, monkeypatch, block, indent, name):
    monkeypatch.setattr(sources, 'BLOCK', max(block, 60))  # the head is read at once
    path = tmp_path / name
    two = dict(type='MultiPolygon', coordinates=[[SQUARE, HOLE], [SQUARE]])
    features = [
        feature(polygon(SQUARE), classification=dict(name='Tumor', color=[1, 2, 300])),
        feature(two, classification=dict(names=['Tumor', 'Positive'])),
        feature(polygon(SQUARE)),
    ]
    text = json.dumps(dict(type='FeatureCollection', features=features), indent=indent)
    path.write_bytes(gzip.compress(text.encode()) if name.endswith('.gz') else text.encode())
    (part,) = read_outlines(path)
    assert part.rings.tolist() == [1, 3, 1]
    assert part.ring_sizes.tolist() == [4, 4, 3, 4, 4]
    assert part.points[8:11].tolist() == HOLE[:3]
    assert part.classes == [
        ('Tumor', (1, 2, 255)),
        ('Tumor: Positive', None),
        ('Nucleus', None),
    ]


def test_outlines_in_batches(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, 'BATCH', 2)
    path = tmp_path / 'a.geojson'
    path.write_text(json.dumps(dict(features=[feature(polygon(SQUARE))] * 5)))
    assert [len(part.rings) for part in read_outlines(path)] == [2, 2, 1]
    monkeypatch.setattr(sources, 'BATCH_POINTS', 3)
    assert [len(part.rings) for part in read_outlines(path)] == [1] * 5


def test_feature_without_an_end_is_not_read_to_that_of_the_file(tmp_path, monkeypatch):
    """Gigabytes of text may be megabytes of gzip, and each block was looked at with all before."""
    monkeypatch.setattr(sources, 'BLOCK', 100)
    monkeypatch.setattr(sources, 'MOST_FEATURE', 1000)
    path = tmp_path / 'a.geojson'
    path.write_text('{"features":[{"a":1,,}' + 'x' * 10_000)
    with pytest.raises(UserError, match='a feature of more than 1,000 characters, expected the'):
        list(read_outlines(path))
    one = json.dumps(feature(polygon(SQUARE * 20)))
    path.write_text(f'{{"features":[{one},{one}]}}')
    assert len(one) > 500
    assert [len(part.rings) for part in read_outlines(path)] == [2]


@pytest.mark.parametrize(
    ('text', 'message'),
    [
        ('{}', 'no features'),
        ('{"features":[{"type":"Feature"', 'ends within a feature'),
        ('{"features":[' + '[' * 100_000, 'lists in lists'),
        (
            '{"features":[{"geometry":{"type":"Polygon","coordinates":[[[0,0],[1,1],[2,0]]]},'
            '"properties":{"classification":{"name":"a","color":[1e999,0,0]}}}]}',
            'feature 1',
        ),
        ('{"features":[', 'ends within a feature'),
        (json.dumps(dict(features=[feature(dict(type='Point', coordinates=[1, 2]))])), 'feature 1'),
        (json.dumps(dict(features=[feature(polygon([[1, 2]]))])), 'feature 1 is no polygon'),
        (json.dumps(dict(features=[feature(polygon(SQUARE)), 5])), 'feature 2 is no polygon'),
        (json.dumps(dict(features=[feature(polygon([[1, 2], [3]]))])), 'no pairs of numbers'),
    ],
)
def test_odd_outlines_are_refused(tmp_path, text, message):
    path = tmp_path / 'a.geojson'
    path.write_text(text)
    with pytest.raises(UserError, match=message):
        list(read_outlines(path))
