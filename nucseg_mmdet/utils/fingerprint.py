"""Whether a file or a folder is the one that it was."""

import hashlib
import os
from pathlib import Path

from nucseg_mmdet.utils.reading import open_file

PLACES, PLACE = 64, 4096  # of a file that is sampled, and bytes that are read of each


def fingerprint(path: Path) -> dict[str, int | str]:
    """What tells a file, or a folder with all in it, from another.

    Returns:
        ``bytes``, ``changed``, the time of the last change in ns, and ``sha256``.
    """
    digest = hashlib.sha256()
    for part in _parts(path):
        digest.update(os.fsencode(part.relative_to(path)))
        with part.open('rb') as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return dict(_outside(path), sha256=digest.hexdigest())


def signs(path: Path) -> dict[str, int | str]:
    """What tells a large file from another without reading it all.

    Returns:
        ``bytes``, ``changed`` as of ``fingerprint``, and ``sampled``, a digest of some bytes from
        all over it. Copies and archives of a data set give many files one size and time.

    Raises:
        UserError: as ``open_file``.
    """
    digest = hashlib.sha256()
    with open_file(path) as file:
        status = os.fstat(file.fileno())
        for place in range(PLACES):
            file.seek(status.st_size * place // PLACES)
            digest.update(file.read(PLACE))
    return dict(bytes=status.st_size, changed=status.st_mtime_ns, sampled=digest.hexdigest())


def has_fingerprint(path: Path, known: dict[str, int | str]) -> bool:
    """Whether it is what it was; the content is read only where the time is another."""
    outside = _outside(path)
    if outside['bytes'] != known['bytes']:
        return False
    return outside['changed'] == known['changed'] or fingerprint(path)['sha256'] == known['sha256']


def _outside(path: Path) -> dict[str, int]:
    stats = [part.stat() for part in _parts(path)]
    return dict(
        bytes=sum(stat.st_size for stat in stats),
        changed=max((stat.st_mtime_ns for stat in stats), default=0),
    )


def _parts(path: Path) -> list[Path]:
    return sorted(part for part in path.rglob('*') if part.is_file()) if path.is_dir() else [path]
