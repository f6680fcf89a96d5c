"""Which images and slides are meant, and what their results are called."""

import hashlib
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nucseg_mmdet.export.formats import FORMATS
from nucseg_mmdet.export.writer import SUMMARY
from nucseg_mmdet.slides.base import name_of
from nucseg_mmdet.slides.open import IMAGES, SCANS
from nucseg_mmdet.slides.parts import series_of
from nucseg_mmdet.utils.errors import some

TISSUE = '.tissue.png'  # end of the name of a picture of the tissue that is segmented
RESULTS = (TISSUE, *(writer.suffix for writer in FORMATS.values()))  # ends of names
TABLES = (*RESULTS, '.geojson.gz', SUMMARY, '.partial')  # what else a run leaves


@dataclass
class Inputs:
    """What is to be segmented, and what is not.

    Attributes:
        paths: images and slides, each once.
        notes: what a folder has that is left out, and what is named twice, a line each.
        problems: what cannot be reached, a line each.
    """

    paths: list[Path] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def find_inputs(paths: Sequence[Path]) -> Inputs:
    """List the images and slides that paths name, each once.

    In a folder these are the files with the suffix of one, not those of folders in it, and not
    those named like results, which may be in the same folder. The DICOM files of a series are one
    slide, named by the first of them; one whose series cannot be told is a slide of its own.
    """
    found = Inputs()
    seen: dict[str, Path] = {}
    for named in paths:
        for path in _inside(named, found) if os.path.isdir(named) else [named]:
            try:
                path.stat()
            except OSError as error:
                reason = 'no such file or folder' if not os.path.lexists(path) else error.strerror
                found.problems.append(f'{path}: {reason}')
                continue
            place = os.path.realpath(path)
            if place not in seen:
                found.paths.append(path)
            elif seen[place] == path:
                found.notes.append(f'{path}: named twice, segmented once')
            else:
                other = seen[place]
                found.notes.append(f'{path}: the same file as {other}, segmented under that name')
            seen.setdefault(place, path)
    return found


def _inside(folder: Path, found: Inputs) -> list[Path]:
    """The images and slides in a folder; what is left out becomes a note."""
    try:
        items = sorted(item for item in folder.iterdir() if not item.name.startswith('.'))
    except OSError as error:
        found.problems.append(f'{folder}: {error.strerror}')
        return []
    inside = [item for item in items if item.suffix.lower() in IMAGES + SCANS]
    results = [item for item in items if item.name.endswith(TABLES)]
    dicom = [item for item in inside if item.suffix.lower() == '.dcm' and item not in results]
    first: dict[bytes | Path, Path] = {}
    for item in dicom:
        first.setdefault(series_of(item) or item, item)  # one without a series stands for itself
    further = set(dicom) - set(first.values())
    chosen = [item for item in inside if item not in results and item not in further]
    # An MRXS slide has its further files in a folder of its name.
    parts = {item.stem for item in chosen if item.suffix.lower() == '.mrxs'}
    others = sorted(set(items) - set(inside) - set(results))
    folders = [item for item in others if item.is_dir() and item.name not in parts]
    left = [item.name for item in others if not item.is_dir()]
    if further:
        slides_of = some([item.name for item in first.values()])
        found.notes.append(
            f'{folder}: {len(dicom)} DICOM files taken for {len(first)} slides, one a series: '
            f'{slides_of}'
        )
    if left:
        found.notes.append(f'{folder}: no image by its suffix, left out: {some(left)}')
    if folders:
        names = some([f'{item.name}/ with {_count_files(item)} files' for item in folders])
        found.notes.append(f'{folder}: folders in it are left out, name them too: {names}')
    if images := [item.name for item in results if item in inside]:
        found.notes.append(f'{folder}: named like results of a run, left out: {some(images)}')
    if not chosen:
        found.problems.append(f'{folder}: no image or slide in it')
    return chosen


def _count_files(folder: Path) -> int:
    return sum(path.is_file() for path in folder.rglob('*'))


def name_outputs(paths: Sequence[Path]) -> list[str]:
    """Name the results: like the file, and where two would be the same, with its folder.

    Args:
        paths: all different.
    """
    levels = [0] * len(paths)
    while True:
        names = [_name(path, level) for path, level in zip(paths, levels, strict=True)]
        counts = Counter(names)
        if max(counts.values(), default=0) <= 1:
            return names
        levels = [level + (counts[name] > 1) for level, name in zip(levels, names, strict=True)]


def _name(path: Path, level: int) -> str:
    """A name that tells more of the path the higher the level."""
    stem = name_of(path)
    folders = Path(os.path.realpath(path)).parts[1:-1]
    if level == 0:
        return stem
    if level == 1:
        return '_'.join([*folders[-1:], stem])
    name = '_'.join([*folders[-(level - 1) :], path.name.replace('.', '_')])
    if level - 1 > len(folders):  # a path with / in the place of another's _
        name += f'_{hashlib.sha256(os.fsencode(os.path.realpath(path))).hexdigest()[:8]}'
    return name
