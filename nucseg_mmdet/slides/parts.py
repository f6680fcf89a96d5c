"""The files that a slide is made of: the one that is named, and others beside it."""

import hashlib
import json
import re
from functools import lru_cache
from pathlib import Path

from nucseg_mmdet.utils.errors import UserError
from nucseg_mmdet.utils.fingerprint import signs
from nucseg_mmdet.utils.reading import open_file

HEADER = 1 << 16  # bytes at the start of a DICOM file, in which its series is named
# SeriesInstanceUID after StudyInstanceUID, of explicit VR; elsewhere it is that of another series.
SERIES = re.compile(rb'\x20\0\x0d\0UI..[0-9.]{1,64}\0?\x20\0\x0e\0UI(..)', re.DOTALL)
Version = tuple[int, int]  # bytes, and time of the last change in ns


def series_of(path: Path) -> bytes:
    """The SeriesInstanceUID of a DICOM file; empty for what is none that can be told."""
    try:
        return _read_series(path, version_of(path))
    except (UserError, OSError):
        return b''


def version_of(path: Path) -> Version:
    """What changes with a file, read at a glance.

    Raises:
        OSError: there is none.
    """
    status = path.stat()
    return status.st_size, status.st_mtime_ns


def further_files(path: Path) -> list[Path]:
    """The other files that OpenSlide reads for a slide.

    These are the files of the folder of an MRXS slide, and those of the series of a DICOM slide.

    Args:
        path: of the slide.
    """
    if path.suffix.lower() == '.mrxs':
        return sorted(part for part in path.with_suffix('').rglob('*') if part.is_file())
    if series := series_of(path):
        beside = (other for other in path.parent.iterdir() if other.name != path.name)
        return sorted(other for other in beside if series_of(other) == series)
    return []


def slide_signs(path: Path) -> dict[str, int | str]:
    """What tells a slide from another without reading it all.

    Returns:
        ``signs`` of the file; of a slide of several files also ``others``, a digest of theirs.

    Raises:
        UserError: a file cannot be read.
    """
    found = signs(path)
    if others := further_files(path):
        text = json.dumps([[str(other.relative_to(path.parent)), signs(other)] for other in others])
        found['others'] = hashlib.sha256(text.encode()).hexdigest()
    return found


@lru_cache(maxsize=4096)  # the files of a folder, which is looked through again and again
def _read_series(path: Path, version: Version) -> bytes:
    with open_file(path) as file:
        start = file.read(HEADER)
    match = SERIES.search(start)
    if match is None:
        return b''
    length = int.from_bytes(match[1], 'little')
    return start[match.end() : match.end() + length].rstrip(b'\0 ')
