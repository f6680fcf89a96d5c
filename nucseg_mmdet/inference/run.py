"""Segment many slides: shared by processes, stopped and resumed, each slide into its files.

A row of tiles is the unit of work. Whoever has segmented one leaves it as a shard in
``<out>/<name>.partial``; of N processes number r takes every N-th row over all slides. When all
rows of a slide are there, process 0 joins them straight into the output files and removes the
folder. To go on, or to share the work, nothing but these files is needed.
"""

import shutil
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from itertools import count, groupby, product
from pathlib import Path
from typing import NamedTuple

import numpy as np

from nucseg_mmdet.export.formats import open_writers
from nucseg_mmdet.export.writer import Options
from nucseg_mmdet.inference import shards, tiling
from nucseg_mmdet.inference.features import FEATURES, with_features
from nucseg_mmdet.inference.output_folder import (
    PATIENCE,
    POLL,
    output_settings,
    picture_path,
    start_or_resume,
    summary_path,
    write_json,
)
from nucseg_mmdet.inference.plan import Plan, Settings, tile_rectangles, write_png
from nucseg_mmdet.inference.segmenter import Job, Segmenter
from nucseg_mmdet.inference.tiling import Part
from nucseg_mmdet.slides.base import RegionError
from nucseg_mmdet.slides.open import open_shared
from nucseg_mmdet.structures.nuclei import Nuclei
from nucseg_mmdet.utils.errors import UserError

PULSE = 10  # s between signs of life


class Share(NamedTuple):
    """Which of how many processes this is."""

    rank: int = 0
    world: int = 1


