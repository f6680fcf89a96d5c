"""Full disks and folders that cannot be written: one line, exit code 2, nothing half-written.

A small file system in memory is mounted where that is allowed (root); elsewhere nothing is tried.
"""

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.hammer import isolation
from tests.hammer.damaged import Verdict
from tests.hammer.subjects import SUBJECTS, Subject

FREE = (0, 4, 8, 12, 16, 24, 32, 48, 64)  # KiB
WRITERS = {
    'PNG prepared': 'out',
    'COCO prepared': 'out',
    'results answer.json': 'scores.json',
    'checkpoint': 'out.pth',
    'run card in the table': 'out.csv',
}


@contextlib.contextmanager
def small_disk(folder: Path, kilobytes: int) -> Iterator[None]:
    """Mount a file system with so much free space on a folder."""
    _mount('-t', 'tmpfs', '-o', f'size={max(4, kilobytes)}k', 'tmpfs', folder)
    try:
        if not kilobytes:
            (folder / 'filler').write_bytes(bytes(4096))
        yield
    finally:
        subprocess.run(['umount', '-l', folder], check=True)


def _mount(*arguments: str | Path) -> None:
    subprocess.run(['mount', *arguments], check=True, capture_output=True)


def can_mount(scratch: Path) -> bool:
    """Whether this user may mount file systems."""
    try:
        with small_disk(isolation.fresh(scratch / 'mount'), 4):
            return True
    except (OSError, subprocess.CalledProcessError):
        return False


def fill(scratch: Path) -> Iterator[Verdict]:
    """Let each writer run out of space at several places, and write where nothing can be."""
    if not can_mount(scratch):
        return
    for name, out in WRITERS.items():
        for kilobytes in (*FREE, None):
            what = 'read-only' if kilobytes is None else f'{kilobytes} KiB free'
            complaint = _write(SUBJECTS[name], out, scratch, kilobytes)
            yield Verdict('full disk', f'{name}: {what}', complaint)


def _write(subject: Subject, out: str, scratch: Path, kilobytes: int | None) -> str | None:
    inputs, disk = isolation.fresh(scratch / 'inputs'), isolation.fresh(scratch / 'disk')
    subject.make(inputs)
    with small_disk(disk, kilobytes or 4 * (kilobytes is None)):
        for path in inputs.iterdir():
            (disk / path.name).symlink_to(path)
        if kilobytes is None:
            _mount('-o', 'remount,ro', disk)
        ended = isolation.run(subject.read, disk)
        complaint = isolation.complaint(ended, (0, 2)) or isolation.leftovers(disk)
        if ended.code and (disk / out).exists():
            complaint = complaint or 'refused, but something was written'
        if not ended.code and not (disk / out).exists():
            complaint = complaint or 'success, and nothing written'
    return complaint
