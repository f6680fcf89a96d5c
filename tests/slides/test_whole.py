"""PNG, JPEG and BMP: whole ones are read whatever else is in them, damaged ones are refused."""

import io
import struct
import tempfile
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageOps, PngImagePlugin

from nucseg_mmdet.slides.base import upright
from nucseg_mmdet.slides.open import open_image, open_slide
from nucseg_mmdet.slides.whole import jpeg_damage, read_whole
from nucseg_mmdet.synthetic.fields import synthesize
from nucseg_mmdet.utils.errors import UserError

IMAGE = synthesize(1, 200, 300, 40)[0]


def encode(kind, image=IMAGE, **options):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, kind, **options)
    return buffer.getvalue()


def chunk(kind, body):
    return struct.pack('>I', len(body)) + kind + body + struct.pack('>I', zlib.crc32(kind + body))


def with_chunk(data, kind, body):
    """A PNG with another chunk after its header."""
    return data[:33] + chunk(kind, body) + data[33:]


def long_text():
    return b'Description\0\0' + zlib.compress(bytes(5_000_000))


@pytest.mark.parametrize(
    ('kind', 'body'),
    [
        (b'zTXt', long_text()),
        (b'tEXt', b'Comment\0' + b'x' * 3_000_000),
        (b'iTXt', b'Comment\0\1\0\0\0' + zlib.compress(bytes(5_000_000))),
        (b'iCCP', b'icc\0\0' + zlib.compress(bytes(4_000_000))),
        (b'prVt', b'something private'),
    ],
    ids=['zTXt', 'tEXt', 'iTXt', 'iCCP', 'private'],
)
def test_what_else_is_in_a_png_does_not_matter(tmp_path, kind, body):
    path = tmp_path / 'a.png'
    path.write_bytes(with_chunk(encode('png', dpi=(101_600, 101_600)), kind, body))
    with open_slide(path) as slide:
        np.testing.assert_array_equal(slide.read(0, 0, 300, 200), IMAGE)
        assert slide.mpp == pytest.approx(0.25, rel=1e-4)  # pHYs has whole px per meter
        assert slide.notes == []


def test_every_flipped_bit_of_a_png_is_found():
    data = encode('png', IMAGE[:20, :20])
    for place in range(8, len(data)):
        damaged = bytearray(data)
        damaged[place] ^= 1 << place % 8
        with pytest.raises(UserError):
            read_bytes(bytes(damaged), 'png')


def read_bytes(data, suffix):
    with tempfile.TemporaryDirectory() as temporary:
        path = Path(temporary, f'a.{suffix}')
        path.write_bytes(data)
        return read_whole(path)


JPEGS = dict(
    baseline={},
    progressive=dict(progressive=True),
    restarts=dict(restart_marker_rows=2),
    gray=dict(mode='L'),
    cmyk=dict(mode='CMYK'),
)


def encode_jpeg(mode='RGB', **options):
    buffer = io.BytesIO()
    Image.fromarray(IMAGE).convert(mode).save(buffer, 'jpeg', quality=90, **options)
    return buffer.getvalue()


def zeros_within(data):
    middle = len(data) // 2
    return data[:middle] + bytes(3000) + data[middle + 3000 :]


def half_with_an_end(data):
    return data[: len(data) // 2] + b'\xff\xd9'


def without_an_end(data):
    return data[: len(data) * 3 // 4]


@pytest.mark.parametrize('options', JPEGS.values(), ids=JPEGS)
@pytest.mark.parametrize('damage', [zeros_within, half_with_an_end, without_an_end])
def test_damage_within_a_jpeg_is_found(options, damage):
    data = encode_jpeg(**options)
    read_bytes(data, 'jpg')
    with pytest.raises(UserError, match='damaged JPEG'):
        read_bytes(damage(data), 'jpg')


def test_bytes_that_follow_the_last_pixels_are_no_damage():
    data = encode_jpeg()
    assert jpeg_damage(data + b'more') is None
    assert jpeg_damage(data[:-2] + bytes(4) + data[-2:]) is None
    assert jpeg_damage(data[:-2] + bytes(400) + data[-2:])


def test_bmp(tmp_path):
    path = tmp_path / 'a.bmp'
    path.write_bytes(encode('bmp'))
    with open_slide(path) as slide:
        np.testing.assert_array_equal(slide.read(0, 0, 300, 200), IMAGE)
    path.write_bytes(encode('bmp')[:-5000])
    with pytest.raises(UserError, match='damaged BMP'):
        open_slide(path)


@pytest.mark.parametrize('orientation', range(1, 9))
def test_turned_as_pillow_turns(tmp_path, orientation):
    path = tmp_path / 'a.jpg'
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(IMAGE).save(path, exif=exif)
    with Image.open(path) as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    with open_slide(path) as slide:
        np.testing.assert_array_equal(slide.read(0, 0, slide.width, slide.height), expected)
        said = [f'turned upright, as its EXIF orientation {orientation} says']
        assert slide.notes == (said if orientation > 1 else [])
    np.testing.assert_array_equal(expected, cv2.imread(str(path))[..., ::-1])
    np.testing.assert_array_equal(upright(upright(IMAGE, 3), 3), IMAGE)


def test_indexed_png_without_a_palette():
    head = b'IHDR' + struct.pack('>IIBBBBB', 4, 4, 8, 3, 0, 0, 0)
    data = PngImagePlugin._MAGIC + chunk(head[:4], head[4:])
    data += chunk(b'IDAT', zlib.compress(bytes(20))) + chunk(b'IEND', b'')
    with pytest.raises(UserError, match='damaged PNG'):
        read_bytes(data, 'png')


def test_later_frames_are_said(tmp_path):
    path = tmp_path / 'a.png'
    frames = [Image.fromarray(IMAGE), Image.fromarray(IMAGE[::-1].copy())]
    frames[0].save(path, save_all=True, append_images=frames[1:])
    with open_slide(path) as slide:
        np.testing.assert_array_equal(slide.read(0, 0, 300, 200), IMAGE)
        assert slide.notes == ['the first of its 2 frames is read']


@pytest.mark.parametrize(
    ('image', 'message'),
    [
        (Image.new('RGB', (0, 5)), r'shape \(5, 0, 3\), expected uint8'),
        (Image.new('La', (9, 9)), 'of Pillow, not readable .* expected a whole one'),
        (
            Image.open(io.BytesIO(encode('jpeg')[:3000])),
            'of Pillow, not readable .*truncated.* expected a whole one',
        ),
        (np.ma.masked_greater(IMAGE, 200), 'pixels are masked, expected a color there'),
    ],
)
def test_image_of_a_notebook_that_is_not_whole_is_refused(image, message):
    with pytest.raises(UserError, match=message):
        open_image(image)


@pytest.mark.parametrize('mode', ['I;16', 'I', 'F'])
def test_image_of_pillow_with_more_than_8_bits_is_refused(mode):
    """Pillow cuts off above 255: nearly all would be white, and no nucleus found."""
    gray = IMAGE[..., 0].astype(np.uint16) * 257
    image = Image.fromarray(gray if mode == 'I;16' else gray.astype(dict(I='i4', F='f4')[mode]))
    assert image.mode == mode
    with pytest.raises(UserError, match=f'mode {mode}, expected 8 bits a channel'):
        open_image(image)
