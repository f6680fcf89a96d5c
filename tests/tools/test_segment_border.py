"""What segment says of its command line and its inputs, as people give them."""

import json
from types import SimpleNamespace

import pytest
import tifffile
from PIL import Image

from nucseg_mmdet.commands import segment
from nucseg_mmdet.inference import inputs
from nucseg_mmdet.synthetic.fields import synthesize

IMAGE = synthesize(4, 80, 90, 20)[0]


def run(model, out, *arguments):
    config, checkpoint = model
    options = ['--config', config, '--checkpoint', checkpoint, '--score-thr', 0.0]
    options += ['--tile', 80, '--overlap', 30, '--device', 'cpu', '--backend', 'mmdet']
    return segment.main([str(item) for item in [*arguments, '--out', out, *options]])


def summary(out, name):
    return json.loads((out / f'{name}.summary.json').read_text())


@pytest.fixture
def path(tmp_path):
    """An image of 90 x 80 px."""
    Image.fromarray(IMAGE).save(tmp_path / 'a.png')
    return tmp_path / 'a.png'


def test_a_given_size_that_the_file_contradicts_is_told(random_model, tmp_path, capsys):
    path, out = tmp_path / 'a.tif', tmp_path / 'out'
    resolution = dict(resolution=(40_000, 40_000), resolutionunit='CENTIMETER')
    tifffile.imwrite(path, IMAGE, photometric='rgb', **resolution)
    assert run(random_model, out, path, '--mpp', 0.5) == 0
    note = f'{path}: the file says 0.25 microns per pixel (TIFF resolution tags), --mpp 0.5 is used'
    assert note in capsys.readouterr().err.splitlines()
    assert summary(out, 'a')['notes'] == [note]


@pytest.mark.parametrize(
    ('region', 'used', 'shape'),
    [('70,60,100,100', '70,60,20,20', (20, 20)), ('-10,-20,30,50', '0,0,20,30', (30, 20))],
)
def test_a_region_that_reaches_beyond_the_image_is_told(
    random_model, path, tmp_path, capsys, region, used, shape
):
    out = tmp_path / 'out'
    assert run(random_model, out, path, '--roi', region, '--format', 'label') == 0
    note = f'{path}: region {region} reaches beyond the slide, {used} is used'
    assert note in capsys.readouterr().err.splitlines()
    assert summary(out, 'a')['notes'] == [note]
    assert summary(out, 'a')['identity']['region'] == [int(side) for side in used.split(',')]
    assert tifffile.imread(out / 'a.labels.tif').shape == shape


def test_a_region_on_the_image_needs_no_note(random_model, path, tmp_path):
    assert run(random_model, tmp_path / 'out', path, '--roi', '0,0,90,80') == 0
    assert summary(tmp_path / 'out', 'a')['notes'] == []


def test_a_folder_of_folders_alone_says_so(random_model, tmp_path, capsys):
    (tmp_path / 'in/more').mkdir(parents=True)
    Image.fromarray(IMAGE).save(tmp_path / 'in/more/a.png')
    assert run(random_model, tmp_path / 'out', tmp_path / 'in') == 2
    assert capsys.readouterr().err.splitlines() == [
        f'{tmp_path}/in: folders in it are left out, name them too: more/ with 1 files',
        f'segment: {tmp_path}/in: no image or slide in it',
    ]


def test_an_image_that_is_named_twice(path):
    found = inputs.find_inputs([path, path])
    assert found.paths == [path]
    assert found.notes == [f'{path}: named twice, segmented once']


def test_names_as_long_as_a_file_system_takes(random_model, tmp_path):
    name, out = 'x' * 242, tmp_path / 'out'  # with .summary.json, the longest end, 255 bytes
    Image.fromarray(IMAGE).save(tmp_path / f'{name}.png')
    assert run(random_model, out, tmp_path / f'{name}.png', '--format', 'csv', 'label') == 0
    assert (out / f'{name}.labels.tif').is_file()


def test_longer_names_are_refused_before_the_work(random_model, path, tmp_path, capsys):
    long, out = tmp_path / f'{"é" * 122}.png', tmp_path / 'out'  # 244 bytes without its suffix
    Image.fromarray(IMAGE).save(long)
    line = 'the name of its .summary.json would have 257 bytes, expected at most 255'
    assert run(random_model, out, long) == 2
    assert line in capsys.readouterr().err
    assert not out.exists()
    assert run(random_model, out, long, path) == 1
    assert line in capsys.readouterr().err
    assert {item.name for item in out.iterdir()} == {'a.csv', 'a.geojson', 'a.summary.json'}


def test_one_nucleus_is_no_nuclei(capsys):
    def run(progress, _):
        progress(1, 1)

    assert segment.work(SimpleNamespace(num_tiles=1, run=run))
    assert '1 nucleus]' in capsys.readouterr().err
