"""The benchmark tool, on sizes that take no time."""

import json

import numpy as np
import pytest
from pycocotools import mask as coco

from nucseg_mmdet.benchmarks import stock
from nucseg_mmdet.structures.coco_entries import make_categories, make_image
from nucseg_mmdet.structures.polygons import polygons_to_rle
from nucseg_mmdet.synthetic.fields import synthesize
from tools.analysis_tools import benchmark

TINY = ['--count', '5', '--size', '64', '--runs', '1', '--threads', '1', '--device', 'cpu']


def test_both_sides_agree(tmp_path, capsys):
    out = tmp_path / 'figures.json'
    assert benchmark.main(['--step', 'rle', *TINY, '--json', str(out)]) == 0
    report = json.loads(out.read_text())
    assert report['machine']['runs'] == 1
    (row,) = report['rows']
    assert row['identical'] is True
    for side in ('stock', 'ours'):
        assert row[side]['seconds'] > 0
        assert row[side]['peak_bytes'] >= 0
    assert 'rle: 5 masks, 64 px' in capsys.readouterr().out


def test_a_stock_side_without_room_is_not_run(tmp_path, monkeypatch, capsys):
    # 37 bytes for each of 1024 anchors and 5 nuclei: 0.19 MB of 0.1 MB.
    monkeypatch.setattr(benchmark, 'available_bytes', lambda device: 100_000)
    out = tmp_path / 'figures.json'
    assert benchmark.main(['--step', 'assign', *TINY, '--json', str(out)]) == 0
    (row,) = json.loads(out.read_text())['rows']
    assert row['stock'] is None
    assert row['needs_bytes'] == 37 * 1024 * 5
    assert row['ours']['seconds'] > 0
    assert '(0)' in capsys.readouterr().out  # MB


@pytest.mark.parametrize(
    ('args', 'message'),
    [
        (['--runs', '0'], '--runs: 0, expected at least 1'),
        (['--data-root', 'nowhere'], 'nowhere/annotations/train.json: not there'),
        (['--json', 'nowhere/out.json'], 'nowhere/out.json: cannot be written (No such file'),
        (['--json', 'empty'], 'empty: is a folder, expected the file to write'),
        (['--data-root', 'empty'], 'train.json: has no annotations, expected images with nuclei'),
        (['--data-root', 'odd'], 'odd/annotations/train.json: found list, expected a COCO object'),
    ],
)
def test_user_errors(args, message, capsys, tmp_path, monkeypatch):
    truth = dict(
        images=[make_image(1, 'a.png', 9, 9)], annotations=[], categories=make_categories()
    )
    for name, content in dict(empty=truth, odd=[]).items():
        (tmp_path / name / 'annotations').mkdir(parents=True)
        (tmp_path / name / 'annotations/train.json').write_text(json.dumps(content))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(benchmark, 'measure', lambda *_: row('a', 'a', True))
    assert benchmark.main(['--step', 'load', *args]) == 2
    assert message in capsys.readouterr().err


def row(stock, ours, identical):
    figures = dict(seconds=2.0, peak_bytes=3e6)
    sides = [None if result is None else dict(figures, result=result) for result in (stock, ours)]
    return dict(case='x', stock=sides[0], ours=sides[1], identical=identical, needs_bytes=5e9)


def test_the_table_tells_what_differs():
    table = benchmark.format_table(
        [row('a', 'a', True), row('a', 'b', False), row(1.0, 2.0, None), row(None, 2.0, None)]
    ).splitlines()
    assert table[2].endswith('2.000    2.000     1.0          3        3   identical')
    assert table[3].endswith('DIFFERENT')
    assert table[4].endswith('loss 1.000, 2.000')
    assert table[5].endswith('-    2.000       -      (5000)       3   loss 2.000')


def test_a_difference_fails(monkeypatch):
    monkeypatch.setattr(benchmark, 'measure', lambda *_: row('a', 'b', False))
    assert benchmark.main(['--step', 'rle', *TINY]) == 1


def test_stock_parts():
    node = dict(a=[dict(type='SparseMaxIoUAssigner', x=1)], b='RLEMaskHead', c=(2, 'other'))
    assert stock.plain(node) == dict(
        a=[dict(type='MaxIoUAssigner', x=1)], b='FCNMaskHead', c=[2, 'other']
    )


def test_made_up_data(tmp_path):
    stock.write_data(tmp_path / 'data', [6, 12], 96)
    truth = json.loads((tmp_path / 'data/annotations/train.json').read_text())
    _, labels = synthesize(2, 96, 96, 12)
    mine = [item for item in truth['annotations'] if item['image_id'] == 2]
    assert len(mine) == labels.max()
    for label, item in enumerate(mine, start=1):
        mask = coco.decode(polygons_to_rle(item['segmentation'], 96, 96))
        assert np.array_equal(mask, labels == label)
        rows, columns = np.nonzero(labels == label)
        x, y, width, height = item['bbox']
        assert (x, y) == (columns.min(), rows.min())
        assert (x + width, y + height) == (columns.max() + 1, rows.max() + 1)
    counts = stock.count_nuclei(tmp_path / 'data')
    assert counts[0] == (2, labels.max())
    assert counts[0][1] > counts[1][1]


@pytest.mark.parametrize(
    ('precision', 'expected'), [('bf16', ['fp32', 'bf16']), ('fp32', ['fp32'])]
)
def test_equal_arithmetic_stands_beside_half_precision(precision, expected):
    args = benchmark.parse_args(['--step', 'test', '--precision', precision])
    base = benchmark.Spec('', 'ours', '', 0, 0, 'cpu', precision, '', 1)
    cases = list(benchmark._step_cases(args, base))
    assert [case.spec.precision for case in cases] == expected
    assert [case.name.rpartition(' ')[2] for case in cases] == expected
