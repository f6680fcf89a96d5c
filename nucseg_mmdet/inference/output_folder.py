"""What lies in the output folder already: results and rows of tiles to go on with, or to refuse."""

import json
import shutil
from collections.abc import Collection, Iterable
from pathlib import Path

from nucseg_mmdet.export.formats import FORMATS
from nucseg_mmdet.export.writer import SUMMARY, Options
from nucseg_mmdet.inference.inputs import TISSUE
from nucseg_mmdet.inference.plan import Plan, Settings
from nucseg_mmdet.utils.errors import UserError
from nucseg_mmdet.utils.files import new_folder, write_json
from nucseg_mmdet.utils.fingerprint import has_fingerprint
from nucseg_mmdet.utils.reading import read_bytes

NOTE = 'run.json'  # in the folder of a slide's rows: what they depend on
FILES = 'files.json'  # likewise: fingerprints of what is about to be put in place
# Of a summary, and of the fingerprint of a file.
NEEDED = dict(identity=dict, output=dict, files=list, nuclei=int, broken_tiles=list)
SIGNS = {'bytes', 'changed', 'sha256'}


def goes_on(plan: Plan, settings: Settings) -> bool:
    """Whether the folder of a slide's rows is one to go on with; nothing is changed.

    Args:
        plan: of the slide, which is not finished.
        settings: for all slides.

    Raises:
        UserError: there are results, or rows of tiles, of other settings, or files that no run
            has made.
    """
    summary = _read_summary(plan, settings)
    known = summary.get('identity')
    if known and known != plan.identity and not settings.overwrite:
        _refuse(plan, summary_path(plan, settings), known)
    found = _read_json(plan.folder / NOTE)
    if not settings.overwrite:
        if found and found != plan.identity:
            _refuse(plan, plan.folder, found)
        _refuse_unknown_files(plan, settings, summary, found == plan.identity)
    return found == plan.identity


def make_folder_of_rows(plan: Plan) -> None:
    """Make the folder of a slide's rows, empty, in place of an earlier one.

    Raises:
        UserError: it cannot be made.
    """
    if plan.folder.is_symlink():
        plan.folder.unlink()  # and not what it leads to
    with new_folder(plan.folder, replace=True) as folder:
        write_json(folder / NOTE, plan.identity)


def finished_before(plan: Plan, settings: Settings) -> dict | None:
    """As ``finished``, but None for one with tiles to read again, where that is allowed."""
    done = finished(plan, settings)
    return None if done and done['broken_tiles'] and settings.overwrite else done


def finished(plan: Plan, settings: Settings) -> dict | None:
    """The summary of a slide whose files of the formats are all there, else None.

    Raises:
        UserError: a file is not as its run left it, and not to be overwritten.
    """
    summary = _read_summary(plan, settings)
    if summary.get('identity') != plan.identity:
        return None
    wanted, written = output_settings(settings), summary['output']
    names = set(_file_names(plan, settings, settings.formats)) & set(summary['files'])
    is_whole = (
        set(wanted['formats']) <= set(written['formats'])
        and wanted == dict(written, formats=wanted['formats'])
        and all((settings.out / name).exists() for name in names)
        and _is_unchanged(settings, summary, names)
    )
    return summary if is_whole else None


def _file_names(plan: Plan, settings: Settings, formats: Iterable[str]) -> list[str]:
    options = Options(settings.compress)
    return [FORMATS[name].file_name(plan.target, options) for name in formats]


def _is_unchanged(settings: Settings, summary: dict, names: Collection[str]) -> bool:
    """Whether files are as their run left them, not cut by a disk or edited by hand.

    Raises:
        UserError: they are not, and are not to be overwritten.
    """
    for name, known in summary.get('fingerprints', {}).items():
        path = settings.out / name
        if name in names and path.exists() and not has_fingerprint(path, known):
            if settings.overwrite:
                return False
            raise UserError(
                f'{path}: is not what the run wrote that its summary is of; '
                '--overwrite does the slide again, or move the file away'
            )
    return True


def _refuse(plan: Plan, path: Path, found: dict) -> None:
    names = [key for key in plan.identity if found.get(key) != plan.identity[key]]
    raise UserError(
        f'{path}: made with other settings ({", ".join(names)}), expected the same, another '
        '--out, or --overwrite'
    )


