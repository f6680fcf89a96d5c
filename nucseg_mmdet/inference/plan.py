"""What there is to do for each slide: its tiles, its names, the space that it takes."""

import hashlib
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np

from nucseg_mmdet.export.formats import FORMATS
from nucseg_mmdet.export.writer import Target
from nucseg_mmdet.inference.segmenter import MPP, Frame, Segmenter, make_frame
from nucseg_mmdet.inference.tiling import Grid
from nucseg_mmdet.slides.base import RegionError, Slide
from nucseg_mmdet.slides.open import open_slide
from nucseg_mmdet.slides.tissue import TissueMask, draw_mask, tissue_mask
from nucseg_mmdet.utils.errors import UserError

IMAGES = ('.png', '.jpg', '.jpeg', '.tif', '.tiff')
SCANS = ('.svs', '.ndpi', '.mrxs', '.scn', '.svslide', '.bif', '.vms', '.vmu', '.dcm')
TISSUE = '.tissue.png'  # a picture of what is kept
RESULTS = (TISSUE, *(writer.suffix for writer in FORMATS.values()))  # ends of names
DENSITY = 8_000  # nuclei per mm2 of tissue, as in the class images
SHARD_BYTES = 600  # of a nucleus while its slide is not finished, and below of its results
ASSUMED = 'is assumed'
FORMAT_BYTES = dict(geojson=1_200, csv=180, parquet=120, label=600, coco=200, overlay=0)


class Settings(NamedTuple):
    """What to make of the slides.

    Attributes:
        out: folder of the results.
        formats: keys of ``FORMATS``.
        mpp: microns per level-0 px of all slides; by default what the files say.
        region: x, y, width, height, level-0 px; by default whole slides.
        skip_glass: look only where there is tissue.
        simplify: of GeoJSON outlines, level-0 px.
        compress: write GeoJSON with gzip.
        overwrite: start anew where there are results, or rows, of other settings, or files
            that no run has made.
    """

    out: Path
    formats: tuple[str, ...]
    mpp: float | None = None
    region: tuple[int, int, int, int] | None = None
    skip_glass: bool = True
    simplify: float = 0.0
    compress: bool = False
    overwrite: bool = False


class Plan(NamedTuple):
    """A slide's part of the work.

    Attributes:
        path: of the slide.
        folder: of its rows of tiles.
        frame: of the working image.
        grid: its tiles.
        wanted: bool, (rows, columns); tiles to look at.
        tissue_mm2: area of the tissue.
        target: what the writers have to know.
        mpp_source: where the microns per pixel come from.
        notes: lines for the user.
        identity: what the rows of tiles depend on.
        picture: uint8, (h, w, 3), RGB; what counts as tissue, until it is written.
    """

    path: Path
    folder: Path
    frame: Frame
    grid: Grid
    wanted: np.ndarray
    tissue_mm2: float
    target: Target
    mpp_source: str
    notes: list[str]
    identity: dict
    picture: np.ndarray | None = None

    def shard(self, row: int) -> Path:
        """The file of a row of tiles."""
        return self.folder / f'row_{row:05d}.npz'

    def shards(self) -> list[Path]:
        return [self.shard(row) for row in range(len(self.wanted))]


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


