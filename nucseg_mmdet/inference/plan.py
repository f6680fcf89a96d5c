"""What there is to do for each slide: its tiles, its names, the space that it takes."""

import hashlib
import json
import math
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from nucseg_mmdet import __version__
from nucseg_mmdet.export.formats import FORMATS, obstacles
from nucseg_mmdet.export.writer import SUMMARY, Options, Target
from nucseg_mmdet.inference.frame import Frame, Region, make_frame
from nucseg_mmdet.inference.segmenter import Segmenter
from nucseg_mmdet.inference.tiling import Grid
from nucseg_mmdet.slides.base import RegionError, Slide
from nucseg_mmdet.slides.open import open_shared
from nucseg_mmdet.slides.parts import slide_signs
from nucseg_mmdet.slides.pixel_size import MODEL_MPP, PixelSize
from nucseg_mmdet.slides.tissue import draw_mask, is_white, tissue_mask
from nucseg_mmdet.structures.classes import ONE_CLASS, NucleusClass
from nucseg_mmdet.utils.errors import UserError, describe

DENSITY = 8_000  # nuclei per mm2 of tissue, as in the class images
LONGEST_NAME = 255  # bytes, of most file systems
SHARD_BYTES = 600  # of a nucleus while its slide is not finished


class Settings(NamedTuple):
    """What to make of the slides.

    Attributes:
        out: folder of the results.
        formats: keys of ``FORMATS``.
        mpp: microns per level-0 px of all slides; by default what the files say.
        region: of each slide; by default whole slides.
        skip_glass: segment only where there is tissue.
        simplify: of GeoJSON outlines, level-0 px.
        compress: write GeoJSON with gzip.
        features: also measure the surroundings and the texture of nuclei.
        overwrite: start anew where there are results, or rows, of other settings, or files
            that no run has made.
    """

    out: Path
    formats: tuple[str, ...]
    mpp: float | None = None
    region: Region | None = None
    skip_glass: bool = True
    simplify: float = 0.0
    compress: bool = False
    features: bool = False
    overwrite: bool = False


@dataclass(frozen=True)
class Plan:
    """A slide's part of the work.

    Attributes:
        path: of the slide.
        folder: of its rows of tiles.
        frame: of the working image.
        grid: its tiles.
        wanted: bool, (rows, columns); tiles to segment.
        tissue_mm2: area of the tissue.
        target: what the writers have to know.
        pixel_size: of the slide.
        notes: lines for the user.
        identity: what the rows of tiles depend on.
        device: that the model runs on.
        classes: of nuclei that the model tells apart.
        colors: of the slide, for the predictor.
        tissue_picture: uint8, (h, w, 3), RGB; what counts as tissue, if there is glass.
    """

    path: Path
    folder: Path
    frame: Frame
    grid: Grid
    wanted: np.ndarray
    tissue_mm2: float
    target: Target
    pixel_size: PixelSize
    notes: list[str]
    identity: dict
    device: str
    classes: tuple[NucleusClass, ...] = ONE_CLASS
    colors: Any = None
    tissue_picture: np.ndarray | None = None

    def shard(self, row: int) -> Path:
        """The file of a row of tiles."""
        return self.folder / f'row_{row:05d}.npz'

    def shards(self) -> list[Path]:
        return [self.shard(row) for row in range(len(self.wanted))]

    def place(self, row: int) -> str:
        """What a row of tiles is a row of, so that no copy of another is taken for it."""
        identity = json.dumps(self.identity, sort_keys=True).encode()
        return f'{row} of {hashlib.sha256(identity).hexdigest()[:16]}'


@dataclass
class Tissue:
    """What of a slide is tissue.

    Attributes:
        wanted: bool, (rows, columns); tiles to segment.
        mm2: area of the tissue in the region.
        picture: uint8, (h, w, 3), RGB; None if nothing is left out.
        notes: what went wrong, a line each.
    """

    wanted: np.ndarray
    mm2: float
    picture: np.ndarray | None = None
    notes: list[str] = field(default_factory=list)


