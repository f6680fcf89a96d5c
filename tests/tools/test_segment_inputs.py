"""tools/segment.py with inputs as people bring them: one that is bad stops no other."""

import json
import os
import struct
import sys
import zlib
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian

from nucseg_mmdet.commands import segment
from nucseg_mmdet.inference import plan as planning
from nucseg_mmdet.inference import rows
from nucseg_mmdet.inference.inputs import find_inputs
from nucseg_mmdet.inference.segmenter import Segmenter
from nucseg_mmdet.synthetic.fields import synthesize
from nucseg_mmdet.utils.fingerprint import fingerprint
from nucseg_mmdet.utils.ownership import LOCK, owned_folder

IMAGE = synthesize(4, 80, 90, 20)[0]
APERIO = 'Aperio Image Library v11\n90x80 (32x32) JPEG/RGB Q=90|AppMag = 40|MPP = {}'


def run(model, out, *inputs):
    config, checkpoint = model
    options = ['--config', config, '--checkpoint', checkpoint, '--score-thr', 0.0]
    options += ['--tile', 80, '--overlap', 30, '--device', 'cpu', '--backend', 'mmdet']
    return segment.main([str(item) for item in [*inputs, '--out', out, *options]])


def save(path, image=IMAGE):
    Image.fromarray(image).save(path)
    return path


def write_svs(path, mpp='0.2500'):
    with tifffile.TiffWriter(path, bigtiff=True) as tiff:
        for step in (1, 4):
            tiff.write(
                np.ascontiguousarray(IMAGE[::step, ::step]), description=APERIO.format(mpp),
                tile=(32, 32), compression='jpeg', photometric='rgb', metadata=None, software=None,
            )  # fmt: skip


def svs_that_ends_openslide(path):
    """One bit of the count of a tag: OpenSlide asks for more memory than there is and aborts."""
    write_svs(path)
    with tifffile.TiffFile(path) as tiff:
        tag = tiff.pages[0].tags['TileOffsets']
        place = tag.offset + 4 + 7  # the highest byte of the count in BigTIFF
    data = bytearray(path.read_bytes())
    data[place] ^= 0x10
    path.write_bytes(data)


def indexed_png_without_palette(path):
    parts = [(b'IHDR', struct.pack('>IIBBBBB', 40, 40, 8, 3, 0, 0, 0))]
    parts += [(b'IDAT', zlib.compress(bytes(41 * 40))), (b'IEND', b'')]
    path.write_bytes(
        b'\x89PNG\r\n\x1a\n'
        + b''.join(
            struct.pack('>I', len(body)) + kind + body + struct.pack('>I', zlib.crc32(kind + body))
            for kind, body in parts
        )
    )


def tiff_that_says_it_is_huge(path):
    tifffile.imwrite(path, IMAGE, tile=(32, 32), photometric='rgb', compression='zlib')
    with tifffile.TiffFile(path, mode='r+') as tiff:
        for name in ('ImageWidth', 'ImageLength'):
            tag = tiff.pages[0].tags[name]
            tag.overwrite(4_294_967_295, dtype='I')


def tiff_with_too_few_tiles(path):
    tifffile.imwrite(path, IMAGE, tile=(96, 96), photometric='rgb', compression='zlib')
    with tifffile.TiffFile(path, mode='r+') as tiff:
        tiff.pages[0].tags['ImageLength'].overwrite(16_777_472, dtype='I')


BAD = {
    'aborts.svs': svs_that_ends_openslide,
    'indexed.png': indexed_png_without_palette,
    'huge.tif': tiff_that_says_it_is_huge,
    'few.tif': tiff_with_too_few_tiles,
    'loop.png': lambda path: path.symlink_to(path.name),
    'dangling.png': lambda path: path.symlink_to('nowhere.png'),
    'empty.png': lambda path: path.touch(),
    'pipe.png': os.mkfifo,
    'text.jpg': lambda path: path.write_text('no image'),
    'half.jpg': lambda path: path.write_bytes(save(path).read_bytes()[:-700] + b'\xff\xd9'),
}
GOOD = {
    'a.png': save,
    'thin.png': lambda path: save(path, np.full((3000, 1, 3), 200, np.uint8)),
    'property.svs': lambda path: write_svs(path, 'none'),
    os.fsdecode(b'gr\xfcn.png'): save,
    'line\nbreak.png': save,
}


