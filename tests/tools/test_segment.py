"""tools/segment.py as a user calls it: files, resuming, several processes, what goes wrong."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import tifffile
import torch

from nucseg_mmdet import __version__
from nucseg_mmdet.commands import segment
from nucseg_mmdet.export.formats import FORMATS as FORMATS_KNOWN
from nucseg_mmdet.export.writer import Writer
from nucseg_mmdet.inference import inputs
from nucseg_mmdet.inference import plan as planning
from nucseg_mmdet.inference import run as running
from nucseg_mmdet.inference.rows import InProcess
from nucseg_mmdet.inference.segmenter import Segmenter
from nucseg_mmdet.synthetic.fields import synthesize
from nucseg_mmdet.utils.errors import UserError
from nucseg_mmdet.utils.ownership import owned_folder

ROOT = Path(__file__).parents[2]
FORMATS = ('geojson', 'csv', 'label')
ENV = {**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': str(ROOT)}


@pytest.fixture(autouse=True)
def _one_thread():
    """Sums in the same order as in the processes that the tests start."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope='session')
def images(tmp_path_factory):
    """A tall image of nuclei with empty glass in between, and a small one."""
    folder = tmp_path_factory.mktemp('images')
    tall = np.full((1100, 150, 3), 243, np.uint8)
    tall[:260] = synthesize(1, 260, 150, 50)[0]
    tall[840:] = synthesize(2, 260, 150, 50)[0]
    cv2.imwrite(str(folder / 'tall.png'), tall[..., ::-1])
    cv2.imwrite(str(folder / 'small.png'), synthesize(4, 80, 90, 20)[0][..., ::-1])
    return folder


def arguments(model, out, *inputs):
    config, checkpoint = model
    options = ['--config', config, '--checkpoint', checkpoint, '--score-thr', 0.0]
    options += ['--tile', 80, '--overlap', 30, '--device', 'cpu', '--format', *FORMATS]
    return [str(item) for item in [*inputs, '--out', out, *options]]


def contents(out):
    """The bytes of all result files."""
    return {
        path.name: path.read_bytes()
        for path in sorted(out.iterdir())
        if not path.name.endswith('.summary.json')
    }


def summary(out, name):
    return json.loads((out / f'{name}.summary.json').read_text())


@pytest.fixture(scope='session')
def finished(random_model, images, tmp_path_factory):
    """Results of an undisturbed run in one process."""
    torch.set_num_threads(1)
    out = tmp_path_factory.mktemp('finished') / 'out'
    assert segment.main(arguments(random_model, out, images)) == 0
    return out