def plan_slide(path: Path, name: str, settings: Settings, segmenter: Segmenter) -> Plan:
    """Open a slide and settle where to look for nuclei.

    Args:
        path: of the slide.
        name: of its results.
        settings: for all slides.
        segmenter: of its tiles.

    Raises:
        UserError: it cannot be opened, the region is not on it, no format can be written for it, or
            its name is too long.
    """
    file = slide_signs(path)  # before it is read, so that a change meanwhile is one
    slide = open_shared(path, settings.mpp)
    try:
        frame = make_frame(slide, settings.region)
    except UserError as error:
        raise UserError(f'{path}: {error}') from None
    grid = segmenter.make_grid(frame)
    target = Target(
        name,
        slide.width,
        slide.height,
        frame.scale,
        MODEL_MPP,
        frame.region if settings.region else None,
        corner=frame.corner,
        qupath_corner=slide.bounds[:2] if slide.bounds else (0, 0),
    )
    left_out = _check_formats(path, target, settings)
    _check_names(path, target, settings)
    tissue = find_tiles(slide, frame, grid, settings.skip_glass)
    return Plan(
        path=path,
        folder=settings.out / f'{name}.partial',
        frame=frame,
        grid=grid,
        wanted=tissue.wanted,
        tissue_mm2=tissue.mm2,
        target=target,
        pixel_size=slide.pixel_size,
        notes=[
            note if str(path) in note else f'{path}: {note}'
            for note in [*slide.notes, *_note_on_region(settings, frame), *tissue.notes, *left_out]
        ],
        identity=identify(file, slide, frame, settings, segmenter),
        device=segmenter.predictor.device,
        classes=segmenter.classes,
        colors=segmenter.slide_colors(slide, frame, grid, tissue.wanted),
        tissue_picture=tissue.picture,
    )


def _note_on_region(settings: Settings, frame: Frame) -> list[str]:
    """A line where only a part of the region is on the slide."""
    if settings.region in (None, frame.region):
        return []
    asked, used = (','.join(map(str, region)) for region in (settings.region, frame.region))
    return [f'region {asked} reaches beyond the slide, {used} is used']


def _check_formats(path: Path, target: Target, settings: Settings) -> list[str]:
    """A line for each format that cannot be written for a slide.

    Raises:
        UserError: none can.
    """
    found = obstacles(settings.formats, target)
    lines = [f'no {name}, {reason}' for name, reason in found.items()]
    if len(found) == len(settings.formats):
        raise UserError(f'{path}: {"; ".join(lines)}: expected another --format')
    return lines


def _check_names(path: Path, target: Target, settings: Settings) -> None:
    """Check that the file system takes the names of the results.

    Raises:
        UserError: one is too long.
    """
    try:
        most = os.pathconf(settings.out, 'PC_NAME_MAX')
    except (AttributeError, OSError):  # not on Windows; or there is no folder yet
        most = LONGEST_NAME
    options = Options(settings.compress)
    names = [FORMATS[name].file_name(target, options) for name in settings.formats]
    for name in (*names, f'{target.name}{SUMMARY}'):
        if (length := len(os.fsencode(name))) > most:
            end = name.removeprefix(target.name)
            raise UserError(
                f'{path}: the name of its {end} would have {length} bytes, expected at most '
                f'{most}; rename the file'
            )


def check_unchanged(plan: Plan) -> None:
    """Check that a slide is what it was when it was planned.

    Raises:
        UserError: it is not, or cannot be opened.
    """
    known = plan.identity['slide']
    if dict(slide_signs(plan.path), width=known['width'], height=known['height']) != known:
        raise UserError(f'{plan.path}: has changed during the run, expected the same until its end')


