"""Rows of tiles, the unit of work: each is segmented, joined and kept as a shard.

When all rows of a slide are there, they are joined into its files.
"""

import time
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np

from nucseg_mmdet.inference import shards, tiling
from nucseg_mmdet.inference.plan import Plan, Settings, open_planned, problem, try_to_plan
from nucseg_mmdet.inference.results import finish
from nucseg_mmdet.inference.segmenter import Job, Segmenter
from nucseg_mmdet.slides.base import RegionError
from nucseg_mmdet.structures.nuclei import Nuclei
from nucseg_mmdet.utils.errors import UserError

Work = Sequence[tuple[Plan, list[int]]]  # slides, and the rows of each that are not done


class RowDone(NamedTuple):
    """A row whose shard is there.

    Attributes:
        folder: of the slide's rows.
        tiles: that were segmented.
        nuclei: in the row.
        seconds: of the network, from when the row before left it.
    """

    folder: Path
    tiles: int
    nuclei: int
    seconds: float


class RowsFailed(NamedTuple):
    """Rows of a slide that cannot be done.

    Attributes:
        folder: of the slide's rows.
        reason: a line for the user.
    """

    folder: Path
    reason: str


class Engine(Protocol):
    """Who plans slides, segments rows and writes files: this process, or a cluster.

    Attributes:
        workers: processes that do it.
    """

    workers: int

    def plan(
        self, paths: Sequence[Path], names: Sequence[str], settings: Settings
    ) -> Iterator[Plan | UserError]:
        """Plan slides, in order."""

    def segment(self, work: Work, settings: Settings) -> Iterator[RowDone | RowsFailed]:
        """Segment rows, in any order."""

    def finish(self, plan: Plan, settings: Settings, facts: dict) -> dict:
        """Join all rows of a slide into its files, see ``results.finish``; called in threads."""


class InProcess:
    """An ``Engine`` without other processes."""

    workers = 1

    def __init__(self, segmenter: Segmenter) -> None:
        self._segmenter = segmenter

    def plan(
        self, paths: Sequence[Path], names: Sequence[str], settings: Settings
    ) -> Iterator[Plan | UserError]:
        for path, name in zip(paths, names, strict=True):
            yield try_to_plan(path, name, settings, self._segmenter)

    def segment(self, work: Work, settings: Settings) -> Iterator[RowDone | RowsFailed]:
        return segment_rows(self._segmenter, work, settings)

    def finish(self, plan: Plan, settings: Settings, facts: dict) -> dict:
        return finish(plan, settings, facts)


def segment_rows(
    segmenter: Segmenter, work: Work, settings: Settings
) -> Iterator[RowDone | RowsFailed]:
    """Segment rows, slide after slide; reading, network and tracing overlap.

    Raises:
        UserError: a row cannot be written, or the memory does not suffice.
    """
    failed: list[RowsFailed] = []
    started = time.monotonic()
    found = segmenter.segment(_batches(segmenter, work, settings, failed))
    for (number, row), items in groupby(found, lambda item: item[0][:2]):
        plan, _ = work[number]
        tiles: list[tuple[int, Nuclei]] = []
        broken: list[tuple[int, str]] = []
        last = started
        for (_, _, column), result, left in items:
            last = left
            if isinstance(result, RegionError):
                broken.append((column, str(result)))
            else:
                tiles.append((column, result))
        joined = tiling.join_row(tiles, plan.grid, row)
        seconds, started = last - started, last
        shards.write_row(plan.shard(row), joined, broken, seconds, plan.place(row))
        while failed:  # at once, since finished slides wait for those before them
            yield failed.pop(0)
        yield RowDone(plan.folder, int(plan.wanted[row].sum()), len(joined.nuclei), seconds)
    yield from failed


def _batches(
    segmenter: Segmenter, work: Work, settings: Settings, failed: list[RowsFailed]
) -> Iterator[list[Job]]:
    """Tiles of one slide after the other; rows without any are done at once."""
    for number, (plan, rows) in enumerate(work):
        for row in rows:
            if not plan.wanted[row].any():
                shards.write_row(plan.shard(row), tiling.NOTHING, place=plan.place(row))
        places = [
            (row, column) for row in rows for column in np.flatnonzero(plan.wanted[row]).tolist()
        ]
        if not places:
            continue
        try:
            slide = open_planned(plan, settings)
        except Exception as error:
            failed.append(RowsFailed(plan.folder, str(problem(plan.path, error))))
            continue
        for batch in segmenter.jobs(slide, plan.frame, plan.grid, places, plan.colors):
            yield [job._replace(key=(number, *job.key)) for job in batch]
