"""Arrays of one file, read where they lie: raw little-endian numbers, then JSON that lists them.

::

    with new_file(path) as file:
        writer = ContainerWriter(file)
        writer.append('points', part)           # over and over: the parts of one array
        writer.append('points', part)
        writer.finish(dict(kind='nuclei'))

    info, arrays = read_container(path)         # arrays are mapped, not loaded
"""

import json
import os
import struct
from pathlib import Path
from typing import Any, BinaryIO, TypedDict

import numpy as np

from nucseg_mmdet.utils.reading import open_file

MAGIC = b'NUCVIEW1'
ALIGN = 8  # bytes


class _Entry(TypedDict):
    """An array in the list of them: its dtype as NumPy writes it, and the byte it begins at."""

    dtype: str
    shape: list[int]
    at: int


class ContainerWriter:
    """Writes arrays to a file one after the other, each in parts.

    Args:
        file: empty, open for binary writing.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._file.write(MAGIC)
        self._table: dict[str, _Entry] = {}

    def append(self, name: str, part: np.ndarray) -> None:
        """Add to an array: the one that was added to last, or a new one.

        Args:
            name: of the array.
            part: any dtype, (n, ...); rows to add.

        Raises:
            ValueError: another array was added to since, or the parts before have another dtype.
        """
        part = np.ascontiguousarray(part, part.dtype.newbyteorder('<'))
        entry = self._table.get(name)
        if entry is None:
            self._file.write(bytes(-self._file.tell() % ALIGN))
            shape, at = [0, *part.shape[1:]], self._file.tell()
            entry = _Entry(dtype=part.dtype.str, shape=shape, at=at)
            self._table[name] = entry
        elif name != list(self._table)[-1] or entry['dtype'] != part.dtype.str:
            raise ValueError(f'{name}: parts of one array belong together and have one dtype')
        entry['shape'][0] += len(part)
        self._file.write(part.data if part.size else b'')

    def finish(self, info: dict[str, Any]) -> None:
        """Complete the file with what is to be known of the arrays, as JSON."""
        footer = json.dumps(dict(info=info, arrays=self._table)).encode()
        self._file.write(footer + struct.pack('<Q', len(footer)) + MAGIC)


def read_container(path: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Open a container.

    Returns:
        What ``finish`` was given, and the arrays, mapped read-only.

    Raises:
        UserError: it is no file that can be read.
        OSError: it cannot be mapped.
        ValueError: it is no container, or not whole.
    """
    tail = 8 + len(MAGIC)
    with open_file(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size < len(MAGIC) + tail or file.read(len(MAGIC)) != MAGIC:
            raise ValueError(f'{path}: no container')
        file.seek(size - tail)
        length, magic = struct.unpack('<Q8s', file.read(tail))
        if magic != MAGIC or length > size - tail:
            raise ValueError(f'{path}: container is not whole')
        file.seek(size - tail - length)
        footer = file.read(length)
    try:
        return _take(json.loads(footer), np.memmap(path, np.uint8, 'r'), path)
    except (AttributeError, KeyError, OverflowError, RecursionError, TypeError) as error:
        raise ValueError(f'{path}: container of {error!r:.100}') from None


def _take(
    footer: dict[str, Any], data: np.ndarray, path: Path
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    arrays = {}
    for name, entry in footer['arrays'].items():
        dtype, shape = np.dtype(entry['dtype']), tuple(entry['shape'])
        stop = entry['at'] + dtype.itemsize * int(np.prod(shape))
        if not len(MAGIC) <= entry['at'] <= stop <= len(data):
            raise ValueError(f'{path}: array {name} is not whole')
        arrays[name] = data[entry['at'] : stop].view(dtype).reshape(shape)
    return footer['info'], arrays
