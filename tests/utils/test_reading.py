"""What is no file, too large or damaged is told in one line, before it is read."""

import gzip
import io
import os
import zipfile

import numpy as np
import pytest

from nucseg_mmdet.utils import reading
from nucseg_mmdet.utils.errors import UserError


def zipped(name, data):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, 'w', zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, data)
    return buffer.getvalue()


def encrypted(data):
    """A zip file that says that its only member is: the flag in both of its headers."""
    data = bytearray(data)
    for place in (6, data.index(b'PK\x01\x02') + 8):
        data[place] |= 1
    return bytes(data)


NO_FILES = {
    'pipe': (os.mkfifo, 'is a pipe, expected a file'),
    'folder': (os.mkdir, 'is a folder, expected a file'),
    'endless': (lambda path: path.symlink_to('/dev/zero'), 'is a device, expected a file'),
    'loop': (lambda path: path.symlink_to(path), 'Too many levels of symbolic links'),
    'missing': (lambda path: None, 'No such file or directory'),
}


@pytest.mark.parametrize('name', NO_FILES)
def test_what_is_no_file_is_told_and_not_waited_for(name, tmp_path):
    make, message = NO_FILES[name]
    make(tmp_path / 'a')
    with pytest.raises(UserError, match=f'a: {message}'):
        reading.read_bytes(tmp_path / 'a')


def test_name_with_a_zero_byte_is_told(tmp_path):
    with pytest.raises(UserError, match='no name of a file'):
        reading.check_file(tmp_path / 'a\0b')


def test_file_as_large_as_allowed_is_read_and_a_larger_one_refused(tmp_path):
    path = tmp_path / 'a'
    path.write_bytes(b'12345')
    assert reading.read_bytes(path, 5) == b'12345'
    with pytest.raises(UserError, match='5 bytes, expected at most 4'):
        reading.read_bytes(path, 4)


PACKED = {'a.gz': gzip.compress(b'x' * 1000), 'a.zip': zipped('b', b'x' * 1000), 'a': b'x' * 1000}


@pytest.mark.parametrize('name', PACKED)
def test_packed_file_is_read_up_to_the_bound(name, tmp_path):
    path = tmp_path / name
    path.write_bytes(PACKED[name])
    assert reading.read_packed(path, 'b', 1000) == b'x' * 1000
    with pytest.raises(UserError, match='expected at most'):
        reading.read_packed(path, 'b', 999)


BROKEN = {
    'a.gz': (gzip.compress(b'x' * 1000)[:-4], 'damaged archive'),
    'b.gz': (b'no gzip', 'damaged archive'),
    'a.zip': (zipped('other', b''), 'found no b at its root'),
    'b.zip': (zipped('b', b'x' * 1000)[:40], 'damaged archive'),
    'c.zip': (encrypted(zipped('b', b'x' * 1000)), 'encrypted'),
}


@pytest.mark.parametrize('name', BROKEN)
def test_damaged_archive_is_told(name, tmp_path):
    data, message = BROKEN[name]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError, match=message):
        reading.read_packed(tmp_path / name, 'b')


def test_array_is_mapped_and_one_larger_than_its_file_refused(tmp_path):
    path = tmp_path / 'a.npy'
    np.save(path, np.arange(6).reshape(2, 3))
    assert reading.read_array(path).tolist() == [[0, 1, 2], [3, 4, 5]]
    path.write_bytes(path.read_bytes().replace(b'(2, 3)', b'(9, 9)'))
    with pytest.raises(UserError, match='not readable'):
        reading.read_array(path)


def test_several_arrays_under_the_name_of_one_are_refused(tmp_path):
    path = tmp_path / 'a.npy'
    with path.open('wb') as file:
        np.savez(file, a=np.zeros(1))
    with pytest.raises(UserError, match='several arrays'):
        reading.read_array(path)


@pytest.mark.parametrize('name', ['a', 'folder/../a', 'link', 'folder'])
def test_what_is_read_is_no_place_to_write_to(name, tmp_path):
    (tmp_path / 'a').write_bytes(b'1')
    (tmp_path / 'link').symlink_to('a')
    (tmp_path / 'folder').mkdir()
    read = [tmp_path / 'a', tmp_path / 'folder', tmp_path / 'missing']
    with pytest.raises(UserError, match=f'{name}: is read as well, expected another place'):
        reading.check_is_not_read(tmp_path / name, *read)
    for other in ('new', 'missing', 'folder/a'):
        reading.check_is_not_read(tmp_path / other, *read)
