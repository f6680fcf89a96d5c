"""Full disks: each tool says in one line what could not be written, and leaves no part of it.

The limit of the size of files stands in for the disk: writing beyond it fails likewise.
"""

import pickle
import resource
from contextlib import contextmanager

import numpy as np
import pytest

from nucseg_mmdet.commands import prepare, report, score, test, train
from nucseg_mmdet.evaluation.metrics import PredictionsMetric
from nucseg_mmdet.utils.errors import UserError
from tests.engine.test_detectron2 import caffe2, dump
from tests.evaluation.test_html_report import make_truth, result, write_run
from tests.export.helpers import ONE, PLAIN, WRITABLE, write
from tests.tools.test_tools import TINY
from tools.analysis_tools import browse_data, results_table
from tools.model_converters import detectron2_to_mmdet, publish_model

LOG = 1 << 16  # bytes: configs fit, with mmengine's copies of them, and the log of a short run


@contextmanager
def disk_of(size):
    """Let files have at most so many bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture
def refused(capsys):
    """Run a tool on a full disk; what it says in its one line."""

    def run(main, arguments, size):
        with disk_of(size):
            assert main([str(argument) for argument in arguments]) == 2
        said = capsys.readouterr().err
        assert 'Traceback' not in said
        tool, line = said.splitlines()[-1].split(': ', 1)
        assert tool == main.__module__.rpartition('.')[2]
        return line

    return run


def files_in(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob('*') if path.is_file())


@pytest.mark.parametrize('size', [100, 5_000])
@pytest.mark.parametrize(
    'options',
    [
        ['--layout', 'labels', '--workers', 1],
        ['--layout', 'masks', '--workers', 1],
        ['--layout', 'labels', '--workers', 2],
    ],
)
def test_prepared_data_and_the_way_back(raw_data, data_root, tmp_path, refused, options, size):
    out = tmp_path / 'out'
    line = refused(prepare.main, ['export', data_root, out, *options], size)
    assert line == f'{out}: cannot be written (File too large)'
    line = refused(prepare.main, ['vrdl', raw_data, out, *options[2:]], size)
    assert line == f'{out}: cannot be written (File too large)'
    assert files_in(tmp_path) == []


@pytest.mark.parametrize('size', [0, 100])
@pytest.mark.parametrize('name', WRITABLE)
def test_formats(tmp_path, name, size):
    if size < len(b''.join(path.read_bytes() for path in whole(tmp_path / 'whole', name))):
        with disk_of(size), pytest.raises(UserError, match=r'cannot be written \(File too large\)'):
            write(tmp_path / 'out', [name], PLAIN, ONE, image=picture)
        assert files_in(tmp_path / 'out') == []


def picture():
    return np.full((PLAIN.height, PLAIN.width, 3), 200, np.uint8)


def whole(folder, name):
    paths = write(folder, [name], PLAIN, ONE, image=picture)
    return [file for path in paths for file in ([path] if path.is_file() else path.rglob('*'))
            if file.is_file()]  # fmt: skip


def test_browsing(data_root, random_model, tmp_path, refused):
    arguments = [random_model[0], '--data-root', data_root, '--out', tmp_path / 'out']
    line = refused(browse_data.main, arguments, 10_000)
    assert line == f'{tmp_path}/out/synthetic-train-001.png: cannot be written (File too large)'
    line = refused(browse_data.main, [*arguments, '--stats'], 10_000)
    assert line == f'{tmp_path}/out/stats.png: cannot be written (File too large)'
    assert files_in(tmp_path) == []


def test_checkpoint_of_a_training(data_root, random_model, tmp_path, refused):
    arguments = [random_model[0], '--data-root', data_root, '--work-dir', tmp_path]
    arguments += ['--initial-weights', 'none', '--cfg-options', *TINY, 'train_cfg.max_iters=1']
    line = refused(train.main, arguments, LOG)
    assert line == f'{tmp_path}/iter_1.pth: cannot be written (File too large)'
    assert not [name for name in files_in(tmp_path) if 'pth' in name or 'partial' in name]


@pytest.mark.parametrize('option', ['--show-dir', '--format-only'])
def test_what_a_test_leaves(data_root, random_model, tmp_path, refused, option):
    arguments = [*random_model, '--data-root', data_root, '--work-dir', tmp_path, '--format-only']
    if option == '--show-dir':
        arguments += [option, tmp_path / 'show']
    line = refused(test.main, [*arguments, '--cfg-options', *TINY], 11_000)
    out = 'show/synthetic-test-001.png' if option == '--show-dir' else 'answer.json'
    assert line == f'{tmp_path / out}: cannot be written (File too large)'
    assert not [name for name in files_in(tmp_path) if 'png' in name or 'answer' in name]


def test_predictions(tmp_path):
    path = tmp_path / 'a.pkl'
    metric = PredictionsMetric(str(path))
    metric.compute_metrics([dict(img_id=1)])
    assert pickle.loads(path.read_bytes()) == [dict(img_id=1)]
    with disk_of(10), pytest.raises(UserError, match=r'a\.pkl: cannot be written'):
        metric.compute_metrics([dict(img_id=2)])
    assert pickle.loads(path.read_bytes()) == [dict(img_id=1)]
    assert files_in(tmp_path) == ['a.pkl']


def test_models_to_share(random_model, tmp_path, refused):
    source = dump(caffe2(), tmp_path / 'R-50.pkl')
    for main, weights in (
        (publish_model.main, random_model[1]),
        (detectron2_to_mmdet.main, source),
    ):
        out = tmp_path / 'a.pth'
        assert refused(main, [weights, out], LOG) == f'{out}: cannot be written (File too large)'
    assert files_in(tmp_path) == ['R-50.pkl']


def test_tables_and_pages(tmp_path, refused):
    truth = make_truth([(10, 10, 10, 10)])
    work_dir = write_run(tmp_path, truth, [result(1, 0.6, 10, 10, 10, 10)])
    answers = tmp_path / 'data/fold1_val.json', work_dir / 'fold1_val_results.json'
    before = files_in(tmp_path)
    for main, arguments, out in (
        (report.main, [work_dir], work_dir / 'report.html'),
        (results_table.main, [tmp_path, '--csv', tmp_path / 'a.csv'], tmp_path / 'a.csv'),
        (
            score.main,
            [*answers, '--json', tmp_path / 'a.json'],
            tmp_path / 'a.json',
        ),
    ):
        assert refused(main, arguments, 100) == f'{out}: cannot be written (File too large)'
    assert files_in(tmp_path) == before
