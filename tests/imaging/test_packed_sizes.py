"""Sizes that parts of a TIFF say of themselves: legal ones are taken, larger ones refused."""

import struct

import cv2
import numpy as np
import pytest

from nucseg_mmdet.imaging import packed_sizes

JPEG, JPEG_2000 = 7, 33003


def codestream(right, bottom, left=0, top=0, more=b''):
    return b'\xff\x4f\xff\x51' + struct.pack('>HHIIII', 41, 0, right, bottom, left, top) + more


def test_a_jpeg_may_be_padded_to_whole_blocks():
    packed = cv2.imencode('.jpg', np.zeros((304, 420, 3), np.uint8))[1].tobytes()
    packed_sizes.check(JPEG, packed, (420, 300))
    with pytest.raises(ValueError, match='420 x 304 px'):
        packed_sizes.check(JPEG, packed, (420, 200))


@pytest.mark.parametrize('wrapped', [b'', b'\0\0\0\x0cjP  \0\0\0\0jp2c'])
def test_pixels_of_jpeg_2000_may_look_as_a_header(wrapped):
    packed = wrapped + codestream(128, 128, more=codestream(1 << 31, 1 << 31))
    packed_sizes.check(JPEG_2000, packed, (128, 128))


def test_jpeg_2000_may_begin_anywhere_on_its_grid():
    packed_sizes.check(JPEG_2000, codestream(32_896, 32_896, 32_768, 32_768), (128, 128))
    with pytest.raises(ValueError, match='32,896 x 32,896 px'):
        packed_sizes.check(JPEG_2000, codestream(32_896, 32_896), (128, 128))