class TestResults:
    def test_files(self, finished):
        assert [path.name for path in sorted(finished.iterdir())] == [
            'small.csv',
            'small.geojson',
            'small.labels.tif',
            'small.summary.json',
            'tall.csv',
            'tall.geojson',
            'tall.labels.tif',
            'tall.summary.json',
            'tall.tissue.png',
        ]

    @pytest.mark.parametrize('name', ['small', 'tall'])
    def test_formats_agree(self, finished, name):
        with (finished / f'{name}.csv').open() as file:
            rows = list(csv.DictReader(file))
        features = json.loads((finished / f'{name}.geojson').read_text())['features']
        labels = tifffile.imread(finished / f'{name}.labels.tif')
        found = summary(finished, name)
        assert len(rows) == len(features) == found['nuclei'] > 20
        # A nucleus may lie wholly below another, of a neighboring tile.
        assert 0.9 * len(rows) < len(np.unique(labels)) - 1 <= len(rows)
        assert (found['width'], found['height']) == labels.shape[::-1]

    def test_glass_is_left_out(self, finished):
        # Rows 260 to 840 are glass; around tissue 32 microns are kept, 128 px.
        assert summary(finished, 'small')['tiles_skipped_as_glass'] == 0
        found = summary(finished, 'tall')
        assert found['tiles_skipped_as_glass'] >= 3 * (840 - 260 - 2 * 128 - 2 * 80) // 50
        assert found['tissue_mm2'] < 0.6 * 150 * 1100 * 0.25**2 / 1e6
        grid, skipped = found['tile_grid'], 0
        for top, height, row in zip(grid['tops'], grid['heights'], grid['looked_at'], strict=True):
            assert len(row) == len(grid['lefts']) == len(grid['widths'])
            skipped += row.count('0')
            if '0' in row:
                assert top >= 260 + 90  # 128 px around tissue are kept, to a px of the mask: 32
                assert top + height <= 840 - 90
        assert skipped == found['tiles_skipped_as_glass']
        assert (finished / 'tall.tissue.png').is_file()

    def test_again_does_nothing(self, finished, random_model, images, capsys):
        before = {path: path.stat().st_mtime_ns for path in finished.iterdir()}
        assert segment.main(arguments(random_model, finished, images)) == 0
        assert '2 of 2 finished before' in capsys.readouterr().out
        assert all(path.stat().st_mtime_ns == changed for path, changed in before.items())

    def test_other_settings_are_refused(self, finished, random_model, images, capsys):
        options = arguments(random_model, finished, images / 'small.png')
        assert segment.main([*options, '--no-tissue-mask']) == 2
        error = capsys.readouterr().err
        assert 'small.summary.json: made with other settings (skip_glass)' in error

    def test_overwrite(self, random_model, images, tmp_path):
        options = arguments(random_model, tmp_path, images / 'small.png')
        assert segment.main(options) == 0
        again = [*options, '--score-thr', '0.9', '--overwrite']
        assert segment.main(again) == 0
        assert summary(tmp_path, 'small')['nuclei'] == 0

    def test_overwrite_leaves_nothing_of_other_nuclei(self, random_model, images, tmp_path):
        path = images / 'tall.png'
        first = ['--format', 'csv', 'geojson', 'ome-zarr', 'coco']
        options = arguments(random_model, tmp_path, path)
        assert segment.main([*options, *first]) == 0
        (tmp_path / 'tall.coco.json').write_text('[]')  # edited
        again = [*options, '--no-tissue-mask', '--overwrite', '--gzip', '--format', 'geojson']
        assert segment.main(again) == 0
        left = {'tall.coco.json', 'tall.geojson.gz', 'tall.summary.json'}
        assert {path.name for path in tmp_path.iterdir()} == left
        assert segment.main([*again, 'csv']) == 0  # of the same nuclei
        assert segment.main([*again[:-1], 'csv']) == 0
        left.add('tall.csv')
        assert {path.name for path in tmp_path.iterdir()} == left

    @pytest.mark.parametrize(
        ('name', 'options'),
        [
            ('small.geojson', []),
            ('small.geojson.gz', ['--gzip']),
            ('small.labels.tif', []),
            ('small.summary.json', []),
            ('small.partial/notes.txt', []),
        ],
    )
    def test_files_of_others_are_kept(self, random_model, images, tmp_path, capsys, name, options):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text('{"type": "FeatureCollection", "features": []}')
        options = [*arguments(random_model, tmp_path, images / 'small.png'), *options]
        assert segment.main(options) == 2
        error = capsys.readouterr().err
        assert f'{name.split("/")[0]}: is there, but of no earlier run' in error
        assert error.count('\n') == 1
        assert path.is_file()
        assert len(list(tmp_path.iterdir())) == 1
        assert segment.main([*options, '--overwrite']) == 0
        assert summary(tmp_path, 'small')['nuclei'] > 20

    def test_pictures_of_others_are_kept(self, random_model, images, tmp_path, capsys):
        path = tmp_path / 'tall.tissue.png'
        path.write_text('by hand')
        options = arguments(random_model, tmp_path, images / 'tall.png')
        assert segment.main(options) == 2
        assert 'tall.tissue.png: is there, but of no earlier run' in capsys.readouterr().err
        assert path.read_text() == 'by hand'
        assert len(list(tmp_path.iterdir())) == 1

    def test_a_refused_run_leaves_the_picture(self, finished, random_model, images, capsys):
        path = finished / 'tall.tissue.png'
        before = path.read_bytes()
        options = arguments(random_model, finished, images / 'tall.png')
        assert segment.main([*options, '--roi', '20,300,100,500']) == 2
        assert 'made with other settings (region)' in capsys.readouterr().err
        assert path.read_bytes() == before

    def test_another_format_replaces_no_file_of_others(
        self, random_model, images, tmp_path, capsys
    ):
        options = arguments(random_model, tmp_path, images / 'small.png')
        assert segment.main([*options, '--format', 'csv']) == 0
        (tmp_path / 'small.geojson').write_text('by hand')
        assert segment.main(options) == 2
        assert 'small.geojson: is there' in capsys.readouterr().err
        (tmp_path / 'small.geojson').unlink()
        assert segment.main(options) == 0

    def test_region(self, random_model, images, tmp_path):
        options = arguments(random_model, tmp_path, images / 'tall.png')
        assert segment.main([*options, '--roi', '20,870,100,90']) == 0
        with (tmp_path / 'tall.csv').open() as file:
            centers = [
                (float(row['centroid_x_px']), float(row['centroid_y_px']))
                for row in csv.DictReader(file)
            ]
        assert len(centers) > 10
        assert all(20 <= x <= 120 and 870 <= y <= 960 for x, y in centers)

    def test_region_starts_within_a_pixel_of_the_model(self, random_model, images, tmp_path):
        # At 0.1 microns per px the model's pixels are 2.5 px: 6 / 2.5 = 2.4 and 9 / 2.5 = 3.6,
        # so the working image starts with pixel 2, 4, which is at 5, 10.
        finder = Segmenter(*random_model, device='cpu')
        settings = planning.Settings(tmp_path, ('csv',), mpp=0.1, region=(6, 9, 50, 40))
        plan = planning.plan_slide(images / 'small.png', 'small', settings, finder)
        assert plan.target.to_slide(np.array([[0, 0], [2, 4]])).tolist() == [[5, 10], [10, 20]]
        assert plan.target.box == (6, 9, 50, 40)

    def test_names_of_two_folders(self, random_model, images, tmp_path):
        for folder in ('one', 'two'):
            (tmp_path / folder).mkdir()
            (tmp_path / folder / 'a.png').write_bytes((images / 'small.png').read_bytes())
        inputs = [tmp_path / 'one', tmp_path / 'two' / 'a.png']
        assert segment.main(arguments(random_model, tmp_path / 'out', *inputs)) == 0
        names = {path.name for path in (tmp_path / 'out').glob('*.csv')}
        assert names == {'one_a.csv', 'two_a.csv'}