class SlideRun:
    """The work on planned slides.

    Args:
        plans: of all slides, the same in every process. Each folder is made before the next
            plan is asked for, so that no process has to wait for more than one.
        settings: for all slides.
        segmenter: that looks at the tiles.
        share: of this process.

    Attributes:
        problems: what could not be read or written, a line each.
        summaries: of slides that are finished.

    Raises:
        UserError: there are results, or rows of tiles, of other settings.
    """

    def __init__(
        self, plans: Iterable[Plan], settings: Settings, segmenter: Segmenter, share: Share
    ) -> None:
        self.settings, self.segmenter, self.share = settings, segmenter, share
        self.problems: list[str] = []
        self.summaries: list[dict] = []
        self._todo: list[tuple[Plan, list[int]]] = []
        self._given_up: set[Path] = set()  # folders of slides that cannot be finished
        self._started: dict[Path, float] = {}  # when a slide's first tile was asked for
        number = count()  # of a row among those of all slides, done or not
        for plan in plans:
            mine = [next(number) % share.world == share.rank for _ in plan.wanted]
            if summary := start_or_resume(plan, settings, share.rank):
                self._add(plan, summary)
                continue
            if plan.tissue_picture is not None:
                write_png(picture_path(plan, settings), plan.tissue_picture)
                plan = replace(plan, tissue_picture=None)
            rows = [row for row in np.flatnonzero(mine).tolist() if not plan.shard(row).is_file()]
            self._todo.append((plan, rows))

    @property
    def left(self) -> list[Plan]:
        """Slides that are not finished."""
        return [plan for plan, _ in self._todo]

    @property
    def num_tiles(self) -> int:
        """Tiles that this process has to look at."""
        return sum(int(plan.wanted[rows].sum()) for plan, rows in self._todo)

    def run(self, progress: Callable[[int, int], None], report: Callable[[str], None]) -> None:
        """Do this process' rows; process 0 also writes the files, when the others are done.

        Args:
            progress: called with numbers of tiles and of nuclei whenever a row is done.
            report: called with lines for the user.

        Raises:
            UserError: rows cannot be written, or the memory does not suffice.
        """
        waiting = self.left if self.share.rank == 0 else []
        writing: list[tuple[Plan, Future]] = []
        with self._pulse(), ThreadPoolExecutor(1) as writer:
            for num_tiles, num_nuclei in self._segment():
                progress(num_tiles, num_nuclei)
                self._write_finished(waiting, writing, writer, report)
            if waiting and self.share.world > 1:
                report('waiting for the other processes')
            seen, since = None, time.monotonic()
            while waiting or writing:
                self._write_finished(waiting, writing, writer, report)
                if writing:
                    since = time.monotonic()
                elif seen != (signs := self._signs_of_life(waiting)):
                    seen, since = signs, time.monotonic()
                elif time.monotonic() - since > PATIENCE:
                    for plan in waiting:
                        self._give_up(plan, 'rows of tiles of other processes are missing')
                time.sleep(POLL)

    def _write_finished(
        self,
        waiting: list[Plan],
        writing: list[tuple[Plan, Future]],
        writer: ThreadPoolExecutor,
        report: Callable[[str], None],
    ) -> None:
        """Start to write slides whose rows are all there, and collect what is written."""
        while waiting and (
            waiting[0].folder in self._given_up
            or all(path.is_file() for path in waiting[0].shards())
        ):
            plan = waiting.pop(0)
            if plan.folder not in self._given_up:
                writing.append(
                    (plan, writer.submit(finish, plan, self.settings, self._facts(plan)))
                )
        while writing and writing[0][1].done():
            plan, future = writing.pop(0)
            try:
                self._add(plan, future.result())
            except (UserError, OSError) as error:
                self._give_up(plan, str(error))
            else:
                report(describe(self.summaries[-1]))

    def _add(self, plan: Plan, summary: dict) -> None:
        self.summaries.append(summary)
        self.problems += [f'{plan.path}: {line}' for line in summary['broken_tiles']]

    def _give_up(self, plan: Plan, reason: str) -> None:
        self._given_up.add(plan.folder)
        self.problems.append(f'{plan.path}: {reason}')

    def _facts(self, plan: Plan) -> dict:
        now = time.monotonic()
        return dict(
            seconds=round(now - self._started.get(plan.folder, now), 1),
            device=self.segmenter.predictor.device,
            precision=self.segmenter.predictor.precision,
            processes=self.share.world,
        )

    def _segment(self) -> Iterator[tuple[int, int]]:
        """Segment this process' rows; yields numbers of tiles and nuclei of each."""
        found = self.segmenter.segment(self._batches())
        for (number, row), items in groupby(found, lambda item: item[0][:2]):
            plan, _ = self._todo[number]
            tiles: list[tuple[int, Nuclei]] = []
            broken: list[tuple[int, str]] = []
            for (_, _, column), result in items:
                if isinstance(result, RegionError):
                    broken.append((column, str(result)))
                else:
                    tiles.append((column, result))
            joined = tiling.join_row(tiles, plan.grid, row)
            _write_row(plan, row, joined, broken)
            yield int(plan.wanted[row].sum()), len(joined.nuclei)

    def _batches(self) -> Iterator[list[Job]]:
        """Tiles of one slide after the other; rows without any are done at once."""
        for number, (plan, rows) in enumerate(self._todo):
            for row in rows:
                if not plan.wanted[row].any():
                    _write_row(plan, row, tiling.NOTHING, [])
            places = [
                (row, column)
                for row in rows
                for column in np.flatnonzero(plan.wanted[row]).tolist()
            ]
            if not places:
                continue
            self._started[plan.folder] = time.monotonic()
            try:
                slide = open_shared(plan.path, self.settings.mpp)
            except UserError as error:
                self._give_up(plan, str(error))
                continue
            for batch in self.segmenter.jobs(slide, plan.frame, plan.grid, places, plan.wanted):
                yield [job._replace(key=(number, *job.key)) for job in batch]

    @contextmanager
    def _pulse(self) -> Iterator[None]:
        """Give signs of life to process 0."""
        if self.share.world == 1:
            yield
            return
        path, stop = self._pulse_file(self.share.rank), threading.Event()

        def beat() -> None:
            path.touch()
            while not stop.wait(PULSE):
                path.touch()

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join()
            path.unlink(missing_ok=True)

    def _pulse_file(self, rank: int) -> Path:
        return self.settings.out / f'.process_{rank}_of_{self.share.world}'

    def _signs_of_life(self, waiting: Sequence[Plan]) -> list[float]:
        """What changes as long as the others work."""
        paths = [self._pulse_file(rank) for rank in range(1, self.share.world)]
        paths += [plan.folder for plan in waiting]
        return [path.stat().st_mtime if path.exists() else 0 for path in paths]


