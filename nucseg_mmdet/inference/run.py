"""Segment many slides: stopped and resumed, each slide into its files.

A row of tiles is the unit of work, done by an ``Engine`` and left as a shard in
``<out>/<name>.partial``. When all rows of a slide are there, the engine joins them straight into
the output files and the folder is removed. To go on, nothing but these files is needed.
"""

from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from itertools import takewhile
from pathlib import Path

from nucseg_mmdet.imaging.image_files import write_png
from nucseg_mmdet.inference import shards
from nucseg_mmdet.inference.output_folder import picture_path, start_or_resume
from nucseg_mmdet.inference.plan import Plan, Settings, problem
from nucseg_mmdet.inference.results import describe
from nucseg_mmdet.inference.rows import Engine, RowsFailed
from nucseg_mmdet.utils.errors import UserError


class SlideRun:
    """The work on planned slides.

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
        self._given_up: set[Path] = set()  # folders of slides that cannot be finished
        for plan in plans:
            try:
                if summary := start_or_resume(plan, settings):
                    self._add(plan, summary)
                    continue
                rows = [row for row, path in enumerate(plan.shards()) if not _is_done(path)]
                if plan.tissue_picture is not None:
                    write_png(picture_path(plan, settings), plan.tissue_picture[..., ::-1])
                    plan = replace(plan, tissue_picture=None)
            except Exception as error:
                self.problems.append(str(problem(plan.path, error)))
                continue
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
    """Whether a row of tiles is done; one with tiles that could not be read is removed.

    Raises:
        UserError: something else has its place.
    """
    if shard.is_file():
        if not shards.read_broken(shard):
            return True
        shard.unlink()
    elif shard.exists() or shard.is_symlink():
        raise UserError(f'{shard}: is no file, expected a row of tiles or nothing; remove it')
    return False
