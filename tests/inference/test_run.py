"""A run over several slides: one that cannot be finished holds back no other."""

import cv2
import numpy as np
import pytest

from nucseg_mmdet.export import overlay
from nucseg_mmdet.inference import results
from nucseg_mmdet.inference.plan import Settings
from nucseg_mmdet.inference.rows import InProcess, RowDone
from nucseg_mmdet.inference.run import SlideRun
from nucseg_mmdet.inference.segmenter import Segmenter
from nucseg_mmdet.slides.base import RegionError
from nucseg_mmdet.slides.open import open_shared
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


def test_tiles_are_normalized_by_the_colors_of_their_slide(tmp_path, monkeypatch):
    segmenter = Segmenter(device='cpu', tile=128, overlap=32)  # whose images are normalized
    path, used, prepare = tmp_path / 'a.png', [], segmenter.predictor.prepare

    def noted(tile, colors=None):
        used.append(colors)
        return prepare(tile, colors)

    monkeypatch.setattr(segmenter.predictor, 'prepare', noted)
    cv2.imwrite(str(path), np.tile(synthesize(7, 50, 50, 8)[0], (2, 4, 1)))
    settings = Settings(tmp_path / 'out', ('csv',))
    assert finish(InProcess(segmenter), [path], settings).problems == []
    assert len(used) == 3
    assert used[0] is not None
    assert used[0] is used[1] is used[2]


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


def test_a_name_that_is_too_long_for_one_of_the_formats(engine, slides, tmp_path):
    settings = Settings(tmp_path, ('csv', 'spatialdata'))
    names = ['x' * 238, 'x' * 239]  # with .spatialdata.zarr, 255 and 256 bytes
    plan, problem = engine.plan(slides[:2], names, settings)
    assert plan.target.name == names[0]
    assert 'the name of its .spatialdata.zarr would have 256 bytes' in str(problem)


def test_where_qupath_counts_from_is_that_of_the_slide(engine, slides, tmp_path):
    """The corner of its scanned part, as of mrxs."""
    open_shared(slides[0]).bounds = 30, 20, 40, 30
    plan, whole = engine.plan(slides[:2], ['a', 'b'], Settings(tmp_path, ('csv',)))
    assert (plan.target.qupath_corner, whole.target.qupath_corner) == ((30, 20), (0, 0))


def test_tiles_of_a_region_are_told_where_they_lie_on_the_slide(engine, tmp_path, monkeypatch):
    # Of 0.5 microns: 190 x 130 px for the model, in tiles of 64 px, one every 32 px.
    path = tmp_path / 'a.png'
    cv2.imwrite(str(path), synthesize(0, 80, 110, 20)[0])
    load = Segmenter._load

    def stumble(segmenter, job):
        return RegionError('gone') if job.key[1:] == (1, 3) else load(segmenter, job)

    monkeypatch.setattr(Segmenter, '_load', stumble)
    settings = Settings(
        tmp_path / 'out', ('csv',), mpp=0.5, region=(10, 4, 95, 65), skip_glass=False
    )
    (summary,) = finish(engine, [path], settings).summaries
    assert summary['tile_grid'] == dict(
        lefts=[10, 26, 42, 58, 74],
        widths=[32, 32, 32, 32, 31],
        tops=[4, 20, 36, 52],
        heights=[32, 32, 32, 17],
        looked_at=['11111'] * 4,
    )
    assert summary['broken_tiles'] == ['tile at 58,20: gone']
    assert (summary['tiles'], summary['tiles_skipped_as_glass']) == (20, 0)


def test_what_lies_under_outlines_is_the_region(engine, tmp_path):
    """Also of one that is read in several parts."""
    image = np.random.default_rng(0).integers(0, 256, (1100, 1050, 3), dtype=np.uint8)
    path = tmp_path / 'a.png'
    cv2.imwrite(str(path), image[..., ::-1])
    settings = Settings(tmp_path / 'out', ('csv',), region=(9, 20, 1031, 1060))
    (plan,) = engine.plan([path], ['a'], settings)
    shown = results._read_image(plan, settings)
    np.testing.assert_array_equal(shown, image[20:1080, 9:1040])


def test_a_slide_in_one_line():
    kinds = [dict(name='round', nuclei=1_200), dict(name='flat', nuclei=34)]
    summary = dict(
        name='a', nuclei=1_234, tissue_mm2=0.5, nuclei_per_mm2=2_468.0, classes=kinds[:1], tiles=7,
        tiles_skipped_as_glass=1_000, seconds=2.4, device='cpu', precision='fp32',
        nuclei_cut_by_tiles=0,
    )  # fmt: skip
    line = (
        'a: 1,234 nuclei on 0.5 mm2 of tissue, 2,468 per mm2; 7 tiles, 1,000 of glass left out; '
        '2 s on cpu in fp32'
    )
    assert results.describe(summary) == line
    several = results.describe(summary | dict(classes=kinds, nuclei_cut_by_tiles=3))
    assert several == (
        f'{line}; 1,200 round, 34 flat; larger than the overlap of tiles and cut: '
        '3 nuclei, see --overlap'
    )
    empty = results.describe(summary | dict(nuclei=0, tissue_mm2=0, nuclei_per_mm2=None))
    assert empty.startswith('a: 0 nuclei on 0 mm2 of tissue; 7 tiles')
    one = results.describe(summary | dict(nuclei=1, tiles=1))
    assert one.startswith('a: 1 nucleus on 0.5 mm2 of tissue, 2,468 per mm2; 1 tile, ')