def test_bad_inputs_stop_no_other(random_model, tmp_path, capsys):
    folder, out = tmp_path / 'in', tmp_path / 'out'
    folder.mkdir()
    for name, write in (BAD | GOOD).items():
        write(folder / name)
    assert run(random_model, out, folder, tmp_path / 'missing.png') == 1
    head, *problems = capsys.readouterr().err.split('Problems: ')[1].splitlines()
    assert int(head) == len(problems) == len(BAD) + 1
    for name in [*BAD, 'missing.png']:
        (line,) = [line for line in problems if f'/{name}: ' in line]
        assert 'unforeseen' not in line
    summaries = [json.loads(path.read_text()) for path in out.glob('*.summary.json')]
    stems = sorted(name.rpartition('.')[0] for name in GOOD)
    assert sorted(summary['name'] for summary in summaries) == stems
    empty = [summary['name'] for summary in summaries if summary['nuclei'] <= 10]
    assert empty in ([], ['thin'])
    for stem in stems:
        assert json.loads((out / f'{stem}.geojson').read_text())['type'] == 'FeatureCollection'


def test_only_bad_inputs_are_refused(random_model, tmp_path, capsys):
    BAD['text.jpg'](tmp_path / 'text.jpg')
    assert run(random_model, tmp_path / 'out', tmp_path) == 2
    assert capsys.readouterr().err.count('text.jpg: not an image') == 1
    assert not (tmp_path / 'out').exists()


def test_an_error_that_nobody_foresaw_is_of_one_slide(random_model, tmp_path, capsys, monkeypatch):
    for name in ('a.png', 'b.png'):
        save(tmp_path / name)
    tissue_mask = planning.tissue_mask

    def stumble(slide):
        return 1 / 0 if slide.name == 'a' else tissue_mask(slide)

    monkeypatch.setattr(planning, 'tissue_mask', stumble)
    assert run(random_model, tmp_path / 'out', tmp_path) == 1
    error = capsys.readouterr().err
    assert 'a.png: unforeseen ZeroDivisionError: division by zero (NUCSEG_DEBUG=1' in error
    assert 'Traceback' not in error
    assert (tmp_path / 'out/b.summary.json').is_file()
    monkeypatch.setenv('NUCSEG_DEBUG', '1')
    assert run(random_model, tmp_path / 'out', tmp_path) == 1
    assert 'in stumble' in capsys.readouterr().err


def test_names_of_any_bytes_on_a_strict_terminal(random_model, tmp_path, monkeypatch):
    name = os.fsdecode(b'gr\xfcn')
    save(tmp_path / f'{name}.png')
    with (tmp_path / 'said').open('w', encoding='utf-8', errors='strict') as stdout:
        monkeypatch.setattr(sys, 'stdout', stdout)
        monkeypatch.setattr(sys, 'stderr', stdout)
        assert run(random_model, tmp_path / 'out', tmp_path / f'{name}.png') == 0
    features = json.loads((tmp_path / f'out/{name}.geojson').read_text())['features']
    assert len({feature['id'] for feature in features}) == len(features) > 10
    assert 'gr\\udcfcn: ' in (tmp_path / 'said').read_text()


def test_a_file_that_cannot_be_written_is_of_one_slide(random_model, tmp_path, capsys):
    for name in ('a.png', 'b.png'):
        save(tmp_path / name)
    (tmp_path / 'out/a.csv').mkdir(parents=True)
    assert run(random_model, tmp_path / 'out', tmp_path, '--overwrite') == 1
    assert 'a.csv: cannot be written (Is a directory)' in capsys.readouterr().err
    assert (tmp_path / 'out/b.csv').is_file()


