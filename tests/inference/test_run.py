"""A run over several slides: one that cannot be finished holds back no other."""

import cv2
import numpy as np
import pytest

from nucseg_mmdet.export import overlay
from nucseg_mmdet.inference.plan import Settings
from nucseg_mmdet.inference.rows import InProcess, RowDone
from nucseg_mmdet.inference.run import SlideRun
from nucseg_mmdet.inference.segmenter import Segmenter
from nucseg_mmdet.slides.base import RegionError
from nucseg_mmdet.synthetic.fields import synthesize


@pytest.fixture(scope='module')
def engine(random_model):
    return InProcess(Segmenter(*random_model, device='cpu', score_thr=0.0, tile=80, overlap=30))


@pytest.fixture
def slides(tmp_path):
    """Three images, each of one tile."""
    paths = [tmp_path / f'{name}.png' for name in 'abc']
    for seed, path in enumerate(paths):
        cv2.imwrite(str(path), synthesize(seed, 80, 80, 20)[0])
    return paths


def start(engine, paths, settings):
    names = [path.stem for path in paths]
    return SlideRun(engine.plan(paths, names, settings), settings, engine)


def test_rows_that_are_missing_at_the_end_are_told(engine, slides, tmp_path, monkeypatch):
    """As where a worker writes them to another disk under the same name."""
    segment = engine.segment

    def elsewhere(work, settings):
        for done in segment(work, settings):
            if isinstance(done, RowDone) and done.folder.stem == 'a':
                (done.folder / 'row_00000.npz').unlink()
            yield done

    monkeypatch.setattr(engine, 'segment', elsewhere)
    settings = Settings(tmp_path / 'out', ('csv',))
    run = start(engine, slides, settings)
    run.run(lambda *_: None, print)
    assert run.problems == [
        f'{slides[0]}: {tmp_path}/out/a.partial: 1 of 1 rows of tiles are missing, expected all: '
        'do all workers see the same --out?'
    ]
    assert sorted(summary['name'] for summary in run.summaries) == ['b', 'c']


def test_a_further_file_that_changes_during_the_run_is_a_change(engine, tmp_path, monkeypatch):
    """Also the last of them that goes."""
    path, further = tmp_path / 'a.png', tmp_path / 'further'
    cv2.imwrite(str(path), synthesize(0, 80, 80, 20)[0])
    further.touch()
    monkeypatch.setattr(
        'nucseg_mmdet.slides.parts.further_files', lambda _: [further] if further.exists() else []
    )
    run = start(engine, [path], Settings(tmp_path / 'out', ('csv',)))
    run.run(lambda *_: further.unlink(), print)
    assert run.problems == [f'{path}: has changed during the run, expected the same until its end']


@pytest.fixture
def broken_once(engine, monkeypatch):
    """The next tile cannot be read, those after it can, as of a disk that hangs for a moment."""
    load, left = Segmenter._load, [1]

    def stumble(segmenter, job):
        return RegionError('Input/output error') if left and left.pop() else load(segmenter, job)

    monkeypatch.setattr(Segmenter, '_load', stumble)
    return left


def finish(engine, slides, settings):
    run = start(engine, slides, settings)
    run.run(lambda *_: None, print)
    return run


def test_a_tile_that_could_not_be_read_is_done_again_where_asked(
    engine, slides, tmp_path, broken_once
):
    settings = Settings(tmp_path / 'out', ('csv',))
    line = f'{slides[0]}: tile at 0,0: Input/output error; --overwrite does the slide again'
    assert finish(engine, slides, settings).problems == [line]
    again = finish(engine, slides, settings)
    assert (again.num_tiles, again.problems) == (0, [line])
    again = finish(engine, slides, settings._replace(overwrite=True))
    assert (again.num_tiles, again.problems) == (1, [])
    assert sum(summary['nuclei'] > 0 for summary in again.summaries) == 3
    assert finish(engine, slides, settings).problems == []


def test_a_stopped_run_does_a_tile_again_that_could_not_be_read(
    engine, slides, tmp_path, broken_once, monkeypatch
):
    settings = Settings(tmp_path / 'out', ('csv',))
    with monkeypatch.context() as patch:
        patch.setattr(engine, 'finish', lambda *_: 1 / 0)
        assert len(finish(engine, slides, settings).problems) == 3
    again = start(engine, slides, settings)
    assert again.num_tiles == 1
    again.run(lambda *_: None, print)
    assert again.problems == []


def test_a_format_that_cannot_be_written_is_told_before_the_work(engine, tmp_path):
    path = tmp_path / 'wide.png'
    cv2.imwrite(str(path), np.full((1, 70_000, 3), 243, np.uint8))
    region = (0, 0, 70_000, 1)
    settings = Settings(tmp_path / 'out', ('csv', 'overlay'), region=region)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(overlay, 'OVERLAY_LIMIT', 60_000)
        (plan,) = engine.plan([path], ['wide'], settings)
        (problem,) = engine.plan([path], ['wide'], settings._replace(formats=('overlay',)))
    reason = 'no overlay, 70000 x 1 px are more than 0 million'
    assert f'{path}: {reason}' in plan.notes
    assert str(problem) == f'{path}: {reason}: expected another --format'
