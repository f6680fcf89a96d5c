"""Files from elsewhere: only regular ones are opened, and what is read or unpacked is bounded.

A FIFO would wait for ever, a device never ends, and a few kilobytes of gzip may hold gigabytes.
All functions here end in one line about the file.
"""

import gzip
import io
import os
import stat
import zipfile
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np

from nucseg_mmdet.utils.errors import UserError, first_line

MOST = 1 << 31  # bytes of a file that is read as a whole
MOST_TEXT = 1 << 29  # bytes of a text, unpacked; as Python objects it takes several times that
KINDS = {
    stat.S_IFDIR: 'a folder',
    stat.S_IFIFO: 'a pipe',
    stat.S_IFCHR: 'a device',
    stat.S_IFBLK: 'a device',
    stat.S_IFSOCK: 'a socket',
}


def open_file(path: str | Path, most: int | None = None) -> BinaryIO:
    """Open a regular file for reading.

    Args:
        path: of the file.
        most: bytes that it may have; by default any number, for files read piece by piece.

    Raises:
        UserError: it is missing, cannot be opened, is no regular file or too large.
    """
    try:
        # Not blocking: the opening of a pipe would wait for somebody to write to it.
        number = os.open(path, os.O_RDONLY | getattr(os, 'O_NONBLOCK', 0))
    except OSError as error:
        raise UserError(f'{path}: {error.strerror}, expected a file') from None
    except ValueError:
        raise UserError(f'{str(path)!r}: no name of a file') from None
    try:
        status = os.fstat(number)
        if not stat.S_ISREG(status.st_mode):
            raise UserError(f'{path}: is {kind_of(status.st_mode)}, expected a file')
        if most is not None and status.st_size > most:
            raise UserError(f'{path}: {status.st_size:,} bytes, expected at most {most:,}')
        return os.fdopen(number, 'rb')
    except BaseException:
        os.close(number)
        raise


def kind_of(mode: int) -> str:
    """What there is instead of a regular file, by its mode."""
    return KINDS.get(stat.S_IFMT(mode), 'something else')


def check_file(path: str | Path, most: int | None = None) -> None:
    """Check that a path is a file that can be read, for libraries that open it by its name.

    Raises:
        UserError: as ``open_file``.
    """
    open_file(path, most).close()


def check_is_not_read(out: Path, *read: str | Path) -> None:
    """Refuse a place for results where something is that is read for them, by whatever name.

    Args:
        out: a file or a folder to write.
        *read: files or folders; some may be missing.

    Raises:
        UserError: one of them is there.
    """
    if os.path.exists(out) and any(
        os.path.exists(path) and os.path.samefile(out, path) for path in read
    ):
        raise UserError(f'{out}: is read as well, expected another place to write to')


def read_bytes(path: str | Path, most: int = MOST) -> bytes:
    """Read a regular file as a whole.

    Raises:
        UserError: as ``open_file``, or it cannot be read to its end.
    """
    with open_file(path, most) as file:
        try:
            return file.read()  # of a file whose size is checked
        except OSError as error:
            raise UserError(f'{path}: {error.strerror}, expected a file') from None


def read_packed(path: Path, member: str, most: int = MOST_TEXT) -> bytes:
    """Read a file that may be packed: by its suffix as ``.gz``, ``.zip``, or as it is.

    Args:
        path: of the file.
        member: name of the one that is read of a zip file.
        most: bytes, unpacked.

    Raises:
        UserError: as ``read_bytes``; it is damaged, encrypted, or there is more in it.
    """
    if path.suffix not in ('.gz', '.zip'):
        return read_bytes(path, most)
    data = io.BytesIO(read_bytes(path, most))
    try:
        if path.suffix == '.gz':
            with gzip.GzipFile(fileobj=data) as file:
                content = file.read(most + 1)
        else:
            with zipfile.ZipFile(data) as archive, archive.open(member) as file:
                content = file.read(most + 1)
    except KeyError:
        raise UserError(f'{path}: found no {member} at its root, expected one') from None
    except (OSError, EOFError, RuntimeError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        # A RuntimeError says that it is encrypted, a NotImplementedError is a kind of it.
        raise UserError(f'{path}: found a damaged archive ({error})') from None
    if len(content) > most:
        raise UserError(f'{path}: unpacked more than {most:,} bytes, expected at most so many')
    return content


def read_array(path: Path) -> np.ndarray:
    """Map an array file of NumPy; nothing is allocated by what its header says.

    Raises:
        UserError: as ``open_file``; it is damaged, or holds pickled objects or several arrays.
    """
    check_file(path)
    try:
        array = np.load(path, mmap_mode='r', allow_pickle=False)
        if isinstance(array, np.ndarray):
            return array
        found = 'several arrays'
    except Exception as error:  # NumPy raises many kinds for a damaged header
        found = first_line(error)
    raise UserError(f'{path}: not readable ({found}), expected an array')
