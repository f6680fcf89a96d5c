"""Files of several runs of one slide in one folder: all of the same nuclei, all known."""

import json
import os
import sys

import cv2
import pytest

from nucseg_mmdet.export import overlay
from nucseg_mmdet.inference.plan import Settings
from nucseg_mmdet.inference.rows import InProcess
from nucseg_mmdet.inference.run import SlideRun
from nucseg_mmdet.inference.segmenter import Segmenter
from nucseg_mmdet.slides.base import RegionError
from nucseg_mmdet.synthetic.fields import synthesize
from nucseg_mmdet.viewer.results import find_results


@pytest.fixture(scope='module')
def engine(random_model):
    return InProcess(Segmenter(*random_model, device='cpu', score_thr=0.0, tile=80, overlap=30))


@pytest.fixture
def segment(engine, tmp_path):
    """Segments an image of several tiles: the number of tiles that were done for it."""
    path = tmp_path / 'a.png'
    cv2.imwrite(str(path), synthesize(0, 130, 80, 40)[0])

    def run(*formats, **settings):
        settings = Settings(tmp_path / 'out', formats, **settings)
        run = SlideRun(engine.plan([path], ['a'], settings), settings, engine)
        tiles = run.num_tiles
        run.run(lambda *_: None, print)
        assert len(run.summaries) == 1, run.problems
        return tiles

    return run


@pytest.fixture
def out(tmp_path):
    return tmp_path / 'out'


def summary(out):
    return json.loads((out / 'a.summary.json').read_text())


def names(out):
    return sorted(path.name for path in out.iterdir())


def test_files_of_other_formats_stay_known(segment, out):
    assert segment('csv', 'geojson') > 0
    before = (out / 'a.csv').read_bytes()
    assert segment('label') > 0
    found = summary(out)
    assert sorted(found['files']) == ['a.csv', 'a.geojson', 'a.labels.tif']
    assert sorted(found['fingerprints']) == sorted(found['files'])
    assert found['output']['formats'] == ['csv', 'geojson', 'label']
    assert (out / 'a.csv').read_bytes() == before
    assert len(find_results(out)[0]) == 1
    for formats in (['label'], ['csv', 'geojson'], ['csv', 'label']):
        assert segment(*formats) == 0


def test_files_of_other_nuclei_do_not(segment, out):
    segment('csv', 'geojson')
    segment('label')
    segment('label', region=(0, 0, 80, 60), overwrite=True)
    assert names(out) == ['a.labels.tif', 'a.summary.json']
    assert summary(out)['files'] == ['a.labels.tif']


def test_files_with_other_measurements_stay_and_are_not_taken_for_these(segment, out):
    segment('csv', 'geojson')
    before = (out / 'a.csv').read_bytes()
    segment('label', features=True)
    assert sorted(summary(out)['files']) == ['a.csv', 'a.geojson', 'a.labels.tif']
    assert summary(out)['output']['formats'] == ['label']
    assert (out / 'a.csv').read_bytes() == before
    assert segment('csv', features=True) > 0
    assert (out / 'a.csv').read_bytes() != before
    segment('label', region=(0, 0, 80, 60), overwrite=True)
    assert names(out) == ['a.labels.tif', 'a.summary.json']


def test_files_without_a_tile_go_when_it_is_there(segment, out, monkeypatch):
    """The settings are the same, and the nuclei are not."""
    load, left = Segmenter._load, [1]

    def stumble(segmenter, job):
        return RegionError('Input/output error') if left and left.pop() else load(segmenter, job)

    monkeypatch.setattr(Segmenter, '_load', stumble)
    segment('csv')
    assert len(summary(out)['broken_tiles']) == 1
    segment('label')
    assert summary(out)['broken_tiles'] == []
    assert names(out) == ['a.labels.tif', 'a.summary.json']


def test_a_summary_that_lacks_something_is_of_no_run(segment, out):
    segment('csv')
    found = summary(out)
    del found['output']
    (out / 'a.summary.json').write_text(json.dumps(found))
    with pytest.raises(AssertionError, match=r'a\.csv: is there, but of no earlier run'):
        segment('csv')
    assert segment('csv', overwrite=True) > 0


def test_a_summary_that_says_it_in_another_form_is_of_no_run(segment, out):
    for change in (
        dict(identity=[1]),
        dict(output=[]),
        dict(output=dict(formats=None)),
        dict(files=None),
        dict(files=[['a.csv']]),
        dict(fingerprints=None),
        dict(fingerprints={'a.csv': {}}),
    ):
        segment('csv', overwrite=True)
        (out / 'a.summary.json').write_text(json.dumps(summary(out) | change))
        assert segment('csv', overwrite=True) > 0, change


@pytest.mark.parametrize('plant', [os.mkfifo, lambda path: path.write_text('[' * 200_000)])
def test_what_is_no_summary_is_of_no_run(segment, out, plant):
    out.mkdir()
    plant(out / 'a.summary.json')
    with pytest.raises(AssertionError, match=r'a\.summary\.json: is there, but of no earlier run'):
        segment('csv')


@pytest.mark.parametrize('name', ['', '..', '../b', 'b/c'])
def test_what_lies_elsewhere_is_no_file_of_a_summary(segment, out, name, monkeypatch):
    """However well its fingerprint was foretold."""
    segment('csv')
    found = summary(out)
    found['fingerprints'][name] = found['fingerprints']['a.csv']
    (out / 'a.summary.json').write_text(json.dumps(found))
    for folder in (out / 'b', out.parent / 'b'):
        folder.mkdir()
        (folder / 'c').touch()
    monkeypatch.setattr('nucseg_mmdet.inference.output_folder.has_fingerprint', lambda *_: True)
    segment('label', region=(0, 0, 80, 60), overwrite=True)
    assert {'a.labels.tif', 'a.summary.json'} <= {*names(out)}
    assert (out / 'b/c').exists()
    assert (out.parent / 'b/c').exists()


def test_files_that_were_edited_are_left_to_their_owner(segment, out):
    segment('csv', 'geojson')
    (out / 'a.csv').write_text('mine')
    segment('label')
    assert sorted(summary(out)['files']) == ['a.geojson', 'a.labels.tif']
    assert summary(out)['output']['formats'] == ['geojson', 'label']
    segment('label', region=(0, 0, 80, 60), overwrite=True)
    assert names(out) == ['a.csv', 'a.labels.tif', 'a.summary.json']
    assert (out / 'a.csv').read_text() == 'mine'


def test_a_format_that_cannot_be_written_stays_known(segment, out, monkeypatch):
    """Else the tiles are all done again for nothing."""
    monkeypatch.setattr(overlay, 'OVERLAY_LIMIT', 9)
    segment('csv', 'overlay')
    segment('label')
    assert summary(out)['output']['formats'] == ['csv', 'label', 'overlay']
    assert segment('csv', 'overlay') == 0
    (out / 'a.csv').write_text('mine')
    segment('geojson')
    assert summary(out)['output']['formats'] == ['geojson', 'label', 'overlay']


@pytest.mark.skipif(sys.version_info < (3, 11), reason='zarr 3 needs Python 3.11')
def test_results_that_were_moved_to_another_disk_and_linked(segment, out):
    segment('ome-zarr')
    elsewhere = out.parent / 'elsewhere'
    (out / 'a.ome.zarr').rename(elsewhere)
    (out / 'a.ome.zarr').symlink_to(elsewhere)
    assert segment('ome-zarr') == 0
    segment('csv', region=(0, 0, 80, 60), overwrite=True)
    assert names(out) == ['a.csv', 'a.summary.json']
    assert (elsewhere / 'zarr.json').exists()