def plan_slide(
    path: Path, name: str, settings: Settings, segmenter: Segmenter, draw: bool = True
) -> Plan:
    """Open a slide and settle where to look.

    Args:
        path: of the slide.
        name: of its results.
        settings: for all slides.
        segmenter: that will look at it.
        draw: a picture of the tissue, if there is glass to leave out.

    Raises:
        UserError: it cannot be opened, or the region is not on it.
    """
    with open_slide(path, settings.mpp) as slide:
        region = _clip(settings.region, slide, path)
        notes = [f'{path}: {note}' for note in slide.notes]
        frame = make_frame(slide, region)
        grid = segmenter.make_grid(frame)
        target = Target(
            name,
            slide.width,
            slide.height,
            frame.scale,
            MPP,
            region if settings.region else None,
            corner=(frame.left * frame.scale, frame.top * frame.scale),
        )
        wanted = np.ones((len(grid.tops), len(grid.lefts)), bool)
        tissue_mm2 = region[2] * region[3] * (target.slide_mpp / 1000) ** 2
        picture = None
        try:
            mask = tissue_mask(slide)
        except RegionError as error:
            notes.append(f'{error}; the tissue is not told from glass')
        else:
            rectangles = tile_rectangles(frame, grid)
            tissue_mm2 = _crop(mask, region).area_mm2(target.slide_mpp)
            if settings.skip_glass:
                wanted = mask.holds(rectangles).reshape(wanted.shape)
                if draw and not wanted.all():
                    try:
                        picture = draw_mask(slide, mask, rectangles)
                    except RegionError as error:
                        notes.append(f'{error}; no picture of the tissue')
        stat = path.stat()
        identity = dict(
            slide=dict(
                bytes=stat.st_size, changed=stat.st_mtime_ns, width=slide.width, height=slide.height
            ),
            microns_per_pixel=target.slide_mpp,
            region=list(region),
            skip_glass=settings.skip_glass,
            **segmenter.identity,
        )
        folder = settings.out / f'{name}.partial'
        source = slide.mpp_source if slide.mpp else f'{slide.mpp_source}, {MPP} {ASSUMED}'
        return Plan(
            path,
            folder,
            frame,
            grid,
            wanted,
            tissue_mm2,
            target,
            source,
            notes,
            identity,
            picture,
        )


def _clip(
    region: tuple[int, int, int, int] | None, slide: Slide, path: Path
) -> tuple[int, int, int, int]:
    """The part of a region that is on the slide; without a region all of it."""
    if region is None:
        return 0, 0, slide.width, slide.height
    left, top = max(region[0], 0), max(region[1], 0)
    right = min(region[0] + region[2], slide.width)
    bottom = min(region[1] + region[3], slide.height)
    if left >= right or top >= bottom:
        raise UserError(
            f'{path}: region {",".join(map(str, region))} is not on the slide, which has '
            f'{slide.width} x {slide.height} px'
        )
    return left, top, right - left, bottom - top


def _crop(mask: TissueMask, region: tuple[int, int, int, int]) -> TissueMask:
    left, top = (int(side / mask.scale) for side in region[:2])
    right, bottom = (
        int(np.ceil((start + side) / mask.scale))
        for start, side in zip(region[:2], region[2:], strict=True)
    )
    return mask._replace(tissue=mask.tissue[top:bottom, left:right])


def tile_rectangles(frame: Frame, grid: Grid) -> np.ndarray:
    """Where tiles lie on the slide: float, (N, 4), xywh, level-0 px, row by row."""
    places = product(range(len(grid.tops)), range(len(grid.lefts)))
    corner = np.array([frame.left, frame.top, 0, 0])
    return (np.array([grid.tile(*place) for place in places]) + corner) * frame.scale


def write_png(path: Path, image: np.ndarray) -> None:
    """Write an image, uint8, (H, W, 3), RGB, whole or not at all."""
    partial = path.with_name(f'.{path.name}.partial')
    partial.write_bytes(cv2.imencode('.png', image[..., ::-1])[1].tobytes())
    os.replace(partial, path)


def check_out(out: Path) -> None:
    """Make the folder of the results.

    Raises:
        UserError: it cannot be made or written to.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out) as file:
            file.write(b'0')
    except OSError as error:
        raise UserError(f'{out}: cannot be written to ({error.strerror})') from None


def check_space(plans: Sequence[Plan], settings: Settings) -> None:
    """Compare what the results will take with what is free.

    Raises:
        UserError: the space will not do if there are as many nuclei as in the class images.
    """
    area = sum(plan.tissue_mm2 for plan in plans)
    each = SHARD_BYTES + sum(FORMAT_BYTES[name] for name in settings.formats)
    need, free = area * DENSITY * each, shutil.disk_usage(settings.out).free
    if need > free:
        raise UserError(
            f'{settings.out}: {free / 1e9:.1f} GB free, about {need / 1e9:.1f} GB needed for '
            f'{area * DENSITY:,.0f} nuclei on {area:,.0f} mm2 of tissue'
        )
