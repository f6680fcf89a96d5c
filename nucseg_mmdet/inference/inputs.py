"""Which images and slides are meant, and what their results are called."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from nucseg_mmdet.export.formats import FORMATS
from nucseg_mmdet.utils.errors import UserError

IMAGES = ('.png', '.jpg', '.jpeg', '.tif', '.tiff')
SCANS = ('.svs', '.ndpi', '.mrxs', '.scn', '.svslide', '.bif', '.vms', '.vmu', '.dcm')
TISSUE = '.tissue.png'  # end of the name of a picture of the tissue that is segmented
RESULTS = (TISSUE, *(writer.suffix for writer in FORMATS.values()))  # ends of names


def find_inputs(paths: Sequence[Path]) -> list[Path]:
    """List the images and slides that paths name, each once.

    In a folder these are the files with the suffix of one, not those of folders in it, and not
    those named like results, which may be in the same folder. A folder of DICOM files is one slide.

    Raises:
        UserError: a path does not exist, or a folder has no image.
    """
    found: list[Path] = []
    for path in paths:
        if not path.exists():
            raise UserError(f'{path}: no such file or folder')
        if not path.is_dir():
            found.append(path)
            continue
        inside = sorted(
            item
            for item in path.iterdir()
            if item.suffix.lower() in IMAGES + SCANS
            and not item.name.startswith('.')
            and not item.name.endswith(RESULTS)
        )
        dicom = [item for item in inside if item.suffix.lower() == '.dcm']
        inside = [item for item in inside if item not in dicom[1:]]
        if not inside:
            raise UserError(f'{path}: no image or slide in it')
        found += inside
    return list({path.resolve(): path for path in found}.values())


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
    stem = path.stem.removesuffix('.ome')
    folders = path.resolve().parts[1:-1]
    if level == 0:
        return stem
    if level == 1:
        return '_'.join([*folders[-1:], stem])
    name = '_'.join([*folders[-(level - 1) :], path.name.replace('.', '_')])
    if level - 1 > len(folders):  # a path with / in the place of another's _
        name += f'_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:8]}'
    return name