def test_nothing_finished_is_an_error(random_model, tmp_path, capsys):
    """As of a disk that is full when the files are written."""
    (tmp_path / 'out/a.csv').mkdir(parents=True)
    path = save(tmp_path / 'a.png')
    assert run(random_model, tmp_path / 'out', path, '--overwrite') == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert line == f'segment: {path}: {tmp_path}/out/a.csv: cannot be written (Is a directory)'


def test_nothing_that_is_named_is_left_out_in_silence(tmp_path):
    names = ['a.bmp', 'a.png', 'a.txt', 'b.xml', 'a.csv', 'a.geojson', 'a.tissue.png', '.hidden']
    for name in names:
        (tmp_path / name).touch()
    for folder in ('more', 'a', 'slide'):  # one of the name of an image, and a slide's own
        (tmp_path / folder).mkdir()
        (tmp_path / folder / 'b.png').touch()
    (tmp_path / 'slide.mrxs').touch()
    (tmp_path / 'link.png').symlink_to('a.png')
    found = find_inputs([tmp_path, tmp_path / 'a.png'])
    assert [path.name for path in found.paths] == ['a.bmp', 'a.png', 'slide.mrxs']
    assert found.notes == [
        f'{tmp_path}: no image by its suffix, left out: a.txt, b.xml',
        f'{tmp_path}: folders in it are left out, name them too: '
        'a/ with 1 files, more/ with 1 files',
        f'{tmp_path}: named like results of a run, left out: a.tissue.png',
        f'{tmp_path}/link.png: the same file as {tmp_path}/a.png, segmented under that name',
        f'{tmp_path}/a.png: named twice, segmented once',
    ]
    assert found.problems == []


def test_one_run_at_a_time(random_model, tmp_path, capsys):
    path, out = save(tmp_path / 'a.png'), tmp_path / 'out'
    with owned_folder(out):
        assert run(random_model, out, path) == 2
        assert 'out: another run writes there, expected one at a time' in capsys.readouterr().err
    out.mkdir()
    (out / LOCK).touch()  # of a run that was killed
    (out / '.a.csv.0123abcd.partial').write_text('cut')
    victim = tmp_path / 'victim'
    victim.write_text('mine')
    (out / '.a.csv.partial').symlink_to(victim)
    assert run(random_model, out, path) == 0
    assert victim.read_text() == 'mine'
    (out / '.a.csv.partial').unlink()
    names = ['a.csv', 'a.geojson', 'a.summary.json']
    assert sorted(path.name for path in out.iterdir()) == names


def test_finished_is_what_its_run_wrote(random_model, tmp_path, capsys):
    path, out = save(tmp_path / 'a.png'), tmp_path / 'out'
    assert run(random_model, out, path) == 0
    os.utime(out / 'a.csv', (1, 1))  # copied, with the content of before
    assert run(random_model, out, path) == 0
    assert '1 of 1 finished before' in capsys.readouterr().out
    text = (out / 'a.csv').read_text()
    (out / 'a.csv').write_text(text[:100])
    assert run(random_model, out, path) == 2
    assert 'a.csv: is not what the run wrote' in capsys.readouterr().err
    for more in [], ['--format', 'geojson', 'csv', 'coco'], ['--simplify', '1']:
        assert run(random_model, out, path, *more) == 2
        assert 'a.csv: is not what the run wrote' in capsys.readouterr().err
        assert (out / 'a.csv').read_text() == text[:100]
    assert run(random_model, out, path, '--overwrite') == 0
    assert (out / 'a.csv').read_text() == text
    assert run(random_model, out, path, '--format', 'csv', 'geojson') == 0  # in another order
    assert '1 of 1 finished before' in capsys.readouterr().out
    (out / 'a.csv').unlink()
    assert run(random_model, out, path) == 0
    assert (out / 'a.csv').read_text() == text
    (out / 'a.csv').write_text('mine')
    assert run(random_model, out, path, '--format', 'geojson') == 0  # which does not touch it
    assert (out / 'a.csv').read_text() == 'mine'


