"""Images and slides as files: formats, regions at any scale, damage, refusals."""

import struct
import tracemalloc
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import openslide
import pytest
import tifffile
from PIL import Image

from nucseg_mmdet.slides import probe
from nucseg_mmdet.slides.base import ArraySlide, RegionError
from nucseg_mmdet.slides.open import open_slide
from nucseg_mmdet.slides.openslide import ScannerSlide
from nucseg_mmdet.slides.tiff import TiffSlide
from nucseg_mmdet.utils.errors import UserError

WIDTH, HEIGHT = 330, 270
APERIO = 'Aperio Image Library v1.0\r\n{0}x{1} [0,0 {0}x{1}] JPEG/RGB Q=90|AppMag = 40|MPP = 0.25'
RED = (200, 30, 30)
TILED = dict(tile=(64, 64), photometric='rgb')
STRIPED = dict(rowsperstrip=16, photometric='rgb')


def blotches(height, width):
    """Fine gray blotches on coarse colored ones: what JPEG keeps well."""
    rng = np.random.default_rng(0)
    image = 150.0
    for size, channels in [(3, 1), (8, 1), (40, 3)]:
        noise = rng.normal(size=(height // size + 2, width // size + 2, channels))
        big = cv2.resize(noise, None, fx=size, fy=size, interpolation=cv2.INTER_CUBIC)
        image = image + 25 * big.reshape(*big.shape[:2], channels)[:height, :width]
    return np.clip(image, 0, 255).astype(np.uint8)


@pytest.fixture(scope='module')
def image():
    return blotches(HEIGHT, WIDTH)


def whole(slide):
    return slide.read(0, 0, slide.width, slide.height)


def write_pyramid(path, images, description=None, subifds=False, **options):
    """Write levels as a slide scanner does: tiles of JPEG, one page a level or SubIFDs."""
    options = dict(tile=(64, 64), photometric='rgb', compression='jpeg', metadata=None) | options
    with tifffile.TiffWriter(path) as tiff:
        for number, level in enumerate(images):
            tiff.write(
                level,
                description=description,
                subfiletype=int(number > 0),
                subifds=len(images) - 1 if subifds and number == 0 else None,
                **options,
            )
    return path


def write_svs(path, images, **options):
    height, width = images[0].shape[:2]
    return write_pyramid(path, images, APERIO.format(width, height), **options)


def test_svs_with_a_property_of_no_value(tmp_path):
    """OpenSlide lists what its description names without "=", and has no value for it."""
    image = np.full((300, 400, 3), 200, np.uint8)
    description = APERIO.format(400, 300).replace('MPP =', 'Left|MPP =')
    path = write_pyramid(tmp_path / 'a.svs', [image], description)
    assert 'aperio.Left' in list(openslide.OpenSlide(path).properties)
    with open_slide(path) as slide:
        assert isinstance(slide, ScannerSlide)
        assert slide.mpp == pytest.approx(0.25)


def shrunk(image, factor):
    """A lower level, as scanners make it: what does not fill a pixel is left out."""
    height, width = (size // factor * factor for size in image.shape[:2])
    size = width // factor, height // factor
    return cv2.resize(image[:height, :width], size, interpolation=cv2.INTER_AREA)


def overwrite(path, offset, data):
    with path.open('r+b') as file:
        file.seek(offset)
        file.write(data)


def break_tile(path, number):
    """Overwrite the start of a tile of the full level."""
    with tifffile.TiffFile(path) as tiff:
        offset = tiff.pages[0].dataoffsets[number]
    overwrite(path, offset, bytes(40))


def test_another_working_folder(tmp_path, image, monkeypatch):
    """The process that asks OpenSlide stays where it began, and handles are opened later."""
    for name in 'ab':
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        write_svs(Path(f'{name}.svs'), [image])
        with open_slide(f'{name}.svs') as slide:
            assert isinstance(slide, ScannerSlide)
            monkeypatch.chdir(tmp_path)
            with slide._handle(), slide._handle() as another:  # opened now
                assert another.dimensions == (WIDTH, HEIGHT)


def test_modules_of_the_working_folder_are_not_run(tmp_path, image, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(probe, '_child', None)  # so that one begins here
    path = write_svs(Path('a.svs'), [image])
    for name in 'json', 'openslide', 'nucseg_mmdet':
        Path(f'{name}.py').write_text(f"open({str(tmp_path / 'run')!r}, 'w')")
    with open_slide(path) as slide:
        assert isinstance(slide, ScannerSlide)
    assert not (tmp_path / 'run').exists()
    probe._child.end()


@pytest.mark.parametrize(
    'options',
    [
        STRIPED,
        dict(STRIPED, compression='lzw', predictor=True),
        dict(STRIPED, compression='zlib', bigtiff=True),
        dict(STRIPED, byteorder='>'),
        dict(STRIPED, planarconfig='separate'),
        dict(STRIPED, planarconfig='separate', compression='lzw'),
        TILED,
        dict(TILED, compression='lzw'),
        dict(TILED, compression='jpeg2000', compressionargs=dict(reversible=True)),
        dict(TILED, planarconfig='separate', compression='zlib'),
        dict(TILED, bigtiff=True, byteorder='>'),
    ],
    ids=lambda options: ' '.join(map(str, options.values())),
)
def test_lossless_tiff(tmp_path, image, options):
    path = tmp_path / 'image.tif'
    planar = options.get('planarconfig') == 'separate'
    tifffile.imwrite(path, np.moveaxis(image, 2, 0) if planar else image, **options)
    with open_slide(path) as slide:
        assert (slide.name, slide.width, slide.height) == ('image', WIDTH, HEIGHT)
        assert (slide.pixel_size.assumed, slide.notes) == (True, [])
        np.testing.assert_array_equal(whole(slide), image)
        np.testing.assert_array_equal(slide.read(50, 60, 100, 80), image[60:140, 50:150])


@pytest.mark.parametrize('storage', [TILED, STRIPED])
def test_jpeg_tiff(tmp_path, image, storage):
    path = tmp_path / 'image.tif'
    tifffile.imwrite(path, image, compression='jpeg', **storage)
    with open_slide(path) as slide:
        np.testing.assert_array_equal(whole(slide), tifffile.imread(path))
        # JPEG of quality 95 with colors at half the resolution.
        assert np.abs(whole(slide) - image.astype(float)).mean() < 4


@pytest.mark.parametrize('planar', [False, True])
def test_ome_tiff(tmp_path, image, planar):
    path = tmp_path / 'image.ome.tif'
    sizes = dict(PhysicalSizeX=0.5, PhysicalSizeY=0.5, PhysicalSizeXUnit='µm')
    if planar:  # three pages of one channel
        data, options = np.moveaxis(image, 2, 0), dict(photometric='minisblack')
    else:
        data, options = image, dict(photometric='rgb')
    metadata = dict(axes='CYX' if planar else 'YXS', **sizes)
    tifffile.imwrite(path, data, metadata=metadata, tile=(64, 64), compression='zlib', **options)
    with open_slide(path) as slide:
        assert (slide.name, slide.pixel_size[:3]) == ('image', (0.5, 'OME-XML', False))
        np.testing.assert_array_equal(whole(slide), image)


def test_gray_images_are_repeated(tmp_path, image):
    gray = image[..., 1]
    tifffile.imwrite(tmp_path / 'black.tif', gray, compression='lzw')
    tifffile.imwrite(tmp_path / 'white.tif', 255 - gray, photometric='miniswhite')
    Image.fromarray(gray).save(tmp_path / 'gray.png')
    for name in ('black.tif', 'white.tif', 'gray.png'):
        with open_slide(tmp_path / name) as slide:
            assert slide.notes == ['one channel, taken as RGB']
            np.testing.assert_array_equal(whole(slide), np.repeat(gray[..., None], 3, axis=2))


def test_transparent_parts_are_laid_over_white(tmp_path):
    # Red, half covering: (200 + 255) / 2; hidden blue: white; opaque green.
    pixels = np.array([[[200, 0, 0, 128], [0, 0, 200, 0], [0, 200, 0, 255]]], np.uint8)
    expected = np.array([[[227, 127, 127], [255, 255, 255], [0, 200, 0]]])
    Image.fromarray(pixels).save(tmp_path / 'a.png')
    tifffile.imwrite(tmp_path / 'b.tif', pixels, photometric='rgb', extrasamples=['unassalpha'])
    multiplied = pixels.copy()
    multiplied[0, :, :3] = [[100, 0, 0], [0, 0, 0], [0, 200, 0]]
    tifffile.imwrite(tmp_path / 'c.tif', multiplied, photometric='rgb', extrasamples=['assocalpha'])
    # A TIFF is not read as a whole to see whether any part is transparent.
    channel = 'has an alpha channel, what is transparent is laid over white'
    notes = {'a.png': 'transparent parts are laid over white', 'b.tif': channel, 'c.tif': channel}
    for name, note in notes.items():
        with open_slide(tmp_path / name) as slide:
            assert slide.notes == [note]
            np.testing.assert_allclose(whole(slide), expected, atol=1)  # rounding of 128 / 255


def test_png_and_jpeg(tmp_path, image):
    Image.fromarray(image).save(tmp_path / 'a.png', dpi=(101_600, 101_600))
    Image.fromarray(image).save(tmp_path / 'b.jpg', quality=95, dpi=(72, 72))
    Image.fromarray(image).quantize(16).save(tmp_path / 'c.png')
    with open_slide(tmp_path / 'a.png') as slide:
        assert slide.mpp == pytest.approx(0.25, rel=1e-4)  # pHYs holds whole px per meter
        np.testing.assert_array_equal(whole(slide), image)
    with open_slide(tmp_path / 'b.jpg') as slide:
        assert slide.pixel_size.assumed
        assert '72 dpi' in slide.pixel_size.source
        np.testing.assert_array_equal(whole(slide), np.asarray(Image.open(tmp_path / 'b.jpg')))
    with open_slide(tmp_path / 'c.png') as slide:
        paletted = Image.open(tmp_path / 'c.png').convert('RGB')
        np.testing.assert_array_equal(whole(slide), np.asarray(paletted))


def test_array():
    slide = ArraySlide(np.full((20, 30, 3), 7, np.uint8), 0.5)
    assert (slide.name, slide.width, slide.height, slide.mpp) == ('image', 30, 20, 0.5)
    assert (slide.read(5, 5, 4, 2) == 7).all()
    for wrong in (np.zeros((20, 30), np.uint8), np.zeros((20, 30, 3)), np.zeros((0, 3, 3), 'u1')):
        with pytest.raises(UserError, match='expected uint8'):
            ArraySlide(wrong)


@pytest.fixture(scope='module', params=['svs', 'SubIFDs', 'pages', 'png', 'strips'])
def slide(request, tmp_path_factory):
    """Of 1203 x 905 px: no level's size is a whole fraction of it."""
    image = blotches(905, 1203)
    folder = tmp_path_factory.mktemp('slide')
    levels = [image, shrunk(image, 4), shrunk(image, 16)]
    if request.param == 'svs':
        path = write_svs(folder / 'a.svs', levels)
    elif request.param == 'SubIFDs':
        path = write_pyramid(folder / 'a.ome.tif', levels, subifds=True, compression='lzw')
    elif request.param == 'pages':
        path = write_pyramid(folder / 'a.tif', levels)
    elif request.param == 'png':
        path = folder / 'a.png'
        Image.fromarray(image).save(path)
    else:
        path = folder / 'b.tif'
        tifffile.imwrite(path, image, compression='lzw', **STRIPED)
    with open_slide(path) as slide:
        assert isinstance(slide, ScannerSlide) == (request.param == 'svs')
        assert len(slide.levels) == (1 if request.param in ('png', 'strips') else 3)
        yield slide


@pytest.mark.parametrize('scale', [0.6, 1, 1.6, 2, 4, 5.5, 16, 23])
def test_pieces_are_the_whole(slide, scale):
    rng = np.random.default_rng(0)
    expected = slide.read(0, 0, slide.width, slide.height, scale)
    rows, columns = expected.shape[:2]
    assert (rows, columns) == (round(slide.height / scale), round(slide.width / scale))
    for _ in range(6):
        left, top = rng.integers(columns), rng.integers(rows)
        right, bottom = rng.integers(left, columns) + 1, rng.integers(top, rows) + 1
        part = slide.read(*(scale * n for n in (left, top, right - left, bottom - top)), scale)
        np.testing.assert_array_equal(part, expected[top:bottom, left:right])


@pytest.mark.parametrize('scale', [4, 16])
def test_levels_show_what_the_full_image_shows(slide, request, scale):
    full = whole(slide)[: 905 // scale * scale, : 1203 // scale * scale]
    expected = full.reshape(905 // scale, scale, 1203 // scale, scale, 3).mean(axis=(1, 3))
    found = slide.read(0, 0, full.shape[1], full.shape[0], scale)
    off = np.abs(found - expected)
    if request.node.callspec.params['slide'] in ('svs', 'pages'):  # JPEG
        # Much closer than if it were off by a pixel.
        for axis in (0, 1):
            assert off.mean() < np.abs(np.roll(found, 1, axis) - expected).mean() / 2
    else:
        assert off.max() <= 0.5  # rounding to gray levels


def test_beyond_the_border_is_white(slide):
    part = slide.read(-10, 895, 1300, 30)
    assert part.shape == (30, 1300, 3)
    assert (part[:, :10] == 255).all()
    assert (part[10:] == 255).all()
    assert (part[:, 1213:] == 255).all()
    np.testing.assert_array_equal(part[:10, 10:1213], slide.read(0, 895, 1203, 10))
    assert (slide.read(5000, 5000, 20, 20, 2) == 255).all()


@pytest.mark.parametrize(('scale', 'width'), [(0, 10), (-1, 10), (1, -10)])
def test_wrong_regions_are_refused(slide, scale, width):
    with pytest.raises(ValueError, match='expected positive'):
        slide.read(0, 0, width, 10, scale)


@pytest.mark.parametrize('scanner', [True, False])
def test_nearest_level_that_is_fine_enough(tmp_path, scanner):
    # As much alike as levels of one slide are, so that none is taken for another picture.
    colors = fine, middle, coarse = (200, 60, 60), (200, 69, 60), (200, 78, 60)
    sizes = [(640, 800), (160, 200), (40, 50)]
    levels = [np.full((*size, 3), rgb, np.uint8) for size, rgb in zip(sizes, colors, strict=True)]
    write = write_svs if scanner else write_pyramid
    path = write(tmp_path / 'a.tif', levels, compression=None if not scanner else 'jpeg')
    with open_slide(path) as slide:
        assert [level.factors for level in slide.levels] == [(1, 1), (4, 4), (16, 16)]
        for scale, rgb in zip(
            (0.5, 1, 3.9, 4, 15, 16), (fine, fine, fine, middle, middle, coarse), strict=True
        ):
            found = slide.read(100, 100, 320, 320, scale)
            np.testing.assert_allclose(found, np.broadcast_to(rgb, found.shape), atol=3)  # JPEG


def test_tiles_left_out_are_background(tmp_path, image):
    for name, description in [('a.svs', APERIO.format(WIDTH, HEIGHT)), ('b.tif', None)]:
        path = write_pyramid(tmp_path / name, [image], description)
        with tifffile.TiffFile(path, mode='r+') as tiff:
            counts = list(tiff.pages[0].databytecounts)
            counts[1] = 0
            tiff.pages[0].tags['TileByteCounts'].overwrite(counts)
        with open_slide(path) as slide:
            found = slide.read(0, 0, 192, 64)
            assert (found[:, 64:128] == 255).all()
            assert found[:, :64].mean() < 240


@pytest.mark.parametrize('kind', [ScannerSlide, TiffSlide])
def test_damaged_tile(tmp_path, image, kind):
    """Its region alone cannot be read, also while other threads read."""
    path = tmp_path / 'a.tif'
    write = write_svs if kind is ScannerSlide else write_pyramid
    write(path, [image])
    with open_slide(path) as slide:
        good = whole(slide)
    break_tile(path, 7)  # of 6 tiles a row: x 64 to 128, y 64 to 128
    boxes = [(x, y, 60, 60) for y in range(2, 200, 64) for x in range(2, 250, 64)] * 4

    def read(box):
        try:
            return slide.read(*box)
        except RegionError as error:
            return str(error)

    with open_slide(path) as slide:
        assert isinstance(slide, kind)
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(read, boxes))
        for (x, y, width, height), part in zip(boxes, found, strict=True):
            if (x, y) == (66, 66):
                assert part.startswith(f'{path}: x 66, y 66, 60 x 60 px of level 0 cannot be read')
                assert '\n' not in part
            else:
                np.testing.assert_array_equal(part, good[y : y + height, x : x + width])
        with pytest.raises(RegionError):
            whole(slide)


def test_threads_read_what_one_reads(slide):
    rng = np.random.default_rng(2)
    boxes = [(*rng.integers(0, 700, 2), *rng.integers(50, 300, 2), 1.6) for _ in range(40)]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda box: slide.read(*box), boxes))
    for box, part in zip(boxes, found, strict=True):
        np.testing.assert_array_equal(part, slide.read(*box))


@pytest.mark.parametrize(
    ('tags', 'mpp'),
    [
        (dict(resolution=(40_000, 40_000), resolutionunit='CENTIMETER'), 0.25),
        (dict(resolution=(50_800, 50_800), resolutionunit='INCH'), 0.5),
        (dict(resolution=(96, 96), resolutionunit='INCH'), None),
        (dict(resolution=(4, 4), imagej=True, metadata=dict(unit='um')), 0.25),
        ({}, None),
    ],
)
def test_pixel_size_of_tiff(tmp_path, image, tags, mpp):
    path = tmp_path / 'a.tif'
    tifffile.imwrite(path, image, photometric='rgb', **tags)
    with open_slide(path) as slide:
        assert slide.mpp == pytest.approx(mpp or 0.25)
        assert slide.pixel_size.assumed == (mpp is None)
    with open_slide(path, 0.4) as slide:
        assert slide.pixel_size[:3] == (0.4, 'as given', False)
    with pytest.raises(UserError, match=r'expected 0\.05 to 20'):
        open_slide(path, 400)


def test_pixel_size_through_openslide(tmp_path, image):
    path = write_svs(tmp_path / 'a.svs', [image])
    with open_slide(path) as slide:
        assert slide.pixel_size[:3] == (0.25, 'properties of the slide', False)
        assert slide.bounds is None
    with open_slide(path, 0.5) as slide:
        assert slide.mpp == 0.5


def png_of(width, height):
    """A valid head of a PNG file that claims a size."""
    head = b'IHDR' + struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0)
    data = b'IDAT' + zlib.compress(bytes(10))
    chunks = [
        struct.pack('>I', len(c) - 4) + c + struct.pack('>I', zlib.crc32(c)) for c in (head, data)
    ]
    return b'\x89PNG\r\n\x1a\n' + b''.join(chunks)


def write_wrong(folder, kind, image):
    """Write a file that must be refused."""
    path = folder / f'{kind.split()[0]}.tif'
    if kind == '16-bit tiff':
        tifffile.imwrite(path, image.astype(np.uint16) * 16, photometric='rgb')
    elif kind == '16-bit png':
        Image.fromarray(image[..., 0].astype(np.uint16) * 256).save(path, format='PNG')
    elif kind == 'bilevel':
        tifffile.imwrite(path, image[..., 0] > 128)
    elif kind == 'stack':
        tifffile.imwrite(path, np.stack([image] * 2), photometric='rgb')
    elif kind == 'channels':
        tifffile.imwrite(path, np.stack([image[..., 0]] * 5), photometric='minisblack')
    elif kind == 'entities':
        xml = '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b "c">]><OME>&b;</OME>'
        tifffile.imwrite(path, image, photometric='rgb', description=xml, metadata=None)
    elif kind == 'huge png':
        path.write_bytes(png_of(30_000, 30_000))
    elif kind == 'huge strip':
        tifffile.imwrite(path, image, photometric='rgb', compression='zlib', rowsperstrip=HEIGHT)
        with tifffile.TiffFile(path, mode='r+') as tiff:
            for tag in ('ImageWidth', 'ImageLength', 'RowsPerStrip'):
                tiff.pages[0].tags[tag].overwrite(30_000)
    elif kind == 'label':
        path = folder / 'slide.mrxs'
        Image.fromarray(image).save(path, format='JPEG')
    elif kind == 'text':
        path.write_text('not an image')
    elif kind == 'empty':
        path.touch()
    elif kind == 'folder':
        path.mkdir()
    return path


@pytest.mark.parametrize(
    ('kind', 'message'),
    [
        ('16-bit tiff', 'uint16 values of 16 bits, expected uint8'),
        ('16-bit png', '16 bits a channel, expected 8'),
        ('bilevel', 'bool values of 1 bits, expected uint8'),
        ('stack', '2 x 270 x 330 x 3 values'),
        ('channels', '5 x 270 x 330 values'),
        ('entities', 'its XML defines entities'),
        ('huge png', '30000 x 30000 px, a PNG may have 400 million'),
        ('huge strip', '30000 x 30000 px in one piece'),
        ('label', 'no MIRAX slide, expected a folder slide beside it'),
        ('text', 'not an image, expected PNG'),
        ('empty', 'not an image, expected PNG'),
        ('folder', 'is a folder'),
        ('missing', 'No such file or directory'),
    ],
)
def test_wrong_files_are_refused_in_one_line(tmp_path, image, kind, message):
    path = write_wrong(tmp_path, kind, image)
    with pytest.raises(UserError) as error:
        open_slide(path)
    assert str(error.value).startswith(f'{path}: {message}')
    assert '\n' not in str(error.value)


@pytest.mark.parametrize('name', ['a.png', 'a.jpg', 'raw.tif', 'lzw.tif', 'a.ome.tif', 'a.svs'])
@pytest.mark.parametrize('share', [0.1, 0.5, 0.97])
def test_files_that_are_cut_off(tmp_path, image, name, share):
    path = tmp_path / name
    if name == 'a.svs':
        write_svs(path, [image])
    elif name.endswith('tif'):
        tifffile.imwrite(path, image, compression='lzw' if 'lzw' in name else None, **STRIPED)
    else:
        Image.fromarray(image).save(path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(UserError) as error:
        open_slide(path)
    assert str(error.value).startswith(f'{path}: ')
    assert '\n' not in str(error.value)


def peak_bytes(task):
    tracemalloc.start()
    try:
        task()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_only_what_a_region_touches_is_read(tmp_path):
    """20,000 x 20,000 px are 1.2 GB; the file is sparse and takes no room on the disk."""
    path = tmp_path / 'a.tif'
    pixels = tifffile.memmap(path, shape=(20_000, 20_000, 3), dtype=np.uint8, photometric='rgb')
    pixels[12_000:12_100, 15_000:15_100] = RED
    pixels.flush()
    del pixels
    with open_slide(path) as slide:
        part = slide.read(14_950, 11_950, 200, 200)
        assert (part[50:150, 50:150] == RED).all()
        assert part.sum() == 100 * 100 * sum(RED)
        assert peak_bytes(lambda: slide.read(14_950, 11_950, 200, 200)) < 2_000_000


def test_low_power_of_a_large_image_without_levels_takes_little_memory(tmp_path):
    """8,000 x 8,000 px are 192 MB; a band of it is read at a time."""
    path = tmp_path / 'a.tif'
    shape = 8000, 8000, 3
    tifffile.memmap(path, shape=shape, dtype=np.uint8, photometric='rgb').flush()
    with open_slide(path) as slide:
        assert peak_bytes(lambda: slide.read(0, 0, 8000, 8000, 32)) < 100_000_000
