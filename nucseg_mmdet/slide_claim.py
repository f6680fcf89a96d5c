"""Whose results, and rows of tiles, lie in the output folder: go on with them, or refuse."""

import json
import os
import shutil
import time
from pathlib import Path

from nucseg_mmdet.errors import UserError
from nucseg_mmdet.slide_plan import Plan, Settings

PATIENCE = 300  # s without a sign of life after which another process counts as ended
POLL = 0.2  # s between looks at what the other processes have done


def claim(plan: Plan, settings: Settings, rank: int) -> dict | None:
    """Take the folder of a slide's rows, or go on with it.

    Args:
        plan: of the slide.
        settings: for all slides.
        rank: of this process; process 0 makes the folder, the others wait for it.

    Returns:
        The summary if the slide is finished already, else None.

    Raises:
        UserError: there are results, or rows of tiles, of other settings.
    """
    note, until = plan.folder / 'run.json', time.monotonic() + PATIENCE
    while True:
        summary = _read_json(summary_path(plan, settings))
        if summary and summary['identity'] == plan.identity:
            if summary['output'] == output_settings(settings) and all(
                (settings.out / name).is_file() for name in summary['files']
            ):
                if rank == 0:
                    shutil.rmtree(plan.folder, ignore_errors=True)
                return summary
        elif summary and not settings.overwrite:
            _refuse(plan, summary_path(plan, settings), summary['identity'])
        found = _read_json(note)
        if found == plan.identity:
            return None
        if found and not settings.overwrite:
            _refuse(plan, plan.folder, found)
        if rank == 0:
            shutil.rmtree(plan.folder, ignore_errors=True)
            plan.folder.mkdir()
            write_json(note, plan.identity)
            return None
        if time.monotonic() > until:
            raise UserError(f'{plan.folder}: process 0 has not made it')
        time.sleep(POLL)


def _refuse(plan: Plan, path: Path, found: dict) -> None:
    names = [key for key in plan.identity if found.get(key) != plan.identity[key]]
    raise UserError(
        f'{path}: made with other settings ({", ".join(names)}), expected the same, another '
        '--out, or --overwrite'
    )


def summary_path(plan: Plan, settings: Settings) -> Path:
    return settings.out / f'{plan.target.name}.summary.json'


def output_settings(settings: Settings) -> dict:
    """What the files depend on besides the nuclei."""
    return dict(
        formats=list(settings.formats), simplify=settings.simplify, compress=settings.compress
    )


def _read_json(path: Path) -> dict | None:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):
        return None


def write_json(path: Path, content: dict) -> None:
    beside = path.with_name(f'.{path.name}.partial')
    beside.write_text(json.dumps(content, indent=2) + '\n')
    os.replace(beside, path)