def _write_row(plan: Plan, row: int, part: Part, broken: Sequence[tuple[int, str]]) -> None:
    try:
        shards.write_row(plan.shard(row), part, broken)
    except OSError as error:
        raise UserError(
            f'{plan.folder}: cannot be written to ({error.strerror}); the same command goes on'
        ) from None


def finish(plan: Plan, settings: Settings, facts: dict) -> dict:
    """Join all rows of a slide into its files; then its shards are not needed any more.

    Args:
        plan: whose shards are all there.
        settings: for all slides.
        facts: about the run, for the summary.

    Returns:
        The summary, which is also written.

    Raises:
        UserError: a file cannot be written, or a shard not read.
    """
    image = partial(_read_image, plan, settings)
    names = FEATURES if settings.features else ()
    options = Options(settings.compress, settings.simplify, image, plan.path, names)
    counts: dict[str, int] = {}
    batches = _join(plan, counts)
    if settings.features:
        slide = open_shared(plan.path, settings.mpp)
        batches = with_features(partial(_join, plan, counts), slide, plan.frame)
    with open_writers(settings.formats, settings.out, plan.target, options) as writers:
        for nuclei in batches:
            writers.write(nuclei)
    num = counts['nuclei']
    rectangles = tile_rectangles(plan.frame, plan.grid).reshape(*plan.wanted.shape, 4)
    broken = [
        f'tile at {rectangles[row, column, 0]:.0f},{rectangles[row, column, 1]:.0f}: {reason}'
        for row, path in enumerate(plan.shards())
        for column, reason in shards.read_broken(path)
    ]
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
        nuclei_cut_by_tiles=counts['cut'],
        tiles=int(plan.wanted.sum()),
        tiles_skipped_as_glass=int((~plan.wanted).sum()),
        broken_tiles=broken,
        tile_grid=_describe_grid(rectangles, plan.wanted),
        **facts,
        files=[path.name for path in writers.paths],
        notes=[*plan.notes, *writers.notes],
        output=output_settings(settings),
        identity=plan.identity,
    )
    try:
        write_json(summary_path(plan, settings), summary)
    except OSError as error:
        raise UserError(f'{summary_path(plan, settings)}: not written, {error.strerror}') from None
    shutil.rmtree(plan.folder, ignore_errors=True)
    return summary


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


def _join(plan: Plan, counts: dict[str, int]) -> Iterator[Nuclei]:
    """Join all rows; counts the nuclei, and those that tiles cut."""
    counts.update(nuclei=0, cut=0)
    rows = (shards.read_row(path) for path in plan.shards())
    for part in tiling.join_rows(rows, plan.grid):
        counts['nuclei'] += len(part.nuclei)
        counts['cut'] += int(part.cut.sum())
        yield part.nuclei


def describe(summary: dict) -> str:
    """Say in one line what a slide holds."""
    density = summary['nuclei_per_mm2']
    line = (
        f'{summary["name"]}: {summary["nuclei"]:,} nuclei on {summary["tissue_mm2"]:.4g} mm2 of '
        f'tissue{"" if density is None else f", {density:,.0f} per mm2"}; {summary["tiles"]:,} '
        f'tiles, {summary["tiles_skipped_as_glass"]:,} of glass left out; '
        f'{summary["seconds"]:,.0f} s on {summary["device"]} in {summary["precision"]}'
    )
    if summary['nuclei_cut_by_tiles']:
        line += (
            f'; {summary["nuclei_cut_by_tiles"]:,} nuclei are larger than the overlap of tiles '
            'and cut, see --overlap'
        )
    return line


def _read_image(plan: Plan, settings: Settings) -> np.ndarray:
    """The slide or its region at full resolution, white where it cannot be read."""
    left, top, width, height = plan.target.box
    image = np.full((height, width, 3), 255, np.uint8)
    side = 1024  # px
    slide = open_shared(plan.path, settings.mpp)
    for y, x in product(range(0, height, side), range(0, width, side)):
        part = image[y : y + side, x : x + side]
        with suppress(RegionError):
            part[:] = slide.read(left + x, top + y, part.shape[1], part.shape[0])
    return image
