"""TIFF files whose tables of tiles or strips are damaged, or leave some out."""

import numpy as np
import pytest
import tifffile

from nucseg_mmdet.converters.raw_images import open_raw_image
from nucseg_mmdet.imaging.image_files import decode_image
from nucseg_mmdet.slides.open import open_slide
from nucseg_mmdet.utils.errors import UserError

IMAGE = np.random.default_rng(0).integers(0, 200, (96, 96, 3), np.uint8)
LAYOUTS = dict(Tile=dict(tile=(32, 32)), Strip=dict(rowsperstrip=16))


@pytest.fixture(params=[None, 'zlib', 'lzw'])
def compression(request):
    return request.param


def write(path, kind, table, value, compression):
    """An image with another value in its second place of a table."""
    tifffile.imwrite(path, IMAGE, photometric='rgb', compression=compression, **LAYOUTS[kind])
    with tifffile.TiffFile(path, mode='r+b') as tiff:
        tag = tiff.pages[0].tags[f'{kind}{table}']
        tag.overwrite([*tag.value[:1], value, *tag.value[2:]])
    return path


@pytest.mark.parametrize('read', [open_raw_image, open_slide])
@pytest.mark.parametrize(
    ('kind', 'table', 'value', 'message'),
    [
        ('Strip', 'ByteCounts', 0, 'strips of 0 bytes: 1 of 6'),
        ('Strip', 'Offsets', 0, 'a strip at byte 0'),
        ('Tile', 'Offsets', 0, 'a tile at byte 0'),
        ('Tile', 'Offsets', 7, 'a tile at byte 7'),  # within the header
    ],
)
def test_damaged_tables_are_refused(tmp_path, compression, read, kind, table, value, message):
    path = write(tmp_path / 'a.tif', kind, table, value, compression)
    with pytest.raises(UserError) as caught:
        read(path)
    assert str(caught.value) == f'{path}: damaged TIFF ({message}), expected a whole one'


def test_a_palette_that_is_lost_is_named(tmp_path):
    path = tmp_path / 'a.tif'
    colors = np.zeros((3, 256), np.uint16)
    tifffile.imwrite(path, IMAGE[..., 0], photometric='palette', colormap=colors)
    data = bytearray(path.read_bytes())
    entry = data.index((320).to_bytes(2, 'little') + (3).to_bytes(2, 'little'))  # uint16 values
    data[entry : entry + 2] = (321).to_bytes(2, 'little')  # another tag, that nobody reads
    path.write_bytes(data)
    with pytest.raises(UserError, match=r'damaged TIFF \(ValueError: no palette\), expected'):
        open_slide(path)


def fewer_tags(data):
    """The count of tags, the first two bytes of their table, without its 8."""
    where = int.from_bytes(data[4:8], 'little')
    assert data[where] & 8
    data[where] &= ~8


def other_count(data):
    """Another number of values of SamplesPerPixel, in place of its one."""
    entry = data.index((277).to_bytes(2, 'little') + b'\x03\x00\x01\x00\x00\x00')
    data[entry + 7] |= 64


@pytest.mark.parametrize('damage', [fewer_tags, other_count])
@pytest.mark.parametrize('read', [open_raw_image, open_slide, decode_image])
def test_colors_without_their_channels_are_refused(tmp_path, read, damage):
    """One flipped bit made a gray image of a third of the pixels."""
    path = tmp_path / 'a.tif'
    tifffile.imwrite(path, IMAGE, photometric='rgb', ome=True)
    data = bytearray(path.read_bytes())
    damage(data)
    path.write_bytes(data)
    with pytest.raises(UserError, match=r'a\.tif: damaged TIFF \(RGB colors of one channel\)'):
        read(path)


def test_tile_of_no_bytes(tmp_path, compression):
    """Scanners leave out tiles of slides, which is said; in a picture it is damage."""
    path = write(tmp_path / 'a.tif', 'Tile', 'ByteCounts', 0, compression)
    expected = IMAGE.copy()
    expected[:32, 32:64] = 255
    with open_slide(path) as slide:
        np.testing.assert_array_equal(slide.read(0, 0, 96, 96), expected)
        assert '1 of 9 tiles are not in the file, nothing was scanned there' in slide.notes
    with pytest.raises(UserError, match=r'a\.tif: damaged TIFF \(tiles of 0 bytes: 1\)'):
        open_raw_image(path)


def test_whole_images_are_neither(tmp_path, compression):
    for layout in LAYOUTS.values():
        path = tmp_path / 'a.tif'
        tifffile.imwrite(path, IMAGE, photometric='rgb', compression=compression, **layout)
        np.testing.assert_array_equal(open_raw_image(path).pixels[..., ::-1], IMAGE)


@pytest.mark.parametrize('read', [open_raw_image, decode_image])
@pytest.mark.parametrize(
    ('kind', 'options', 'channels'),
    [
        ('jpeg', {}, 3),
        ('jpeg2000', {}, 3),
        ('png', {}, 3),
        ('webp', dict(lossless=False), 3),
        ('webp', dict(lossless=False), 4),  # an extended header
        ('webp', dict(lossless=True), 3),
    ],
)
def test_tile_that_says_to_be_larger_is_not_decoded(tmp_path, read, kind, options, channels):
    """A few bytes may say that they are 4,294,836,225 px."""
    path = tmp_path / 'a.tif'
    shape, image = (48, 96), np.zeros((48, 96, channels), np.uint8)
    tifffile.imwrite(
        path, image, photometric='rgb', tile=shape, compression=kind, compressionargs=options
    )
    read(path)
    with tifffile.TiffFile(path, mode='r+b') as tiff:
        for name in ('ImageWidth', 'ImageLength', 'TileWidth', 'TileLength'):
            tiff.pages[0].tags[name].overwrite(32)
    with pytest.raises(UserError, match='a tile or strip of 96 x 48 px'):
        read(path)