def open_planned(plan: Plan, settings: Settings) -> Slide:
    """Open the slide of a plan.

    Raises:
        UserError: as ``check_unchanged`` and ``open_slide``.
    """
    check_unchanged(plan)
    return open_shared(plan.path, settings.mpp)


def try_to_plan(
    path: Path, name: str, settings: Settings, segmenter: Segmenter
) -> Plan | UserError:
    """Plan a slide, or say in a line what is wrong with it, foreseen or not."""
    try:
        return plan_slide(path, name, settings, segmenter)
    except Exception as error:
        return problem(path, error)


def problem(path: Path, error: Exception) -> UserError:
    """The line for what went wrong with a slide."""
    line = describe(error)
    return UserError(line if str(path) in line else f'{path}: {line}')


def find_tiles(slide: Slide, frame: Frame, grid: Grid, skip_glass: bool) -> Tissue:
    """Find the tiles with tissue; all, if it cannot be told from glass.

    Args:
        slide: opened.
        frame: of the working image.
        grid: its tiles.
        skip_glass: leave out tiles without tissue.
    """
    shape = len(grid.tops), len(grid.lefts)
    everything = np.ones(shape, bool)
    try:
        mask = tissue_mask(slide)
    except RegionError as error:
        area = frame.region[2] * frame.region[3] * (slide.mpp / 1000) ** 2
        return Tissue(everything, area, notes=[f'{error}; the tissue is not told from glass'])
    tissue = Tissue(everything, mask.area_mm2(slide.mpp, frame.region))
    if not tissue.mm2 and not is_white(slide, frame.region):
        tissue.notes.append(
            'no tissue is found, though the image is not white; --no-tissue-mask looks at all of it'
        )
    rectangles = tile_rectangles(frame, grid)
    if skip_glass:
        tissue.wanted = mask.holds(rectangles).reshape(shape)
    if not tissue.wanted.all():
        try:
            tissue.picture = draw_mask(slide, mask, rectangles)
        except RegionError as error:
            tissue.notes.append(f'{error}; no picture of the tissue')
    return tissue


def identify(
    file: dict, slide: Slide, frame: Frame, settings: Settings, segmenter: Segmenter
) -> dict:
    """What the nuclei of a slide depend on: rows of tiles are joined only if all of it is equal."""
    return dict(
        version=__version__,
        slide=dict(file, width=slide.width, height=slide.height),
        microns_per_pixel=slide.mpp,
        region=list(frame.region),
        skip_glass=settings.skip_glass,
        **segmenter.identity,
    )


def tile_rectangles(frame: Frame, grid: Grid) -> np.ndarray:
    """Where tiles lie on the slide: float, (N, 4), xywh, level-0 px, row by row."""
    places = product(range(len(grid.tops)), range(len(grid.lefts)))
    corner = np.array([frame.left, frame.top, 0, 0])
    return (np.array([grid.tile(*place) for place in places]) + corner) * frame.scale


def check_space(plans: Sequence[Plan], settings: Settings) -> None:
    """Compare what the results will take with what is free.

    Raises:
        UserError: the space will not do if there are as many nuclei as in the class images.
    """
    area = sum(plan.tissue_mm2 for plan in plans)
    each = SHARD_BYTES + sum(FORMATS[name].nucleus_bytes for name in settings.formats)
    need, free = area * DENSITY * each, shutil.disk_usage(settings.out).free
    if need > free:
        raise UserError(
            f'{settings.out}: {in_bytes(free)} free, about {in_bytes(need)} needed for '
            f'{area * DENSITY:,.0f} nuclei on {area:,.3g} mm2 of tissue: '
            'free some, or take another --out'
        )


def in_bytes(number: float) -> str:
    """Say a number of bytes in the unit that suits it: ``1.2 kB``, ``36.8 GB``."""
    power = min(int(math.log10(max(number, 1)) / 3), 4)
    return f'{number / 1000**power:,.1f} {("B", "kB", "MB", "GB", "TB")[power]}'
