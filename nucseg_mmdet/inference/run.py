"""Segment many slides: stopped and resumed, each slide into its files.

A row of tiles is the unit of work, done by an ``Engine`` and left as a shard in
``<out>/<name>.partial``. When all rows of a slide are there, the engine joins them straight into
the output files and the folder is removed. To go on, nothing but these files is needed.
"""

import shutil
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from itertools import takewhile
from pathlib import Path

import numpy as np

from nucseg_mmdet.imaging.image_files import encode
from nucseg_mmdet.inference import shards
from nucseg_mmdet.inference.output_folder import (
    finished_before,
    goes_on,
    make_folder_of_rows,
    picture_path,
)
from nucseg_mmdet.inference.plan import Plan, Settings, problem
from nucseg_mmdet.inference.results import describe
from nucseg_mmdet.inference.rows import Engine, RowsFailed
from nucseg_mmdet.utils.errors import UserError
from nucseg_mmdet.utils.files import PartialFile, cannot_be_written, make_folder


class SlideRun:
    """The work on planned slides. Use it in a ``with`` statement, which leaves nothing of a run
    that is not begun.

    Args:
        plans: of all slides.
        settings: for all slides.
        engine: that segments rows.

    Attributes:
        problems: what could not be read or written, a line each.
        summaries: of slides that are finished.

    A slide with results, or rows of tiles, of other settings becomes a problem.
    """

    def __init__(self, plans: Iterable[Plan], settings: Settings, engine: Engine) -> None:
        self.settings, self.engine = settings, engine
        self.problems: list[str] = []
        self.summaries: list[dict] = []
        self._todo: list[tuple[Plan, list[int]]] = []
        self._useless: list[Path] = []  # folders of finished slides, left by kills at the end
        self._begun: set[Path] = set()  # folders that have rows of an earlier run to go on with
        self._given_up: set[Path] = set()  # folders of slides that cannot be finished
        # By folder; beside their places on disk, since those of a thousand slides take 7 GB.
        self._pictures: dict[Path, PartialFile] = {}
        with ExitStack() as stack:
            for plan in plans:
                try:
                    self._take(plan, stack)
                except Exception as error:
                    self.problems.append(str(problem(plan.path, error)))
            self._unplaced = stack.pop_all()

    def __enter__(self) -> 'SlideRun':
        return self

    def __exit__(self, *_: object) -> None:
        self._unplaced.close()

    def _take(self, plan: Plan, stack: ExitStack) -> None:
        """See what is left to do for a slide, and change nothing.

        Args:
            plan: of the slide.
            stack: removes its picture if that is never put in place.

        Raises:
            UserError: there are results or files that are not to be replaced, or the picture
                cannot be written.
        """
        if summary := finished_before(plan, self.settings):
            self._add(plan, summary)
            self._useless.append(plan.folder)
            return
        rows = list(range(len(plan.wanted)))
        if begun := goes_on(plan, self.settings):
            rows = [row for row in rows if not _is_done(plan.shard(row))]
        if plan.tissue_picture is not None:
            self._pictures[plan.folder] = part = _write_aside(
                picture_path(plan, self.settings), plan.tissue_picture
            )
            stack.callback(part.abort)
            plan = replace(plan, tissue_picture=None)
        if begun:
            self._begun.add(plan.folder)
        self._todo.append((plan, rows))

    def _prepare(self) -> None:
        """Make the folders of rows and put the pictures in their places."""
        for folder in self._useless:
            shutil.rmtree(folder, ignore_errors=True)
        todo, self._todo = self._todo, []
        for plan, rows in todo:
            try:
                if plan.folder not in self._begun:
                    make_folder_of_rows(plan)
                for row in rows:
                    plan.shard(row).unlink(missing_ok=True)  # with tiles that could not be read
                if picture := self._pictures.pop(plan.folder, None):
                    picture.publish()
            except Exception as error:
                self.problems.append(str(problem(plan.path, error)))
            else:
                self._todo.append((plan, rows))

    @property
    def left(self) -> list[Plan]:
        """Slides that are not finished."""
        return [plan for plan, _ in self._todo]

    @property
    def num_tiles(self) -> int:
        """Tiles to segment."""
        return sum(int(plan.wanted[rows].sum()) for plan, rows in self._todo)

    def run(self, progress: Callable[[int, int], None], report: Callable[[str], None]) -> None:
        """Do all rows, and write the files of each slide when its rows are done.

        Args:
            progress: called with numbers of tiles and of nuclei whenever a row is done.
            report: called with lines for the user.

        Raises:
            UserError: rows cannot be written, or the memory does not suffice.
        """
        self._prepare()
        waiting, writing = self.left, []
        with ThreadPoolExecutor(self.engine.workers) as writer:
            for done in self.engine.segment(self._todo, self.settings):
                if isinstance(done, RowsFailed):
                    self._give_up(done.folder, done.reason)
                    continue
                progress(done.tiles, done.nuclei)
                # Slides are done in their order, or nearly so.
                ready = list(takewhile(self._is_ready, waiting))
                del waiting[: len(ready)]
                self._start_writing(ready, writing, writer)
                while writing and writing[0][1].done():
                    self._collect(*writing.pop(0), report)
            # Also those with rows that are not seen here: the writing sees them, or says it.
            self._start_writing(waiting, writing, writer)
            for plan, future in writing:
                self._collect(plan, future, report)

    def _is_ready(self, plan: Plan) -> bool:
        """Whether nothing more is to come for a slide."""
        return plan.folder in self._given_up or all(path.is_file() for path in plan.shards())

    def _start_writing(
        self,
        ready: list[Plan],
        writing: list[tuple[Plan, Future]],
        writer: ThreadPoolExecutor,
    ) -> None:
        """Start to write the files of slides, but of those that are given up."""
        for plan in ready:
            if plan.folder not in self._given_up:
                facts = dict(
                    device=plan.device,
                    precision=plan.identity['precision'],
                    processes=self.engine.workers,
                )
                future = writer.submit(self.engine.finish, plan, self.settings, facts)
                writing.append((plan, future))

    def _collect(self, plan: Plan, future: Future, report: Callable[[str], None]) -> None:
        try:
            self._add(plan, future.result())
        except Exception as error:
            self._give_up(plan.folder, str(problem(plan.path, error)))
        else:
            report(describe(self.summaries[-1]))

    def _add(self, plan: Plan, summary: dict) -> None:
        self.summaries.append(summary)
        self.problems += [
            f'{plan.path}: {line}; --overwrite does the slide again'
            for line in summary['broken_tiles']
        ]

    def _give_up(self, folder: Path, reason: str) -> None:
        self._given_up.add(folder)
        self.problems.append(reason)


def _is_done(shard: Path) -> bool:
    """Whether a row of tiles is done, and has none that could not be read.

    Raises:
        UserError: something else has its place.
    """
    if shard.is_file():
        return not shards.read_broken(shard)
    if shard.exists() or shard.is_symlink():
        raise UserError(f'{shard}: is no file, expected a row of tiles or nothing; remove it')
    return False


def _write_aside(path: Path, picture: np.ndarray) -> PartialFile:
    """Write a picture, uint8, (h, w, 3), RGB, beside its place.

    Raises:
        UserError: it cannot be written.
    """
    make_folder(path.parent)
    part = PartialFile(path)
    try:
        with cannot_be_written(path):
            part.file.write(encode('.png', picture[..., ::-1]))
        part.finish()
        part.unlock()  # of a thousand slides; the folder is this run's own
    except BaseException:
        part.abort()
        raise
    return part