@pytest.fixture
def killed(random_model, tmp_path):
    """A finished slide, and a run with other outlines that ended before its summary."""
    path, out = save(tmp_path / 'a.png'), tmp_path / 'out'
    assert run(random_model, out, path) == 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr('nucseg_mmdet.inference.results.write_json', lambda *_: 1 / 0)
        assert run(random_model, out, path, '--simplify', '1') == 2
    return path, out


def test_what_a_killed_run_has_written_is_no_edit(random_model, killed):
    """Files come before their summary, so that of an earlier run may lie beside them."""
    path, out = killed
    assert run(random_model, out, path, '--simplify', '1') == 0
    assert json.loads((out / 'a.summary.json').read_text())['output']['simplify'] == 1


def test_what_it_has_not_written_is_one(random_model, killed, capsys):
    path, out = killed
    (out / 'a.geojson').write_text('mine')
    assert run(random_model, out, path, '--simplify', '1') == 2
    assert 'a.geojson: is not what the run wrote' in capsys.readouterr().err
    assert (out / 'a.geojson').read_text() == 'mine'


def test_a_stopped_run_goes_on_over_no_file_of_others(random_model, stopped, capsys):
    path, out = stopped
    (out / 'tall.csv').write_text('mine')
    assert run(random_model, out, path) == 2
    assert 'tall.csv: is there, but of no earlier run' in capsys.readouterr().err
    assert (out / 'tall.csv').read_text() == 'mine'
    (out / 'tall.csv').unlink()
    assert run(random_model, out, path) == 0


def test_overwrite_follows_no_summary_out_of_its_folder(random_model, tmp_path):
    path, out = save(tmp_path / 'a.png'), tmp_path / 'out'
    assert run(random_model, out, path) == 0
    beside = tmp_path / 'a.csv'
    beside.write_text('mine')
    summary = out / 'a.summary.json'
    content = json.loads(summary.read_text())
    content['fingerprints']['../a.csv'] = fingerprint(beside)
    summary.write_text(json.dumps(content))
    more = ['--no-tissue-mask', '--overwrite', '--format', 'geojson']
    assert run(random_model, out, path, *more) == 0
    assert beside.read_text() == 'mine'


def test_a_link_in_the_place_of_rows_is_replaced_and_not_followed(random_model, tmp_path):
    path, out = save(tmp_path / 'a.png'), tmp_path / 'out'
    beside = tmp_path / 'beside'
    for folder in (beside, out):
        folder.mkdir()
    (beside / 'notes.txt').write_text('mine')
    (out / 'a.partial').symlink_to(beside)
    assert run(random_model, out, path, '--overwrite') == 0
    assert [one.name for one in beside.iterdir()] == ['notes.txt']
    assert sorted(one.name for one in out.iterdir()) == ['a.csv', 'a.geojson', 'a.summary.json']


@pytest.mark.parametrize('value', ['-1', 'nan', 'inf'])
def test_odd_simplification_is_refused_before_the_work(random_model, tmp_path, capsys, value):
    path, out = save(tmp_path / 'a.png'), tmp_path / 'out'
    assert run(random_model, out, path, f'--simplify={value}') == 2
    assert 'expected 0 or more' in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize(
    ('form', 'package'),
    [
        ('parquet', 'pyarrow'),
        ('spatialdata', 'pyarrow'),
        ('spatialdata', 'zarr'),
        ('ome-zarr', 'zarr'),
        ('dicom-ann', 'highdicom'),
    ],
)
def test_a_missing_package_is_told_before_the_work(
    random_model, tmp_path, capsys, monkeypatch, form, package
):
    monkeypatch.setitem(sys.modules, package, None)
    path, out = save(tmp_path / 'a.png'), tmp_path / 'out'
    assert run(random_model, out, path, '--format', 'csv', form) == 2
    assert f'needs {package}' in capsys.readouterr().err
    assert not out.exists()


