"""Files and folders that are there whole or not at all.

Whatever this project writes goes beside its place under a fresh hidden name and is renamed
when it is complete, so that a killed process, a full disk or a wrong input leaves either the
old file or none. Use the smallest of these that does::

    write_json(path, report)                 # also write_text, write_bytes

    with new_file(path) as file:             # an open binary file; in place after the block,
        torch.save(content, file)            # gone if the block raises

    part = PartialFile(path)                 # a file that is written over many calls
    part.file.write(b'...')
    part.finish()                            # on disk, still beside its place
    part.publish()                           # in place; or part.abort(): nothing is left.
                                             # `with PartialFile(path) as part:` aborts at its end

    with new_folder(path) as folder:         # a folder, in place after the block
        write_json(folder / 'a.json', {})

All of them turn an ``OSError`` of their own file into a ``UserError`` with its final path.
"""

import contextlib
import errno
import glob
import json
import math
import os
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from nucseg_mmdet.utils.errors import UserError
from nucseg_mmdet.utils.reading import kind_of

try:
    import fcntl
except ImportError:  # Windows: what a killed process leaves stays
    fcntl = None

# Nobody else's file is opened, and no link is followed out of the folder.
FLAGS = (
    os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, 'O_NOFOLLOW', 0) | getattr(os, 'O_BINARY', 0)
)
LONGEST_STEM = 200  # bytes of the name that a hidden name repeats; file systems take 255


class PartialFile:
    """A file under construction, for writers that take many calls.

    Attributes:
        path: where ``publish`` puts the file.
        partial: where it is until then, for libraries that want a path; it exists already.
        file: open for binary writing, reading and seeking, until ``finish`` or ``abort``.

    Raises:
        UserError: the file cannot be made, or its place is taken by a device or a pipe.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with cannot_be_written(path):
            if path.exists() and not (path.is_file() or path.is_dir()):
                kind = kind_of(path.stat().st_mode)
                raise UserError(f'{path}: is {kind}, expected a place for a file')
            _remove_abandoned(path)
            while True:
                self.partial = _hidden(path)
                # Not os.fdopen: libraries want to know the name of what they write to.
                self.file: BinaryIO = open(  # noqa: SIM115
                    self.partial, 'w+b', opener=_exclusively
                )
                self._lock = _lock(self.file.fileno())
                if self.partial.exists():
                    break
                self.abort()  # somebody took it for abandoned before it was locked

    def __enter__(self) -> 'PartialFile':
        return self

    def __exit__(self, *_: object) -> None:
        self.abort()

    def finish(self) -> None:
        """Close the file with all of it on disk, still beside its place.

        Raises:
            UserError: it does not fit on the disk.
        """
        with cannot_be_written(self.path):
            if not self.file.closed:
                self.file.flush()
                os.fsync(self.file.fileno())
                self.file.close()

    def publish(self) -> None:
        """Put the file in place of an older one; finish it, where that was not done yet.

        Raises:
            UserError: it does not fit on the disk, or its place is taken by a folder.
        """
        self.finish()
        with cannot_be_written(self.path):
            os.replace(self.partial, self.path)
        self._lock.close()

    def unlock(self) -> None:
        """No longer keep others from taking the finished file for abandoned.

        The lock is one of the open files that a process may have; thousands of files that wait
        for their places, where nobody else writes, do without.
        """
        self._lock.close()

    def abort(self) -> None:
        """Leave nothing, unless the file is in place already; may be called at any time."""
        with contextlib.suppress(OSError):  # what is still in the buffer may find no space
            self.file.close()
        self.partial.unlink(missing_ok=True)
        self._lock.close()


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[BinaryIO]:
    """Open a binary file that is in place once the block ends, and gone if the block raises.

    Raises:
        UserError: the file cannot be written.
    """
    part = PartialFile(path)
    try:
        with cannot_be_written(path):
            yield part.file
        part.publish()
    finally:
        part.abort()


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file whole or not at all.

    Raises:
        UserError: the file cannot be written.
    """
    with new_file(path) as file:
        file.write(data)


def write_text(path: Path, text: str) -> None:
    """Write a text in UTF-8, whole or not at all.

    Raises:
        UserError: the file cannot be written.
    """
    write_bytes(path, text.encode())


def write_json(path: Path, content: Any, indent: int | None = 2) -> None:
    """Write JSON, whole or not at all.

    Raises:
        UserError: the file cannot be written.
        ValueError: there is a NaN or an infinity, which JSON has no word for.
    """
    write_text(path, json.dumps(content, indent=indent, allow_nan=False) + '\n')


def without_nan(item: Any) -> Any:
    """Put null for NaN in what is written as JSON: a score that is not defined."""
    if isinstance(item, dict):
        return {key: without_nan(value) for key, value in item.items()}
    if isinstance(item, list):
        return [without_nan(value) for value in item]
    return None if isinstance(item, float) and math.isnan(item) else item


