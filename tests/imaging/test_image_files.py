"""Images are decoded whole or refused, before anything is allocated by what a header says."""

import struct
import zlib

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image

from nucseg_mmdet.imaging.image_files import PictureNames, decode_image, read_color, read_size
from nucseg_mmdet.synthetic.fields import synthesize
from nucseg_mmdet.utils.errors import UserError

IMAGE = synthesize(1, 64, 96, 8)[0]


def chunk(kind, body):
    return (
        struct.pack('>I', len(body))
        + kind
        + body
        + struct.pack('>I', zlib.crc32(body, zlib.crc32(kind)))
    )


def png(width=96, height=64):
    data = bytearray(cv2.imencode('.png', IMAGE[..., ::-1])[1].tobytes())
    data[8:33] = chunk(b'IHDR', struct.pack('>IIBBBBB', width, height, 8, 2, 0, 0, 0))
    return bytes(data)


def jpeg():
    return cv2.imencode('.jpg', IMAGE[..., ::-1])[1].tobytes()


def tiff(path, **options):
    tifffile.imwrite(path, IMAGE, photometric='rgb', **options)
    return path.read_bytes()


def flipped(data, place):
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


@pytest.mark.parametrize('kind', ['jpeg2000', 'png', 'webp'])
def test_tiff_that_opencv_does_not_unpack_has_no_colors(kind, tmp_path):
    """Of some of these OpenCV makes black, and so would a training."""
    path = tmp_path / 'a.tif'
    image = np.full((32, 32, 3), 200, np.uint8)
    tifffile.imwrite(path, image, photometric='rgb', compression=kind, tile=(32, 32))
    assert decode_image(path).any()
    with pytest.raises(UserError, match=f'a.tif: compression {kind.upper()}, which OpenCV does'):
        read_color(path)


@pytest.mark.parametrize('compression', [None, 'zlib', 'lzw'])
def test_tiff_is_read_as_bgr(compression, tmp_path):
    tiff(tmp_path / 'a.tif', compression=compression, tile=(32, 32))
    assert (decode_image(tmp_path / 'a.tif')[..., ::-1] == IMAGE).all()


def test_tiff_of_64_bits_keeps_its_numbers(tmp_path):
    labels = np.array([[0, 2**40], [1, 2]], np.int64)
    tifffile.imwrite(tmp_path / 'a.tif', labels, photometric='minisblack')
    assert (decode_image(tmp_path / 'a.tif') == labels).all()


def test_png_with_much_text_is_whole(tmp_path):
    text = chunk(b'zTXt', b'Comment\0\0' + zlib.compress(b'x' * 3_000_000))
    data = png()
    (tmp_path / 'a.png').write_bytes(data[:33] + text + data[33:])
    assert (decode_image(tmp_path / 'a.png')[..., ::-1] == IMAGE).all()


@pytest.mark.parametrize('orientation', range(1, 9))
@pytest.mark.parametrize('suffix', ['png', 'jpg', 'tif', 'bmp'])
def test_size_is_that_of_the_image_as_it_is_read(tmp_path, suffix, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f'a.{suffix}'
    options = dict(tif=dict(tiffinfo={0x0112: orientation}), bmp={})
    Image.new('RGB', (30, 20)).save(path, **options.get(suffix, dict(exif=exif)))
    height, width = read_color(path).shape[:2]
    assert read_size(path) == (width, height)
    turned = suffix != 'bmp' and orientation > 4
    assert (width, height) == ((20, 30) if turned else (30, 20))


def damages(folder):
    """Name, bytes and what the message says."""
    whole = png()
    middle = len(whole) // 2
    photo = jpeg()
    half = len(photo) // 2
    packed = tiff(folder / 'zlib.tif', compression='zlib', rowsperstrip=64)
    with tifffile.TiffFile(folder / 'zlib.tif') as file:
        start, length = file.pages[0].dataoffsets[0], file.pages[0].databytecounts[0]
        rows = file.pages[0].tags['ImageLength'].valueoffset
    tall = packed[:rows] + struct.pack('<I', 16_777_472)[:2] + packed[rows + 2 :]
    return {
        'flipped.png': (flipped(whole, middle), "checksum of 'IDAT'"),
        'cut.png': (whole[:middle], 'PNG without its end'),
        'large.png': (png(40_000, 40_000), 'a field may have'),
        'zeros.jpg': (photo[:half] + bytes(300) + photo[half + 300 :], 'damaged JPEG'),
        'half.jpg': (photo[:half] + b'\xff\xd9', 'damaged JPEG'),
        'flipped.tif': (flipped(packed, start + length // 2), 'not readable'),
        'tall.tif': (tall, 'expected'),
        'empty.png': (b'', 'not readable'),
    }


@pytest.mark.parametrize('name', [
    'flipped.png', 'cut.png', 'large.png', 'zeros.jpg', 'half.jpg', 'flipped.tif', 'tall.tif',
    'empty.png',
])  # fmt: skip
def test_damaged_image_is_refused(name, tmp_path):
    data, message = damages(tmp_path)[name]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError, match=message):
        decode_image(tmp_path / name)


def test_pictures_of_images_with_one_name_do_not_replace_each_other():
    names = PictureNames('/data')
    images = ['/data/x/a.png', '/data/y/a.png', '/data/y/a.jpg', '/data/x/a.png', '/else/a.png']
    images += ['/b/a.png', '/c/a.png', '/d/a.png', '/c/a.png']
    expected = ['x/a.png', 'y/a.png', 'y/a.jpg.png', 'x/a.png', 'a.png']
    expected += ['a.png.png', 'a.png.2.png', 'a.png.3.png', 'a.png.2.png']
    assert [names.name(image) for image in images] == expected
