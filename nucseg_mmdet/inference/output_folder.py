"""What lies in the output folder already: results and rows of tiles to go on with, or to refuse."""

import json
import os
import shutil
import time
from pathlib import Path

from nucseg_mmdet.export.formats import FORMATS
from nucseg_mmdet.export.writer import Options
from nucseg_mmdet.inference.inputs import TISSUE
from nucseg_mmdet.inference.plan import Plan, Settings
from nucseg_mmdet.utils.errors import UserError

PATIENCE = 300  # s without a sign of life after which another process counts as ended
NOTE = 'run.json'  # in the folder of a slide's rows: what they depend on
POLL = 0.2  # s between looks at what the other processes have done


def start_or_resume(plan: Plan, settings: Settings, rank: int) -> dict | None:
    """Make the folder of a slide's rows, or go on with it.

    Args:
        plan: of the slide.
        settings: for all slides.
        rank: of this process; process 0 makes the folder, the others wait for it.

    Returns:
        The summary if the slide is finished already, else None.

    Raises:
        UserError: there are results, or rows of tiles, of other settings, or files that no run
            has made.
    """
    note, until = plan.folder / NOTE, time.monotonic() + PATIENCE
    while True:
        summary = _read_json(summary_path(plan, settings))
        known = summary.get('identity')
        if known == plan.identity:
            if summary['output'] == output_settings(settings) and all(
                (settings.out / name).exists() for name in summary['files']
            ):
                if rank == 0:
                    shutil.rmtree(plan.folder, ignore_errors=True)
                return summary
        elif known and not settings.overwrite:
            _refuse(plan, summary_path(plan, settings), known)
        found = _read_json(note)
        if found == plan.identity:
            return None
        if found and not settings.overwrite:
            _refuse(plan, plan.folder, found)
        if rank == 0:
            if not settings.overwrite:
                _refuse_unknown_files(plan, settings, summary)
            _make_folder(plan)
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


def _refuse_unknown_files(plan: Plan, settings: Settings, summary: dict) -> None:
    """Refuse to replace files that the run of this summary, if there is one, has not made."""
    if 'identity' in summary:
        known = [summary_path(plan, settings).name, picture_path(plan, settings).name]
        known += summary['files']
    else:
        known = []
    options = Options(settings.compress)
    names = [FORMATS[name].file_name(plan.target, options) for name in settings.formats]
    paths = [*(settings.out / name for name in names), summary_path(plan, settings)]
    if plan.tissue_picture is not None:
        paths.append(picture_path(plan, settings))
    if not (plan.folder / NOTE).exists():
        paths.append(plan.folder)
    for path in paths:
        if path.exists() and path.name not in known:
            raise UserError(
                f'{path}: is there, but of no earlier run, expected another --out, or --overwrite'
            )


def _make_folder(plan: Plan) -> None:
    """Make the folder of a slide's rows anew, with its note or not at all."""
    beside = plan.folder.with_name(f'.{plan.folder.name}.new')
    for folder in (beside, plan.folder):
        shutil.rmtree(folder, ignore_errors=True)
    beside.mkdir()
    write_json(beside / NOTE, plan.identity)
    os.replace(beside, plan.folder)


def summary_path(plan: Plan, settings: Settings) -> Path:
    return settings.out / f'{plan.target.name}.summary.json'


def picture_path(plan: Plan, settings: Settings) -> Path:
    return settings.out / f'{plan.target.name}{TISSUE}'


def output_settings(settings: Settings) -> dict:
    """What the files depend on besides the nuclei."""
    return dict(
        formats=list(settings.formats),
        simplify=settings.simplify,
        compress=settings.compress,
        features=settings.features,
    )


def _read_json(path: Path) -> dict:
    """What is in a file; nothing if it is missing, damaged or something else."""
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def write_json(path: Path, content: dict) -> None:
    beside = path.with_name(f'.{path.name}.partial')
    beside.write_text(json.dumps(content, indent=2) + '\n')
    os.replace(beside, path)
