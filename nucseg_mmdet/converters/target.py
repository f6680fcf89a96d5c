"""Where a data set is written: over an earlier one alone, and not over what is read."""

import os
from pathlib import Path

from nucseg_mmdet.converters.folds import NUM_FOLDS
from nucseg_mmdet.structures.coco import load_json
from nucseg_mmdet.utils.errors import UserError, some

PARTS = ('train', 'test')


def check_target(out: Path, overwrite: bool) -> None:
    """Refuse to write where something is that ``base.prepare`` did not make.

    Raises:
        UserError: ``out`` is a file, or a folder with content that may not be replaced.
    """
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not out.is_dir():
        raise UserError(f'{out}: a file, expected a folder to make')
    if not overwrite:
        raise UserError(f'{out}: there already; --overwrite replaces it')
    others = _foreign(out)
    if others:
        raise UserError(
            f'{out}: not a prepared data set alone (has {some(others)}), will not replace it: '
            'take another OUT'
        )


def check_apart(out: Path, *read: Path) -> None:
    """Refuse to replace the folder in which the raw data lies.

    Raises:
        UserError: one of ``read`` is ``out`` or below it.
    """
    for path in read:
        # Not Path.resolve, which raises where links lead in a circle.
        if Path(os.path.realpath(path)).is_relative_to(os.path.realpath(out)):
            raise UserError(f'{out}: has {path} in it, which is read, expected another OUT')


def _foreign(out: Path) -> list[str]:
    """What lies in a folder beside a prepared data set, but for hidden files, sorted."""
    if not (out / 'annotations/train.json').is_file():
        return sorted(path.name for path in out.iterdir())
    folds = (
        f'fold{number}_{part}' for number in range(1, NUM_FOLDS + 1) for part in ('train', 'val')
    )
    known = {f'annotations/{name}.json' for name in (*PARTS, *folds)}
    for part in PARTS:
        truth = load_json(out / 'annotations' / f'{part}.json')
        try:
            known |= {f'{part}/{image["file_name"]}' for image in truth['images']}
        except (KeyError, TypeError):
            return [f'annotations/{part}.json without images']
    folders = {'annotations', *PARTS}
    found = [path for path in out.glob('*') if path.name not in folders]
    found += [path for folder in folders for path in (out / folder).glob('*')]
    names = (path.relative_to(out).as_posix() for path in found if path.name[0] != '.')
    return sorted(set(names) - known)