def test_results_in_a_folder_are_no_inputs(tmp_path):
    names = ['a.tif', 'b.png', 'a.labels.tif', 'a.tissue.png', 'b.overlay.png', 'labels.tif']
    for name in names:
        (tmp_path / name).touch()
    found = inputs.find_inputs([tmp_path])
    assert [path.name for path in found.paths] == ['a.tif', 'b.png', 'labels.tif']
    left = 'a.labels.tif, a.tissue.png, b.overlay.png'
    assert found.notes == [f'{tmp_path}: named like results of a run, left out: {left}']
    named = [tmp_path / 'a.labels.tif']
    assert inputs.find_inputs(named).paths == named


@pytest.mark.parametrize(
    ('paths', 'names'),
    [
        (['x/a.png', 'x/b.png'], ['a', 'b']),
        (['x/a.png', 'y/a.svs', 'y/b.svs'], ['x_a', 'y_a', 'b']),
        (['x/a.png', 'x/a.tif'], ['x_a_png', 'x_a_tif']),
        (['v/x/a.png', 'w/x/a.png'], ['v_x_a_png', 'w_x_a_png']),
        (['x/a.ome.tiff'], ['a']),
    ],
)
def test_output_names(paths, names, tmp_path):
    assert inputs.name_outputs([tmp_path / path for path in paths]) == names


def test_output_names_are_never_the_same(tmp_path):
    paths = ['x/a.png', 'x_a.png', 'y/a.png', 'x/a.tif', 'x/y/a.tif', 'x_y/a.tif', 'x/a_png.png']
    assert len(set(inputs.name_outputs([tmp_path / path for path in paths]))) == len(paths)
    paths = [Path('/x/y/a.png'), Path('/x_y/a.png'), Path('/y/a.png')]
    assert len(set(inputs.name_outputs(paths))) == 3


