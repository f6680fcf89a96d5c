"""The files of a slide whose rows of tiles are all done."""

import shutil
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from itertools import product
from typing import Any

import numpy as np

from nucseg_mmdet.export.formats import open_writers
from nucseg_mmdet.export.writer import Options
from nucseg_mmdet.inference import shards, tiling
from nucseg_mmdet.inference.features import FEATURES, with_features
from nucseg_mmdet.inference.output_folder import (
    note_files,
    output_settings,
    summary_path,
    take_over_old_files,
)
from nucseg_mmdet.inference.plan import (
    Plan,
    Settings,
    check_unchanged,
    open_planned,
    tile_rectangles,
)
from nucseg_mmdet.slides.base import RegionError
from nucseg_mmdet.structures.nuclei import Nuclei
from nucseg_mmdet.utils.errors import UserError, count_nuclei, counted
from nucseg_mmdet.utils.files import write_json
from nucseg_mmdet.utils.fingerprint import fingerprint


def finish(plan: Plan, settings: Settings, facts: dict) -> dict:
    """Join all rows of a slide into its files; then its shards are not needed any more.

    Args:
        plan: whose shards are all there.
        settings: for all slides.
        facts: about the run, for the summary.

    Returns:
        The summary, which is also written.

    Raises:
        UserError: a file cannot be written, a shard not read, or the slide has changed.
    """
    check_unchanged(plan)
    if missing := sum(not path.is_file() for path in plan.shards()):
        raise UserError(
            f'{plan.folder}: {missing} of {len(plan.wanted)} rows of tiles are missing, expected '
            'all: do all workers see the same --out?'
        )
    counts: dict[str, Any] = {}
    fingerprints = _write_files(plan, settings, counts)
    num = counts['nuclei']
    rectangles = tile_rectangles(plan.frame, plan.grid).reshape(*plan.wanted.shape, 4)
    summary = dict(
        name=plan.target.name,
        path=str(plan.path),
        width=plan.target.width,
        height=plan.target.height,
        qupath_corner=list(plan.target.qupath_corner),
        microns_per_pixel=plan.pixel_size.mpp,
        microns_per_pixel_source=plan.pixel_size.source,
        nuclei=num,
        tissue_mm2=round(plan.tissue_mm2, 6),
        nuclei_per_mm2=round(num / plan.tissue_mm2, 1) if plan.tissue_mm2 else None,
        classes=[
            dict(one._asdict(), nuclei=int(number))
            for one, number in zip(plan.classes, counts['classes'], strict=True)
        ],
        nuclei_cut_by_tiles=counts['cut'],
        tiles=int(plan.wanted.sum()),
        tiles_skipped_as_glass=int((~plan.wanted).sum()),
        broken_tiles=_describe_broken(plan, rectangles),
        tile_grid=_describe_grid(rectangles, plan.wanted),
        seconds=round(sum(map(shards.read_seconds, plan.shards())), 1),
        **facts,
        files=list(fingerprints),
        fingerprints=fingerprints,
        notes=plan.notes,
        output=output_settings(settings),
        identity=plan.identity,
    )
    take_over_old_files(plan, settings, summary)
    write_json(summary_path(plan, settings), summary)
    shutil.rmtree(plan.folder, ignore_errors=True)
    return summary


def _write_files(plan: Plan, settings: Settings, counts: dict[str, Any]) -> dict[str, dict]:
    """Join all rows into files, counting as ``_join``; their fingerprints, by name."""
    image = partial(_read_image, plan, settings)
    names = FEATURES if settings.features else ()
    options = Options(settings.compress, settings.simplify, image, plan.path, names, plan.classes)
    batches = _join(plan, counts)
    if settings.features:
        slide = open_planned(plan, settings)
        batches = with_features(partial(_join, plan, counts), slide, plan.frame)
    with open_writers(settings.formats, settings.out, plan.target, options) as writers:
        for nuclei in batches:
            writers.write(nuclei)
        fingerprints = {name: fingerprint(path) for name, path in writers.finish().items()}
        note_files(plan, fingerprints)
    return fingerprints


def _describe_broken(plan: Plan, rectangles: np.ndarray) -> list[str]:
    """A line for each tile that could not be read."""
    return [
        f'tile at {rectangles[row, column, 0]:.0f},{rectangles[row, column, 1]:.0f}: {reason}'
        for row, path in enumerate(plan.shards())
        for column, reason in shards.read_broken(path)
    ]


def _describe_grid(rectangles: np.ndarray, wanted: np.ndarray) -> dict:
    """Which tiles were looked at, for the viewer: sides in full-resolution px, a text a row."""
    x, y, widths, heights = np.round(rectangles).astype(int).transpose(2, 0, 1)
    return dict(
        lefts=x[0].tolist(),
        widths=widths[0].tolist(),
        tops=y[:, 0].tolist(),
        heights=heights[:, 0].tolist(),
        looked_at=[''.join('01'[tile] for tile in row) for row in wanted.astype(int)],
    )


def _join(plan: Plan, counts: dict[str, Any]) -> Iterator[Nuclei]:
    """Join all rows; counts the nuclei, those of each class, and those that tiles cut."""
    num = len(plan.classes)
    counts.update(nuclei=0, cut=0, classes=np.zeros(num, np.int64))
    rows = (shards.read_row(path, plan.place(row)) for row, path in enumerate(plan.shards()))
    for part in tiling.join_rows(rows, plan.grid):
        counts['nuclei'] += len(part.nuclei)
        counts['cut'] += int(part.cut.sum())
        counts['classes'] += np.bincount(part.nuclei.labels, minlength=num)
        yield part.nuclei


def describe(summary: dict) -> str:
    """Say in one line what a slide holds."""
    density = summary['nuclei_per_mm2']
    per_area = '' if density is None else f', {density:,.0f} per mm2'
    line = (
        f'{summary["name"]}: {count_nuclei(summary["nuclei"])} on {summary["tissue_mm2"]:.4g} mm2 '
        f'of tissue{per_area}; {counted(summary["tiles"], "tile", "tiles")}, '
        f'{summary["tiles_skipped_as_glass"]:,} of glass left out; '
        f'{summary["seconds"]:,.0f} s on {summary["device"]} in {summary["precision"]}'
    )
    if len(summary['classes']) > 1:
        named = (f'{one["nuclei"]:,} {one["name"]}' for one in summary['classes'])
        line += f'; {", ".join(named)}'
    if summary['nuclei_cut_by_tiles']:
        line += (
            '; larger than the overlap of tiles and cut: '
            f'{count_nuclei(summary["nuclei_cut_by_tiles"])}, see --overlap'
        )
    return line


def _read_image(plan: Plan, settings: Settings) -> np.ndarray:
    """The slide or its region at full resolution, white where it cannot be read."""
    left, top, width, height = plan.target.box
    image = np.full((height, width, 3), 255, np.uint8)
    side = 1024  # px
    slide = open_planned(plan, settings)
    for y, x in product(range(0, height, side), range(0, width, side)):
        part = image[y : y + side, x : x + side]
        with suppress(RegionError):
            part[:] = slide.read(left + x, top + y, part.shape[1], part.shape[0])
    return image