@pytest.fixture
def stopped(random_model, tmp_path):
    """A slide of several rows of tiles, all of which are there and not yet joined."""
    tall = np.full((400, 90, 3), 243, np.uint8)
    tall[:80], tall[-80:] = IMAGE, IMAGE
    path, out = save(tmp_path / 'tall.png', tall), tmp_path / 'out'

    class Stop(Exception):
        pass

    def stop(*_):
        raise Stop

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr('nucseg_mmdet.inference.rows.finish', stop)
        assert run(random_model, out, path) == 2
    return path, out


@pytest.fixture
def full(monkeypatch):
    """The disk has no space left, as far as it says."""
    monkeypatch.setattr(planning.shutil, 'disk_usage', lambda _: SimpleNamespace(free=0))


@pytest.mark.usefixtures('full')
def test_a_run_that_does_not_fit_leaves_nothing(random_model, tmp_path, capsys):
    tall = np.full((400, 90, 3), 243, np.uint8)  # with glass, of which there is a picture
    tall[:80], tall[-80:] = IMAGE, IMAGE
    paths, out = [save(tmp_path / 'tall.png', tall), save(tmp_path / 'a.png')], tmp_path / 'out'
    assert run(random_model, out, *paths) == 2
    assert '0.0 B free, about' in capsys.readouterr().err
    assert not out.exists()


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob('*') if path.is_file()}


def test_rows_are_replaced_only_by_a_run_that_fits(random_model, stopped, request, capsys):
    path, out = stopped
    before = contents(out)
    assert 'tall.partial' in {path.parent.name for path in before}
    request.getfixturevalue('full')
    assert run(random_model, out, path, '--no-tissue-mask', '--overwrite') == 2
    assert '0.0 B free, about' in capsys.readouterr().err
    assert contents(out) == before


def test_seconds_are_those_of_all_runs(random_model, stopped):
    path, out = stopped
    shard = out / 'tall.partial/row_00000.npz'
    with np.load(shard) as kept:
        content = dict(kept, seconds=1000.0)
    np.savez(shard, **content)
    assert run(random_model, out, path) == 0
    assert json.loads((out / 'tall.summary.json').read_text())['seconds'] >= 1000


def test_seconds_are_those_of_the_slide(random_model, tmp_path, monkeypatch):
    """Not of those behind it, which go through the network before its results come.

    By a clock that goes on with each tile in the network.
    """
    predict, now = Segmenter._predict, 0

    def counted(segmenter, batch, tracer):
        nonlocal now
        now += len(batch)
        return predict(segmenter, batch, tracer)

    clock = SimpleNamespace(monotonic=lambda: now)
    monkeypatch.setattr(Segmenter, '_predict', counted)
    monkeypatch.setattr('nucseg_mmdet.inference.segmenter.time', clock)
    monkeypatch.setattr('nucseg_mmdet.inference.rows.time', clock)
    paths = [save(tmp_path / f'{name}.png', IMAGE[:80, :80]) for name in 'abc']
    assert run(random_model, tmp_path / 'out', *paths) == 0
    summaries = sorted((tmp_path / 'out').glob('*.summary.json'))
    assert [json.loads(path.read_text())['seconds'] for path in summaries] == [1, 1, 1]


