"""Arrays of one file."""

import numpy as np
import pytest

from nucseg_mmdet.utils.files import new_file
from nucseg_mmdet.viewer.container import ContainerWriter, read_container


def write(path, **arrays):
    with new_file(path) as file:
        writer = ContainerWriter(file)
        for name, parts in arrays.items():
            for part in parts:
                writer.append(name, part)
        writer.finish(dict(answer=42))


def test_parts_come_back_as_one_array(tmp_path):
    path = tmp_path / 'a.view'
    odd = np.array([1, 2, 3], np.uint8)  # the next array is aligned all the same
    pairs = [np.array([[1.5, 2]]), np.zeros((0, 2)), np.array([[3, 4], [5, 6.0]])]
    write(path, odd=[odd], pairs=pairs, none=[np.zeros(0, np.int64)])
    info, arrays = read_container(path)
    assert info == dict(answer=42)
    assert arrays['odd'].tolist() == [1, 2, 3]
    assert arrays['pairs'].tolist() == [[1.5, 2], [3, 4], [5, 6]]
    assert arrays['none'].shape == (0,)
    assert [arrays[name].dtype.str for name in ('odd', 'pairs', 'none')] == ['|u1', '<f8', '<i8']


def test_bytes_are_little_endian_whatever_the_input(tmp_path):
    path = tmp_path / 'a.view'
    write(path, numbers=[np.array([1, 258], '>i4')])
    assert bytes([1, 0, 0, 0, 2, 1, 0, 0]) in path.read_bytes()
    assert read_container(path)[1]['numbers'].tolist() == [1, 258]


@pytest.mark.parametrize('kept', [0, 7, 30, -1])
def test_a_cut_file_is_refused(tmp_path, kept):
    path = tmp_path / 'a.view'
    write(path, a=[np.arange(100)])
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(ValueError, match='container'):
        read_container(path)


@pytest.mark.parametrize('footer', [
    '[]', '{"arrays":[]}', '{"arrays":{"a":5}}', '[' * 100_000,
    '{"arrays":{"a":{"dtype":"|u1","shape":[Infinity],"at":8}}}',
    '{"arrays":{"a":{"dtype":"|O","shape":[1],"at":8}}}',
])  # fmt: skip
def test_an_odd_list_of_arrays_is_refused(tmp_path, footer):
    path = tmp_path / 'a.view'
    length = len(footer).to_bytes(8, 'little')
    path.write_bytes(b'NUCVIEW1' + bytes(64) + footer.encode() + length + b'NUCVIEW1')
    with pytest.raises(ValueError, match='container'):
        read_container(path)


def test_parts_of_two_arrays_do_not_mix(tmp_path):
    with new_file(tmp_path / 'a.view') as file:
        writer = ContainerWriter(file)
        writer.append('a', np.arange(3))
        with pytest.raises(ValueError, match='one dtype'):
            writer.append('a', np.zeros(3))
        writer.append('b', np.arange(3))
        with pytest.raises(ValueError, match='belong together'):
            writer.append('a', np.arange(3))
