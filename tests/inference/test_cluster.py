"""Rows of tiles on Dask's workers: the same nuclei, whatever ends."""

import logging
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import Future
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from nucseg_mmdet.commands import segment
from nucseg_mmdet.inference import cluster
from nucseg_mmdet.inference.output_folder import make_folder_of_rows
from nucseg_mmdet.inference.plan import Settings
from nucseg_mmdet.inference.rows import InProcess
from nucseg_mmdet.inference.segmenter import Segmenter
from nucseg_mmdet.inference.shards import read_row
from nucseg_mmdet.synthetic.fields import synthesize
from nucseg_mmdet.utils.processes import available_cores

pytest.importorskip('distributed')

ROOT = Path(__file__).parents[2]
ENV = {**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': str(ROOT)}


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """A tall image and two small ones."""
    folder = tmp_path_factory.mktemp('images')
    for number, height in enumerate((900, 80, 90)):
        image = synthesize(number, height, 120, height // 6)[0]
        cv2.imwrite(str(folder / f'{number}.png'), image[..., ::-1])
    return folder


def arguments(model, out, *inputs):
    options = ['--config', model[0], '--checkpoint', model[1], '--score-thr', 0.0]
    options += ['--tile', 80, '--overlap', 30, '--device', 'cpu', '--format', 'geojson', 'csv']
    return [str(item) for item in [*inputs, '--out', out, *options]]


def contents(out):
    """The bytes of all result files."""
    return {path.name: path.read_bytes() for path in out.glob('*.[gc]*') if path.is_file()}


@pytest.fixture(scope='module')
def finished(random_model, folder, tmp_path_factory):
    """Results of one process."""
    out = tmp_path_factory.mktemp('finished') / 'out'
    command = [sys.executable, 'tools/segment.py', *arguments(random_model, out, folder)]
    subprocess.run(command, env=ENV, cwd=ROOT, check=True, capture_output=True)
    found = contents(out)
    assert len(found) == 6
    return found


def start(random_model, folder, out):
    """Start with a worker a core: each has one thread, as the process it is compared with.

    With another number of threads sums are rounded otherwise, which shows in the results.
    """
    command = [sys.executable, 'tools/segment.py', *arguments(random_model, out, folder)]
    return subprocess.Popen(
        [*command, '--workers', str(os.cpu_count())],
        env=ENV,
        cwd=ROOT,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )


def wait_for_rows(process, out, count):
    until = time.monotonic() + 300
    while len(list(out.glob('*.partial/row_*.npz'))) < count:
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < until
        time.sleep(0.02)


@pytest.mark.slow
def test_two_workers_give_the_same(finished, random_model, folder, tmp_path):
    process = start(random_model, folder, tmp_path)
    _, error = process.communicate(timeout=300)
    assert process.returncode == 0, error
    assert f'{os.cpu_count()} workers, dashboard: http' in error
    assert contents(tmp_path) == finished


@pytest.mark.slow
def test_a_killed_worker_is_replaced(finished, random_model, folder, tmp_path):
    process = start(random_model, folder, tmp_path)
    wait_for_rows(process, tmp_path, 2)
    children = Path(f'/proc/{process.pid}/task').glob('*/children')
    children = ' '.join(path.read_text() for path in children).split()
    workers = [
        pid for pid in children if b'spawn_main' in Path(f'/proc/{pid}/cmdline').read_bytes()
    ]
    assert workers
    for pid in workers:
        os.kill(int(pid), signal.SIGKILL)
    _, error = process.communicate(timeout=300)
    assert process.returncode == 0, error
    assert contents(tmp_path) == finished


@pytest.mark.slow
def test_a_killed_run_goes_on(finished, random_model, folder, tmp_path):
    process = start(random_model, folder, tmp_path)
    wait_for_rows(process, tmp_path, 2)
    process.kill()  # client and scheduler
    process.communicate()
    kept = list(tmp_path.glob('*.partial/row_*.npz'))
    assert len(kept) >= 2
    assert segment.main(arguments(random_model, tmp_path, folder)) == 0
    assert contents(tmp_path) == finished


@pytest.mark.parametrize('number', [1, 2 * (os.cpu_count() or 1)])
def test_as_many_workers_as_asked_for(number):
    """Fewer than there are cores, and more."""
    options = {}
    with cluster.connect(options, number) as engine:
        assert engine.workers == number
        assert len(engine._client.scheduler_info(n_workers=-1)['workers']) == number
        assert engine._options == (('threads', max(1, available_cores() // number)),)
    assert options == {}


def test_workers_are_ended_without_a_word(capfd):
    """Dask warns of each task that was under way."""
    with cluster.connect({}, 1) as engine:
        sleep = engine._client.submit(time.sleep, 60, pure=False)
        until = time.monotonic() + 60
        while not any(engine._client.processing().values()):
            assert time.monotonic() < until
            time.sleep(0.1)
        time.sleep(0.5)  # for the worker to begin with it
        assert not sleep.done()
    assert capfd.readouterr().err == ''


def test_workers_that_do_not_end_in_time_undo_nothing():
    """Dask waits for them a few seconds, which do not suffice on a busy machine."""
    heard = []

    def end_late():
        heard.append(logging.getLogger('distributed').isEnabledFor(logging.ERROR))
        raise TimeoutError

    with cluster._closed_at_leisure() as stack:
        stack.callback(end_late)
    assert heard == [False]  # of what Dask logs while it closes
    assert logging.getLogger('distributed').isEnabledFor(logging.ERROR)


def test_files_that_a_lost_worker_has_written_are_taken(random_model, folder, tmp_path):
    """Its rows are gone by then."""
    engine = InProcess(Segmenter(*random_model, device='cpu', score_thr=0.0, tile=80, overlap=30))
    settings = Settings(tmp_path, ('csv',))
    (plan,) = engine.plan([folder / '1.png'], ['1'], settings)
    make_folder_of_rows(plan)
    assert list(engine.segment([(plan, [0])], settings))
    summary = cluster._finish(plan, settings, dict(device='cpu'))
    assert not plan.folder.exists()
    again = cluster._finish(plan, settings, dict(device='cpu'))
    assert again['fingerprints'] == summary['fingerprints']


def test_a_worker_computes_in_the_precision_of_the_plan(random_model, folder, tmp_path):
    """Also where its own kind of machine would take another."""
    options = dict(config=random_model[0], checkpoint=random_model[1], device='cpu', score_thr=0.0)
    options |= dict(tile=80, overlap=30)
    scores = {}
    for precision in ('fp32', 'bf16'):
        settings = Settings(tmp_path / precision, ('csv',))
        engine = InProcess(Segmenter(**options, precision=precision))
        (plan,) = engine.plan([folder / '1.png'], ['1'], settings)
        make_folder_of_rows(plan)
        ours = tuple(dict(options, precision=None).items())
        assert cluster._segment(ours, plan, [0], settings)
        scores[precision] = read_row(plan.shard(0), plan.place(0)).nuclei.scores
        plan.shard(0).unlink()
        assert list(engine.segment([(plan, [0])], settings))
        again = read_row(plan.shard(0), plan.place(0)).nuclei.scores
        assert np.array_equal(scores[precision], again)
    assert not np.array_equal(scores['fp32'], scores['bf16'])


def halve(source, target):
    """A checkpoint with other weights."""
    content = torch.load(source, weights_only=True)
    content['state_dict']['backbone.conv1.weight'] *= 0.5
    torch.save(content, target)


def test_a_worker_takes_new_weights_under_the_old_name(random_model, tmp_path):
    """As of a training that goes on while the workers stay."""
    config, checkpoint = random_model[0], tmp_path / 'a.pth'
    checkpoint.write_bytes(random_model[1].read_bytes())
    options = dict(config=config, checkpoint=checkpoint, device='cpu').items()
    before = cluster._load(tuple(options))
    assert cluster._load(tuple(options)) is before
    halve(random_model[1], checkpoint)
    assert cluster._load(tuple(options)).identity['checkpoint'] != before.identity['checkpoint']


@pytest.mark.parametrize('difference', ['version', 'checkpoint'])
def test_rows_of_another_package_or_model_are_not_joined(
    random_model, folder, tmp_path, monkeypatch, difference
):
    options = dict(device='cpu', score_thr=0.0, tile=80, overlap=30)
    engine = InProcess(Segmenter(*random_model, **options))
    settings = Settings(tmp_path, ('csv',))
    (plan,) = engine.plan([folder / '1.png'], ['1'], settings)
    make_folder_of_rows(plan)
    config, checkpoint = random_model
    if difference == 'version':
        monkeypatch.setattr(cluster, '__version__', '0.0.1', raising=False)
    else:
        checkpoint = tmp_path / 'other.pth'
        halve(random_model[1], checkpoint)
    theirs = tuple(dict(options, config=config, checkpoint=checkpoint).items())
    (failed,) = cluster._segment(theirs, plan, [0], settings)
    assert f'1.png: planned by a worker with another {difference} than that of' in failed.reason
    assert not plan.shard(0).exists()


class AtOnce:
    """A client of Dask whose one worker is this process, in another folder."""

    dashboard_link = None

    def __init__(self, folder):
        self._folder = folder

    def submit(self, function, *arguments, **_):
        future, before = Future(), Path.cwd()
        os.chdir(self._folder)
        try:
            future.set_result(function(*arguments))
        finally:
            os.chdir(before)
        future.release = lambda: None
        return future


def test_links_are_not_followed(random_model, folder, tmp_path, monkeypatch):
    """The further files of a DICOM slide lie beside the link, as of git-annex."""
    link = tmp_path / 'linked.png'
    link.symlink_to(folder / '1.png')
    options = dict(config=random_model[0], checkpoint=random_model[1], device='cpu')
    engine = cluster.Cluster(AtOnce(folder), 1, tuple(options.items()))
    monkeypatch.chdir(tmp_path)
    (plan,) = engine.plan([Path('linked.png')], ['a'], Settings(tmp_path, ('csv',)))
    assert plan.path == link


def test_results_go_where_the_command_is(random_model, folder, tmp_path, monkeypatch):
    """And not into a folder of the same name where the worker is."""
    options = dict(config=random_model[0], checkpoint=random_model[1], device='cpu', score_thr=0.0)
    elsewhere = tmp_path / 'elsewhere'
    elsewhere.mkdir()
    engine = cluster.Cluster(AtOnce(elsewhere), 1, tuple(options.items()))
    monkeypatch.chdir(tmp_path)
    settings = Settings(Path('out'), ('csv',))
    (plan,) = engine.plan([folder / '1.png'], ['1'], settings)
    make_folder_of_rows(plan)
    assert list(InProcess(cluster._load(tuple(options.items()))).segment([(plan, [0])], settings))
    engine.finish(plan, settings, dict(device='cpu'))
    assert (tmp_path / 'out/1.csv').is_file()
    assert list(elsewhere.iterdir()) == []


def test_tasks_hold_whole_rows_of_enough_tiles():
    class Plan:
        wanted = np.array([[1] * 9, [1] * 9, [0] * 9, [1] * 9], bool)

    assert list(cluster._tasks(Plan, [0, 1, 2, 3], 16)) == [[0, 1], [2, 3]]
    assert list(cluster._tasks(Plan, [0, 1, 2, 3], 9)) == [[0], [1], [2, 3]]
    assert list(cluster._tasks(Plan, [0, 1, 2, 3], 0)) == [[0], [1], [2], [3]]
    assert list(cluster._tasks(Plan, [2], 16)) == [[2]]


def test_all_workers_have_some_of_a_small_slide():
    """One of 16 tiles was one task, and all workers but one had nothing to do."""

    class Plan:
        wanted = np.ones((4, 4), bool)

    rows = [0, 1, 2, 3]
    size = cluster._task_size([(Plan, rows)], workers=2)
    assert len(list(cluster._tasks(Plan, rows, size))) == 4
    assert cluster._task_size([(Plan, rows)] * 100, workers=2) == cluster.TILES


class TestRefused:
    @pytest.mark.parametrize(
        ('options', 'message'),
        [
            (['--workers', '0'], '--workers 0: expected at least 1'),
            (['--scheduler', 'tcp://x:1', '--workers', '2'], '--scheduler has workers of its own'),
        ],
    )
    def test_options(self, random_model, folder, tmp_path, capsys, options, message):
        assert segment.main([*arguments(random_model, tmp_path, folder), *options]) == 2
        assert message in capsys.readouterr().err

    def test_scheduler_that_does_not_answer(
        self, random_model, folder, tmp_path, capsys, monkeypatch
    ):
        monkeypatch.setattr(cluster, 'CONNECT', 1)
        options = ['--scheduler', 'tcp://127.0.0.1:9']
        assert segment.main([*arguments(random_model, tmp_path, folder), *options]) == 2
        assert 'no cluster: ' in capsys.readouterr().err

    def test_slurm_without_its_command(self, random_model, folder, tmp_path, capsys, monkeypatch):
        pytest.importorskip('dask_jobqueue')
        monkeypatch.setenv('PATH', str(tmp_path))
        monkeypatch.setattr(cluster, 'PATIENCE', 1)
        options = [*arguments(random_model, tmp_path / 'out', folder), '--slurm=--mem=1G']
        assert segment.main(options) == 2
        error = capsys.readouterr().err
        assert error.startswith('segment: --slurm: no command sbatch, expected a machine')
        assert error.count('\n') == 1
