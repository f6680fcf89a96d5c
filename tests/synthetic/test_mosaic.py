"""Made-up slides: what lies where, what OpenSlide makes of them, and the command line."""

import subprocess
import sys

import cv2
import numpy as np
import openslide
import pytest
from PIL import Image

from nucseg_mmdet.slides.open import open_slide
from nucseg_mmdet.slides.openslide import ScannerSlide
from nucseg_mmdet.synthetic import slides
from nucseg_mmdet.synthetic.slides import GLASS, Mosaic

WIDTH, HEIGHT, GAP = 1500, 1100, 30


@pytest.fixture(scope='module')
def images():
    """Three images whose color tells them apart; 100 px are used of each."""
    sizes = [(100, 130), (120, 100), (100, 100)]
    colors = [(200, 160, 160), (160, 200, 160), (160, 160, 200)]
    return [np.full((*size, 3), rgb, np.uint8) for size, rgb in zip(sizes, colors, strict=True)]


@pytest.fixture(scope='module')
def slide(images):
    return Mosaic(images, WIDTH, HEIGHT, GAP, empty=0.3, seed=4)


def test_pieces_lie_where_they_are_said_to(slide, images):
    assert slide.side == 100
    assert slide.pieces.shape == (9, 12)  # 1100 / 130, 1500 / 130
    assert sorted(np.unique(slide.pieces)) == [-1, 0, 1, 2]
    whole = slide.render(0, 0, WIDTH, HEIGHT)
    covered = np.zeros((HEIGHT, WIDTH), bool)
    for row, column in np.argwhere(slide.pieces >= 0):
        place = np.s_[row * 130 : row * 130 + 100, column * 130 : column * 130 + 100]
        assert (whole[place] == images[slide.pieces[row, column]][0, 0]).all()
        covered[place] = True
    assert (whole[~covered] == GLASS).all()
    part = slide.render(333, 222, 444, 555)
    np.testing.assert_array_equal(part, whole[222 : 222 + 555, 333 : 333 + 444])


def test_same_seed_same_file_other_seed_another(tmp_path, images):
    for name, seed in [('a', 1), ('b', 1), ('c', 2)]:
        Mosaic(images, 600, 600, seed=seed).write(tmp_path / name)
    first = (tmp_path / 'a').read_bytes()
    assert (tmp_path / 'b').read_bytes() == first
    assert (tmp_path / 'c').read_bytes() != first


def test_openslide_opens_it(tmp_path, slide):
    path = tmp_path / 'slide.tif'
    slide.write(path, mpp=0.5)
    handle = openslide.OpenSlide(path)
    assert handle.level_dimensions == ((WIDTH, HEIGHT), (375, 275))
    assert handle.properties['openslide.vendor'] == 'generic-tiff'
    assert float(handle.properties['openslide.mpp-x']) == pytest.approx(0.5)
    handle.close()
    expected = slide.render(0, 0, WIDTH, HEIGHT).astype(float)
    # Both readers show the pixels, but for JPEG, at their places.
    with open_slide(path) as ours, ScannerSlide(path, None) as theirs:
        for reader in (ours, theirs):
            assert (reader.width, reader.height, reader.mpp) == (WIDTH, HEIGHT, 0.5)
            assert np.abs(reader.read(0, 0, WIDTH, HEIGHT) - expected).mean() < 2
            small = cv2.resize(expected, (375, 275), interpolation=cv2.INTER_AREA)
            assert np.abs(reader.read(0, 0, WIDTH, HEIGHT, 4) - small).mean() < 2
    assert [file.name for file in tmp_path.iterdir()] == ['slide.tif']


def test_command(tmp_path, images):
    for number, image in enumerate(images):
        Image.fromarray(image).save(tmp_path / f'{number}.png')
    out = tmp_path / 'slide.tif'
    command = [sys.executable, '-m', 'nucseg_mmdet.synthetic.slides', tmp_path, '--out', out]
    command += ['--size', '700', '--height', '300', '--gap', '20', '--mpp', '0.5', '--seed', '3']
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert result.stdout == f'{out}: 700 x 300 px, 18 pieces\n'  # 6 x 3 places of 120 px
    with open_slide(out) as slide:
        assert (slide.width, slide.height, slide.mpp) == (700, 300, 0.5)
        found = slide.read(0, 0, 700, 300)
    expected = Mosaic(images, 700, 300, 20, seed=3).render(0, 0, 700, 300)
    assert np.abs(found - expected.astype(float)).mean() < 4


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (['nothing.png'], 'nothing.png: No such file'),
        (['.'], '.: no images, expected .png'),
        (['a.png', '--size', '0'], 'sizes must be positive'),
        (['a.png', '--empty', '2'], '--empty 0 to 1'),
        (['a.png', '--quality', '0'], '--quality 0: expected 1 to 100'),
        (['a.png', '--mpp', '500'], '500.0 microns per pixel given'),
        (['a.png', '--out', 'a.png'], 'a.png: is there already'),
        (['a.png', '--out', 'nowhere/slide.tif'], 'nowhere/slide.tif: cannot be written'),
    ],
)
def test_wrong_options_end_in_one_line(tmp_path, monkeypatch, capsys, images, options, message):
    monkeypatch.chdir(tmp_path)
    if options[0] == 'a.png':
        Image.fromarray(images[0]).save('a.png')
    before = sorted(tmp_path.iterdir())
    assert slides.main(['--out', 'slide.tif', '--size', '300', *options]) == 2
    error = capsys.readouterr().err
    assert error.startswith('slides: ')
    assert message in error
    assert error.count('\n') == 1
    assert sorted(tmp_path.iterdir()) == before