@pytest.mark.parametrize(('names', 'status'), [('abcd', 1), ('a', 2)])
def test_a_slide_that_is_gone_holds_back_no_other(
    random_model, tmp_path, monkeypatch, capsys, names, status
):
    open_planned, segment_rows, order = rows.open_planned, rows.segment_rows, []

    def opened(plan, settings):
        if plan.path.stem == 'a':
            raise FileNotFoundError(2, 'gone', 'a.png')
        return open_planned(plan, settings)

    def logged(*work):
        for done in segment_rows(*work):
            order.append((type(done).__name__, done.folder.stem))
            yield done

    monkeypatch.setattr(rows, 'open_planned', opened)
    monkeypatch.setattr(rows, 'segment_rows', logged)
    paths = [save(tmp_path / f'{name}.png', IMAGE[:80, :80]) for name in names]
    assert run(random_model, tmp_path / 'out', *paths) == status
    assert order[0] == ('RowsFailed', 'a')  # those behind it wait for it
    assert sorted(order[1:]) == [('RowDone', name) for name in names[1:]]
    assert 'a.png: gone' in capsys.readouterr().err
    assert [path.stem for path in sorted((tmp_path / 'out').glob('*.csv'))] == list(names[1:])


def test_row_of_another_place_is_not_joined(random_model, stopped, tmp_path, capsys):
    path, out = stopped
    rows = sorted((out / 'tall.partial').glob('row_*'))
    own = rows[1].read_bytes()
    rows[1].write_bytes(rows[0].read_bytes())
    assert run(random_model, out, path, save(tmp_path / 'a.png')) == 1
    assert 'row_00001.npz: is the row of tiles 0 of ' in capsys.readouterr().err
    assert not (out / 'tall.csv').exists()
    assert (out / 'a.csv').exists()
    rows[1].write_bytes(own)
    assert run(random_model, out, path) == 0


def test_folder_in_the_place_of_a_row(random_model, stopped, tmp_path, capsys):
    path, out = stopped
    row = out / 'tall.partial/row_00001.npz'
    row.unlink()
    row.mkdir()
    assert run(random_model, out, path, save(tmp_path / 'a.png')) == 1
    assert 'row_00001.npz: is no file, expected a row of tiles' in capsys.readouterr().err
    assert (out / 'a.csv').exists()
    row.rmdir()
    assert run(random_model, out, path) == 0


def write_dicom(path, series, syntax=ExplicitVRLittleEndian):
    """The header of a slide's file, with another series that it refers to before its own."""
    data = Dataset()
    data.SOPClassUID, data.SOPInstanceUID = '1.2.840.10008.5.1.4.1.1.77.1.6', f'1.2.3.{series}'
    reference = Dataset()
    reference.SeriesInstanceUID = '1.2.9'
    data.ReferencedSeriesSequence = [reference]
    data.StudyInstanceUID, data.SeriesInstanceUID = '1.2.3', f'1.2.3.{series}'
    data.file_meta = FileMetaDataset()
    data.file_meta.TransferSyntaxUID = syntax
    data.save_as(path, enforce_file_format=True)


def test_each_series_of_a_dicom_folder_is_a_slide(tmp_path):
    for name, series in (('a', 1), ('b', 20), ('c', 1), ('d', 20), ('e', 3)):
        write_dicom(tmp_path / f'{name}.dcm', series)
    found = find_inputs([tmp_path])
    assert [path.name for path in found.paths] == ['a.dcm', 'b.dcm', 'e.dcm']
    assert found.notes == [
        f'{tmp_path}: 5 DICOM files taken for 3 slides, one a series: a.dcm, b.dcm, e.dcm'
    ]
    (tmp_path / 'f.dcm').write_text('no DICOM')  # is refused when it is opened
    assert [path.name for path in find_inputs([tmp_path]).paths][-1] == 'f.dcm'


def test_dicom_files_whose_series_cannot_be_told_are_slides_of_their_own(tmp_path):
    for name, series in (('a', 1), ('b', 2)):
        write_dicom(tmp_path / f'{name}.dcm', series, ImplicitVRLittleEndian)
    (tmp_path / 'c.dcm').write_text('no DICOM')
    found = find_inputs([tmp_path])
    assert [path.name for path in found.paths] == ['a.dcm', 'b.dcm', 'c.dcm']
    assert found.notes == []