class TestGoesOn:
    @pytest.mark.slow
    def test_after_kill(self, finished, random_model, images, tmp_path):
        command = [sys.executable, str(ROOT / 'tools/segment.py')]
        command += arguments(random_model, tmp_path, images)
        process = subprocess.Popen(
            command, env=ENV, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        rows = tmp_path / 'tall.partial'
        until = time.monotonic() + 300
        while len(list(rows.glob('row_*.npz'))) < 3:
            assert process.poll() is None
            assert time.monotonic() < until
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        kept = {path: path.stat().st_mtime_ns for path in rows.glob('row_*.npz')}
        assert not (tmp_path / 'tall.summary.json').exists()
        assert len(kept) >= 3
        assert segment.main(arguments(random_model, tmp_path, images)) == 0
        assert contents(tmp_path) == contents(finished)

    @pytest.mark.parametrize('rows', [1, 4, 9])
    def test_rows_that_are_done_stay(self, finished, random_model, images, tmp_path, rows):
        total = stopped_after(rows, random_model, images, tmp_path)
        shards = {path: path.stat().st_mtime_ns for path in tmp_path.glob('*.partial/row_*')}
        run, _ = start(random_model, images, tmp_path)
        assert run.num_tiles < total
        with pytest.raises(Stopped):
            run.run(Stopped.after(1), print)
        assert shards
        for path, changed in shards.items():
            if not (tmp_path / f'{path.parent.stem}.summary.json').is_file():  # else: finished
                assert path.stat().st_mtime_ns == changed
        assert segment.main(arguments(random_model, tmp_path, images)) == 0
        assert contents(tmp_path) == contents(finished)

    def test_ended_between_files_and_summary(self, finished, random_model, images, tmp_path):
        path = images / 'tall.png'
        stopped_after(None, random_model, path, tmp_path)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr('nucseg_mmdet.inference.results.write_json', lambda *_: 1 / 0)
            assert segment.main(arguments(random_model, tmp_path, path)) == 2
        assert (tmp_path / 'tall.csv').is_file()
        assert start(random_model, path, tmp_path)[0].num_tiles == 0
        assert segment.main(arguments(random_model, tmp_path, path)) == 0
        assert contents(tmp_path) == {
            name: content for name, content in contents(finished).items() if 'tall' in name
        }

    def test_rows_of_other_settings_are_refused(self, random_model, images, tmp_path, capsys):
        options = arguments(random_model, tmp_path, images / 'tall.png')
        stopped_after(3, random_model, images / 'tall.png', tmp_path)
        assert segment.main([*options, '--overlap', '20']) == 2
        assert 'tall.partial: made with other settings (overlap)' in capsys.readouterr().err
        assert segment.main([*options, '--overlap', '20', '--overwrite']) == 0
        assert summary(tmp_path, 'tall')['identity']['overlap'] == 20


class Stopped(Exception):
    """Ends a run from within, as its process might end."""

    @classmethod
    def after(cls, rows):
        done = []

        def progress(num_tiles, num_nuclei):
            done.append(num_tiles)
            if len(done) == rows:
                raise cls

        return progress


def start(model, path, out):
    """A run with the settings of ``arguments``, ready to go, and the number of rows to do."""
    finder = Segmenter(*model, device='cpu', score_thr=0.0, tile=80, overlap=30)
    settings = planning.Settings(out, FORMATS)
    paths = inputs.find_inputs([path]).paths
    plans = [
        planning.plan_slide(path, name, settings, finder)
        for path, name in zip(paths, inputs.name_outputs(paths), strict=True)
    ]
    run = running.SlideRun(plans, settings, InProcess(finder))
    return run, sum(int(plan.wanted.any(axis=1).sum()) for plan in plans)


def stopped_after(rows, model, path, out):
    """Do some rows, or all, and write no files of the last image; returns the tiles of all."""
    run, all_rows = start(model, path, out)
    total = run.num_tiles
    with pytest.raises(Stopped):
        run.run(Stopped.after(rows or all_rows), print)
    return total


class TestWrong:
    def check(self, capsys, options, code, *messages):
        assert segment.main([str(option) for option in options]) == code
        error = capsys.readouterr().err
        for message in messages:
            assert message in error
        if code == 2:
            assert error.count('\n') == 1

    def test_input_does_not_exist(self, capsys, random_model, tmp_path):
        options = arguments(random_model, tmp_path, 'nowhere.svs')
        self.check(capsys, options, 2, 'segment: nowhere.svs: no such file or folder')

    def test_empty_folder(self, capsys, random_model, tmp_path):
        options = arguments(random_model, tmp_path / 'out', tmp_path)
        self.check(capsys, options, 2, f'{tmp_path}: no image or slide in it')
        assert not (tmp_path / 'out').exists()

    @pytest.mark.parametrize('region', ['1,2,3', 'a,b,c,d', '1,2,0,4', ''])
    def test_region(self, capsys, random_model, images, tmp_path, region):
        options = [*arguments(random_model, tmp_path, images), '--roi', region]
        self.check(capsys, options, 2, f'--roi {region or "is empty"}: expected')

    def test_no_such_checkpoint(self, capsys, random_model, images, tmp_path):
        options = arguments((random_model[0], 'nowhere.pth'), tmp_path / 'out', images)
        self.check(capsys, options, 2, 'nowhere.pth: no such checkpoint')

    def test_folder_that_cannot_be_made(self, capsys, random_model, images, tmp_path):
        (tmp_path / 'file').write_text('')
        options = arguments(random_model, tmp_path / 'file' / 'out', images)
        self.check(capsys, options, 2, 'file/out: no folder for results (Not a directory)')

    def test_impossible_pixel_size(self, capsys, random_model, images, tmp_path):
        options = [*arguments(random_model, tmp_path, images), '--mpp', 90]
        self.check(capsys, options, 2, '90.0 microns per pixel given')

    def test_no_space(self, random_model, images, tmp_path):
        finder = Segmenter(*random_model, device='cpu')
        settings = planning.Settings(tmp_path, ('csv',))
        plan = planning.plan_slide(images / 'small.png', 'small', settings, finder)
        planning.check_space([plan], settings)
        # 8,000 nuclei on a mm2, 600 + 180 bytes each: 6.24 MB a mm2.
        with pytest.raises(UserError, match=r' [kMGT]B free, about 6,240\.0 TB needed for'):
            planning.check_space([replace(plan, tissue_mm2=1e9)], settings)

    def test_space_of_a_format_that_says_no_figure(
        self, random_model, images, tmp_path, monkeypatch
    ):
        class Centroids(Writer):
            suffix = '.centroids.txt'

            def _write(self, nuclei, ids):
                pass

        monkeypatch.setitem(FORMATS_KNOWN, 'centroids', Centroids)
        finder = Segmenter(*random_model, device='cpu')
        settings = planning.Settings(tmp_path, ('csv', 'centroids'))
        plan = planning.plan_slide(images / 'small.png', 'small', settings, finder)
        with pytest.raises(UserError, match=r'about 11,040\.0 TB needed for'):  # 600 + 180 + 600
            planning.check_space([replace(plan, tissue_mm2=1e9)], settings)

    @pytest.mark.parametrize(
        ('number', 'text'),
        [
            (0, '0.0 B'),
            (999, '999.0 B'),
            (1000, '1.0 kB'),
            (36_800_000, '36.8 MB'),
            (2e18, '2,000,000.0 TB'),
        ],
    )
    def test_bytes_in_the_unit_that_suits(self, number, text):
        assert planning.in_bytes(number) == text

    def test_broken_slide_and_region_elsewhere(self, capsys, random_model, images, tmp_path):
        (tmp_path / 'broken.png').write_bytes((images / 'small.png').read_bytes()[:500])
        (tmp_path / 'text.tif').write_text('no image')
        inputs = [tmp_path / 'broken.png', tmp_path / 'text.tif', images]
        options = [*arguments(random_model, tmp_path / 'out', *inputs), '--roi', '0,900,99,99']
        messages = ['Problems: 3', 'broken.png', 'text.tif', 'small.png: region 0,900,99,99 is not']
        self.check(capsys, options, 1, *messages)
        assert summary(tmp_path / 'out', 'tall')['nuclei'] > 20

    def test_broken_tile(self, capsys, random_model, tmp_path):
        image = synthesize(5, 256, 256, 90)[0]
        path, whole = tmp_path / 'damaged.tif', tmp_path / 'whole.tif'
        for target in (path, whole):
            tifffile.imwrite(target, image, tile=(64, 64), compression='zlib', photometric='rgb')
        with tifffile.TiffFile(path) as tiff:
            start, size = tiff.pages[0].dataoffsets[0], tiff.pages[0].databytecounts[0]
        content = bytearray(path.read_bytes())
        content[start : start + size] = bytes(size)
        path.write_bytes(content)
        options = arguments(random_model, tmp_path / 'out', path, whole)
        self.check(capsys, options, 1, 'Problems: ', 'damaged.tif: tile at 0,0: ')
        damaged, whole = (summary(tmp_path / 'out', name) for name in ('damaged', 'whole'))
        assert whole['broken_tiles'] == []
        assert 0.3 * whole['nuclei'] < damaged['nuclei'] < whole['nuclei']

    def test_broken_glass(self, capsys, random_model, images, tmp_path):
        # Glass is told from tissue on a level that is whole, and drawn from the one that is not.
        image = cv2.imread(str(images / 'tall.png'))
        path = tmp_path / 'damaged.tif'
        with tifffile.TiffWriter(path) as tiff:
            for step in (1, 4):
                options = dict(tile=(64, 64), compression='zlib', photometric='rgb')
                tiff.write(image[::step, ::step].copy(), subfiletype=int(step > 1), **options)
        with tifffile.TiffFile(path) as tiff:
            middle = 3 * (1100 // 2 // 64)  # three tiles a row
            start, size = tiff.pages[0].dataoffsets[middle], tiff.pages[0].databytecounts[middle]
        content = bytearray(path.read_bytes())
        content[start : start + size] = bytes(size)
        path.write_bytes(content)
        assert segment.main(arguments(random_model, tmp_path / 'out', path)) == 0
        assert '; no picture of the tissue' in capsys.readouterr().err
        found = summary(tmp_path / 'out', 'damaged')
        assert found['tiles_skipped_as_glass'] > 0
        assert found['broken_tiles'] == []


class TestLaunchers:
    @pytest.fixture(autouse=True)
    def _alone(self, monkeypatch):
        for name in ('WORLD_SIZE', 'SLURM_STEP_NUM_TASKS'):
            monkeypatch.delenv(name, raising=False)

    @pytest.mark.parametrize(
        ('names', 'message'),
        [
            (
                dict(RANK='3', WORLD_SIZE='4'),
                '4 times by torchrun, expected once, with --workers 4',
            ),
            (dict(SLURM_STEP_NUM_TASKS='8'), 'by srun, expected once, with --workers 8 --slurm'),
        ],
    )
    def test_several_processes_are_told_the_new_way(self, monkeypatch, names, message):
        for name, value in names.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(UserError, match=message):
            segment.refuse_launchers()

    # Alone; inside salloc, without srun; in a script for sbatch.
    @pytest.mark.parametrize(
        'names', [{}, dict(SLURM_NTASKS='8'), dict(SLURM_PROCID='0', SLURM_NTASKS='8')]
    )
    def test_one_process_is_fine(self, monkeypatch, names):
        for name, value in names.items():
            monkeypatch.setenv(name, value)
        segment.refuse_launchers()


def test_two_runs_do_not_share_a_folder(random_model, images, tmp_path, capsys):
    with owned_folder(tmp_path):
        assert segment.main(arguments(random_model, tmp_path, images)) == 2
    assert 'another run writes there' in capsys.readouterr().err
    with owned_folder(tmp_path):  # free again
        pass
    assert list(tmp_path.iterdir()) == []


def test_another_slide_of_the_same_name_size_and_time_is_another(random_model, tmp_path, capsys):
    """Unpacked from an archive, with its times of whole seconds."""
    paths = tmp_path / 'x/a.bmp', tmp_path / 'y/a.bmp'
    for seed, path in enumerate(paths):
        path.parent.mkdir()
        cv2.imwrite(str(path), synthesize(seed, 80, 90, 20)[0])
        os.utime(path, (1_700_000_000, 1_700_000_000))
    first, second = (arguments(random_model, tmp_path / 'out', path) for path in paths)
    assert segment.main(first) == 0
    before = contents(tmp_path / 'out')
    assert segment.main(second) == 2
    assert 'a.summary.json: made with other settings (slide)' in capsys.readouterr().err
    assert contents(tmp_path / 'out') == before


@pytest.mark.parametrize('rows', [0, 1])
def test_a_slide_that_changes_during_the_run_is_a_problem(random_model, tmp_path, rows):
    """Before it is read, or before its files are written."""
    path = tmp_path / 'a.png'
    cv2.imwrite(str(path), synthesize(1, 80, 90, 20)[0])
    run, _ = start(random_model, path, tmp_path / 'out')

    def replace(*_):
        cv2.imwrite(str(path), synthesize(2, 70, 90, 20)[0])

    if not rows:
        replace()
    run.run(replace, print)
    assert run.problems == [f'{path}: has changed during the run, expected the same until its end']
    assert run.summaries == []
    assert [item.name for item in (tmp_path / 'out').iterdir()] == ['a.partial']


def test_rows_of_another_version_are_refused(random_model, images, tmp_path, capsys):
    options = arguments(random_model, tmp_path, images / 'tall.png')
    stopped_after(3, random_model, images / 'tall.png', tmp_path)
    note = tmp_path / 'tall.partial/run.json'
    content = json.loads(note.read_text())
    assert content['version'] == __version__
    assert len(content['checkpoint']) == 16
    note.write_text(json.dumps(dict(content, version='0.0.1')))
    assert segment.main(options) == 2
    assert 'tall.partial: made with other settings (version)' in capsys.readouterr().err


def test_pixels_that_are_too_large(random_model, images, tmp_path, capsys):
    options = [*arguments(random_model, tmp_path, images / 'small.png'), '--mpp', '1.1']
    assert segment.main(options) == 2
    error = capsys.readouterr().err
    assert 'small.png: pixels of 1.1 microns (as given) would be enlarged 4.4 times' in error