def _refuse_unknown_files(plan: Plan, settings: Settings, summary: dict, goes_on: bool) -> None:
    """Refuse to replace files that no run has made so.

    Args:
        plan: of the slide.
        settings: for all slides.
        summary: of an earlier run, if there is one.
        goes_on: whether there are rows of a stopped run, which may have put files in place.
    """
    known = []
    if 'identity' in summary:
        known = [summary_path(plan, settings).name, *summary['files']]
    if 'identity' in summary or goes_on:
        known.append(picture_path(plan, settings).name)
    own = _read_json(plan.folder / FILES) if goes_on else {}
    names = _file_names(plan, settings, settings.formats)
    names = [name for name in names if not _is_own(settings.out / name, own.get(name))]
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
    _is_unchanged(settings, summary, names)


def _is_own(path: Path, known: dict | None) -> bool:
    """Whether a file is as a run has put it in place."""
    return known is not None and path.exists() and has_fingerprint(path, known)


def note_files(plan: Plan, fingerprints: dict[str, dict]) -> None:
    """Note the files that are about to be put in place, before a summary tells of them.

    Args:
        plan: of the slide.
        fingerprints: of the files, by name.

    Raises:
        UserError: the note cannot be written.
    """
    write_json(plan.folder / FILES, fingerprints)


def take_over_old_files(plan: Plan, settings: Settings, summary: dict) -> None:
    """Name files of an earlier run in the summary of this one, or remove those of other nuclei.

    Of the same options as well, they are as if made by this run. Files edited since then stay too,
    and are not named: they are nobody's to replace.

    Args:
        plan: of the slide.
        settings: for all slides.
        summary: of this run, whose files are in place; not written yet.
    """
    earlier = _read_summary(plan, settings)
    if earlier.get('identity') is None:
        return
    old = {
        name: known
        for name, known in earlier.get('fingerprints', {}).items()
        if name not in summary['fingerprints'] and _is_own(settings.out / name, known)
    }
    # Runs of one identity may differ, by tiles that could not be read or by the device.
    if all(earlier[key] == summary[key] for key in ('identity', 'nuclei', 'broken_tiles')):
        summary['files'] += list(old)
        summary['fingerprints'] |= old
        if earlier['output'] == dict(summary['output'], formats=earlier['output']['formats']):
            formats = [name for name in earlier['output']['formats'] if name in FORMATS]
            names = _file_names(plan, settings, formats)
            kept = {
                form
                for form, name in zip(formats, names, strict=True)
                if name in old or name not in earlier['files']  # as of one that had an obstacle
            }
            summary['output']['formats'] = sorted(kept.union(settings.formats))
        return
    for name in old:
        path = settings.out / name
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    if earlier['identity'] != plan.identity and plan.wanted.all():
        picture_path(plan, settings).unlink(missing_ok=True)


def summary_path(plan: Plan, settings: Settings) -> Path:
    return settings.out / f'{plan.target.name}{SUMMARY}'


def picture_path(plan: Plan, settings: Settings) -> Path:
    return settings.out / f'{plan.target.name}{TISSUE}'


def output_settings(settings: Settings) -> dict:
    """What the files depend on besides the nuclei."""
    return dict(
        formats=sorted(settings.formats),
        simplify=settings.simplify,
        compress=settings.compress,
        features=settings.features,
    )


def _read_summary(plan: Plan, settings: Settings) -> dict:
    """The summary of an earlier run; nothing if there is none that says what it has to."""
    summary = _read_json(summary_path(plan, settings))
    return summary if _is_summary(summary) else {}


def _is_summary(content: dict) -> bool:
    """Whether it says what it has to, and names files of its own folder only."""
    if not all(isinstance(content.get(key), kind) for key, kind in NEEDED.items()):
        return False
    formats, marks = content['output'].get('formats'), content.get('fingerprints', {})
    if not isinstance(formats, list) or not isinstance(marks, dict):
        return False
    names = [*content['files'], *marks]
    return (
        all(isinstance(name, str) for name in [*names, *formats])
        and all(name == Path(name).name and name not in ('', '..') for name in names)
        and all(isinstance(mark, dict) and mark.keys() >= SIGNS for mark in marks.values())
    )


def _read_json(path: Path) -> dict:
    """What is in a file; nothing if it is missing, damaged or something else."""
    try:
        content = json.loads(read_bytes(path))
    except (UserError, ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}
