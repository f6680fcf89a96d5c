"""A folder for results that one run at a time writes to."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from nucseg_mmdet.utils.errors import UserError
from nucseg_mmdet.utils.files import (
    FLAGS,
    cannot_be_written,
    check_folder_is_writable,
    make_folder,
)

try:
    import fcntl
except ImportError:  # Windows: what a killed process leaves stays
    fcntl = None

LOCK = '.owner.lock'  # in a folder that somebody owns


@contextlib.contextmanager
def owned_folder(path: Path) -> Iterator[None]:
    """Make a folder for results and own it during the block, so that no two runs write there.

    The owner holds a lock on a file in the folder, which the end of its process lets go of,
    whatever the end. A folder that is made here and in which nothing is at the end goes again.

    Raises:
        UserError: it cannot be made or written to, or another process owns it.
    """
    check_folder_is_writable(path)
    made = [folder for folder in (path, *path.parents) if not folder.exists()]
    make_folder(path)
    descriptor = _own(path)
    try:
        yield
    finally:
        (path / LOCK).unlink(missing_ok=True)
        os.close(descriptor)
        with contextlib.suppress(OSError):  # the first that has something in it
            for folder in made:
                folder.rmdir()


def _own(folder: Path) -> int:
    """Lock a folder: the descriptor of the file that holds the lock."""
    path = folder / LOCK
    while True:
        with cannot_be_written(path):
            descriptor = os.open(path, FLAGS & ~os.O_EXCL, 0o666)
        try:
            if fcntl:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise UserError(
                f'{folder}: another run writes there, expected one at a time: wait for its end, or '
                'take another folder'
            ) from None
        except OSError:
            return descriptor  # a file system without locks
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), path.stat()):
                return descriptor
        os.close(descriptor)  # its owner has just removed it