def make_folder(path: Path) -> None:
    """Make a folder for results, with its parents, unless it is there.

    Raises:
        UserError: it cannot be made.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f'{path}: no folder for results ({error.strerror})') from None


def check_folder_is_writable(path: Path) -> None:
    """See before long work whether a folder for results can be made and written to.

    It is not made: should an input be wrong, nothing is left.

    Raises:
        UserError: it cannot be made or written to.
    """
    folder = _nearest_folder(path)
    with cannot_be_written(path), tempfile.TemporaryFile(dir=folder) as file:
        file.write(b'0')
        file.flush()


def _nearest_folder(path: Path) -> Path:
    """The folder itself, or the one that it would be made in with its parents."""
    reason = os.strerror(errno.ENOENT)  # where not even the root is there
    for folder in (path, *path.absolute().parents):
        try:
            if stat.S_ISDIR(folder.stat().st_mode):
                return folder
            reason = os.strerror(errno.ENOTDIR)
        except OSError as error:
            if isinstance(error, FileNotFoundError) and not os.path.lexists(folder):
                continue
            reason = error.strerror
        break
    raise UserError(f'{path}: no folder for results ({reason})')


def check_place_is_writable(path: Path) -> None:
    """See before long work whether a file can be written, whose folder may have to be made.

    Raises:
        UserError: as ``check_folder_is_writable`` and ``check_file_is_writable``.
    """
    check_folder_is_writable(path.parent)
    if path.parent.is_dir():
        check_file_is_writable(path)


def check_file_is_writable(path: Path) -> None:
    """See before long work whether a file can be written at its end.

    Raises:
        UserError: a folder or a device is in its place, or its folder is missing or cannot be
            written to.
    """
    if path.is_dir():
        raise UserError(f'{path}: is a folder, expected the file to write')
    PartialFile(path).abort()


class PartialFolder:
    """A folder under construction, as ``PartialFile``.

    Attributes:
        path: where ``publish`` puts the folder.
        partial: where it is until then.

    Raises:
        UserError: the folder cannot be made.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stack = contextlib.ExitStack()
        with cannot_be_written(path):
            _remove_abandoned(path)
            while True:
                self.partial = _hidden(path)
                self.partial.mkdir()
                with contextlib.suppress(FileNotFoundError):  # somebody took it for abandoned
                    number = os.open(self.partial, os.O_RDONLY)
                    lock = _lock(number)
                    os.close(number)
                    if self.partial.exists():
                        self._stack.push(lock)
                        break
                    lock.close()
            self._stack.callback(shutil.rmtree, self.partial, ignore_errors=True)

    def finish(self) -> None:
        """Do nothing: who writes the files of the folder closes them."""

    def publish(self, replace: bool = True) -> None:
        """Put the folder in place.

        Args:
            replace: also a folder that has something in it.

        Raises:
            UserError: its place is taken.
        """
        earlier = _hidden(self.path)
        with cannot_be_written(self.path), contextlib.ExitStack() as back:
            if replace and self.path.exists():
                os.replace(self.path, earlier)  # at once, so that no half of it stands there
                back.callback(os.replace, earlier, self.path)
            os.replace(self.partial, self.path)  # also takes the place of an empty folder
            back.pop_all()
        with contextlib.suppress(OSError):
            earlier.unlink()  # of a link, whose folder is somebody else's; of a file
        shutil.rmtree(earlier, ignore_errors=True)
        self.abort()

    def abort(self) -> None:
        """Leave nothing, unless the folder is in place already; may be called at any time."""
        self._stack.close()


@contextlib.contextmanager
def new_folder(path: Path, replace: bool = False) -> Iterator[Path]:
    """Give a hidden folder that is in place once the block ends, and gone if the block raises.

    Args:
        path: of the folder; an empty one there is replaced.
        replace: also replace a folder that has something in it.

    Raises:
        UserError: the folder cannot be made, or its place is taken.
    """
    path = path.resolve()  # '.' has no name of its own
    make_folder(path.parent)
    part = PartialFolder(path)
    try:
        with cannot_be_written(path):
            yield part.partial
        part.publish(replace)
    finally:
        part.abort()


@contextlib.contextmanager
def cannot_be_written(path: Path) -> Iterator[None]:
    """Turn an ``OSError`` of a block that writes a file into a ``UserError`` with its path."""
    try:
        yield
    except OSError as error:
        raise UserError(f'{path}: cannot be written ({error.strerror or error})') from None


def _exclusively(path: str, _: int) -> int:
    return os.open(path, FLAGS, 0o666)


def _hidden(path: Path) -> Path:
    """A name beside a file that nobody else has."""
    return path.with_name(f'.{_stem(path)}.{secrets.token_hex(4)}.partial')


def _stem(path: Path) -> str:
    # As bytes, which a name need not be text for.
    return os.fsdecode(os.fsencode(path.name)[:LONGEST_STEM])


def _lock(number: int) -> contextlib.ExitStack:
    """Mark a hidden file or folder as in use until what is returned is closed.

    The lock outlives the closing of the file, which has yet to be renamed, and ends with the
    process, however that ends. Only who looks for abandoned ones may have it, for a moment.
    """
    held = contextlib.ExitStack()
    if fcntl:
        held.callback(os.close, number := os.dup(number))
        with contextlib.suppress(OSError):  # on a file system without locks
            fcntl.flock(number, fcntl.LOCK_EX)
    return held


def _remove_abandoned(path: Path) -> None:
    """Remove what killed processes left of a file or folder."""
    if not fcntl:
        return
    for other in path.parent.glob(f'.{glob.escape(_stem(path))}.{"[0-9a-f]" * 8}.partial'):
        with contextlib.suppress(OSError):  # gone in the meantime, a link, or in use
            number = os.open(other, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            try:
                fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if other.is_dir():
                    shutil.rmtree(other, ignore_errors=True)
                else:
                    other.unlink()
            finally:
                os.close(number)
