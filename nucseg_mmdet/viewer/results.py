"""The slides of a results folder: which files belong to each, checked before any is opened."""

import json
import re
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from nucseg_mmdet.export.writer import SUMMARY
from nucseg_mmdet.slides.pixel_size import MAX_MPP, MIN_MPP
from nucseg_mmdet.utils.errors import UserError, describe_item
from nucseg_mmdet.utils.reading import MOST_TEXT, read_bytes
from nucseg_mmdet.viewer.sources import read_class

MAX_SIDE = 100_000_000  # px; a hundred times the largest slide
Region = tuple[int, int, int, int]
SHOWN = ('nuclei', 'tissue_mm2', 'broken_tiles', 'tile_grid')  # of a summary, by the page
TABLES, OUTLINES, BOTH = ('.csv',), ('.geojson', '.geojson.gz'), ('.parquet',)


class Result(NamedTuple):
    """What a run has left of one slide.

    Attributes:
        name: of the slide.
        width: of the slide, full-resolution px.
        height: likewise.
        mpp: microns per full-resolution px; None if unknown.
        table: CSV, or Parquet where CSV or GeoJSON is not there.
        outlines: GeoJSON, compressed or not; or the same Parquet.
        slide: its file; None if it was not found.
        summary: all that the run says of it.
        region: x, y, width, height of the part that was segmented, full-resolution px; None if all
            of the slide was, or nothing is said.
    """

    name: str
    width: int
    height: int
    mpp: float | None
    table: Path
    outlines: Path
    slide: Path | None
    summary: dict[str, Any]
    region: Region | None = None


def find_results(folder: Path, slides: Sequence[Path] = ()) -> tuple[list[Result], list[str]]:
    """Find the finished slides of a results folder.

    Args:
        folder: that ``nucseg segment`` wrote to.
        slides: files of slides, or folders of them, that go before the paths which the run
            has noted.

    Returns:
        By name, numbers in it by their size; and a line for each slide that can't be shown, and
        each given path that has none of the others.

    Raises:
        UserError: the folder has no results, none can be shown, or a path does not exist.
    """
    if not folder.is_dir():
        raise UserError(f'{folder}: no such folder, expected the results of nucseg segment')
    for path in slides:
        if not path.exists():
            raise UserError(f'{path}: no such file or folder, expected slides')
    paths = sorted(folder.glob(f'*{SUMMARY}'), key=_natural)
    if not paths:
        raise UserError(
            f'{folder}: no *{SUMMARY} in it, expected the results of nucseg segment; '
            'an unfinished run has none yet'
        )
    found, problems = [], []
    for path in paths:
        try:
            found.append(_read(path, slides))
        except Exception as error:
            problems.append(describe_item(path, error))
    if not found:
        raise UserError(*problems)
    for path in slides:
        if not any(one.slide in (path, path / one.slide.name) for one in found if one.slide):
            problems.append(f'{path}: no slide of {folder}, expected a file of the name it had')
    return found, problems


def _natural(path: Path) -> tuple[list[str | int], str]:
    """Sorts as a file manager does: more2 before more10, whatever the case."""
    parts = re.split('([0-9]+)', path.name.removesuffix(SUMMARY).casefold())
    # Text and numbers take turns, so like is compared with like.
    return [int(part) if index % 2 else part for index, part in enumerate(parts)], path.name


def _read(path: Path, slides: Sequence[Path]) -> Result:
    try:
        summary = json.loads(read_bytes(path, MOST_TEXT))
        name, files = str(summary['name']), [str(file) for file in summary['files']]
        width, height = int(summary['width']), int(summary['height'])
        mpp = summary.get('microns_per_pixel')
        mpp = None if mpp is None else float(mpp)
        noted = Path(str(summary['path']))
        is_name = bool(name) and name == Path(name).name and '\0' not in name
        rest = is_name and _is_right(summary)
    except RecursionError:
        raise UserError(f'{path}: JSON nested too deep, expected the summary of a run') from None
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise UserError(f'{path}: no summary of a run ({error!r:.200}), expected one') from None
    sizes = 0 < width <= MAX_SIDE and 0 < height <= MAX_SIDE
    if not sizes or (mpp is not None and not MIN_MPP <= mpp <= MAX_MPP):
        raise UserError(f'{path}: found {width} x {height} px at {mpp} microns, expected a slide')
    if not rest:
        raise UserError(f'{path}: no summary of a run (of other kinds of values), expected one')
    table, outlines = _find_nuclei(path, files)
    slide = _find_slide(noted, path.parent, slides)
    region = _read_region(path, summary, width, height)
    return Result(name, width, height, mpp, table, outlines, slide, summary, region)


def _is_right(summary: dict[str, Any]) -> bool:
    """Whether what the index and the page read besides is of the kinds that a run writes."""
    identity, corner = summary.get('identity') or {}, summary.get('qupath_corner', [0, 0])
    for one in summary.get('classes') or []:
        read_class(dict(classification=one))
    shown = [summary.get(key) for key in SHOWN]
    with suppress(ValueError):  # a number that JSON has no word for
        json.dumps([shown, corner], allow_nan=False)
        return (
            isinstance(identity, dict)
            and isinstance(identity.get('slide') or {}, dict)
            and isinstance(corner, list)
            and len(corner) == 2
            and all(type(part) in (int, float) for part in corner)
        )
    return False


def _read_region(path: Path, summary: dict[str, Any], width: int, height: int) -> Region | None:
    """The part of the slide that a run has segmented; None where it is all of it."""
    identity = summary.get('identity')
    region = identity.get('region') if isinstance(identity, dict) else None
    if region is None or region == [0, 0, width, height]:
        return None
    whole = isinstance(region, list) and len(region) == 4
    if whole and all(type(part) is int for part in region):
        x, y, wide, high = region
        if x >= 0 and y >= 0 and 0 < wide <= width - x and 0 < high <= height - y:
            return x, y, wide, high
    raise UserError(
        f'{path}: region is {region!r:.60}, expected x, y, width, height on {width} x {height} px'
    )


def _find_nuclei(summary: Path, files: Sequence[str]) -> tuple[Path, Path]:
    """Find table and outlines; Parquet, which is both, where one of them is not there."""
    table, outlines, both = (_named(summary, files, kind) for kind in (TABLES, OUTLINES, BOTH))
    if table and outlines and ((table.is_file() and outlines.is_file()) or not both):
        pair = table, outlines
    elif both:
        pair = both, both
    else:
        raise UserError(
            f'{summary}: names no CSV and GeoJSON, and no Parquet, expected nucseg segment '
            '--format geojson csv, or parquet'
        )
    for path in pair:
        if not path.is_file():
            raise UserError(f'{path}: no such file, though {summary.name} names it')
    return pair


def _named(summary: Path, files: Sequence[str], endings: tuple[str, ...]) -> Path | None:
    """The file that a summary names, if any; it has to lie in the summary's own folder."""
    folder = summary.parent.resolve()
    for name in files:
        if not name.endswith(endings):
            continue
        path = summary.with_name(name) if Path(name).name == name else None
        if path is None or path.resolve().parent != folder:
            raise UserError(f'{summary}: names {name!r}, expected a file of the same folder')
        return path
    return None


def _find_slide(noted: Path, folder: Path, slides: Sequence[Path]) -> Path | None:
    """Find a slide by its name where the user says, else where the run has read it."""
    given = [path / noted.name if path.is_dir() else path for path in slides]
    places = [path for path in given if path.name == noted.name]
    places += [noted, folder / noted, folder / noted.name]
    return next((path for path in places if path.is_file()), None)
