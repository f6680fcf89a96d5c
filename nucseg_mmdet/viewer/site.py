"""The slides that the server shows, by the numbers that addresses have for them."""

import asyncio
import os
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request

from nucseg_mmdet.utils.byte_cache import ByteCache
from nucseg_mmdet.utils.errors import UserError
from nucseg_mmdet.viewer.index import NucleiIndex
from nucseg_mmdet.viewer.results import Result, find_results

READERS = min(4, os.cpu_count() or 1)  # slides' tiles that are read at once
CACHE = 256 << 20  # bytes of image tiles and outlines that are kept


class Site:
    """The slides of a results folder, and what is known of each so far.

    A slide keeps its number as long as the server runs, for the pages that are open: one that comes
    later gets the next, and that of one that is gone is nobody else's.

    Args:
        folder: of the results.
        slides: files of slides, or folders of them.

    Attributes:
        problems: lines for the user about what cannot be shown.

    Raises:
        UserError: there is nothing to show.
    """

    def __init__(self, folder: Path, slides: Sequence[Path] = ()) -> None:
        self._folder, self._slides = folder, slides
        self._results: list[Result] = []  # by number
        self._opening: dict[int, asyncio.Task[NucleiIndex]] = {}
        self._take(*find_results(folder, slides))
        self.cache = ByteCache(CACHE)
        self._reading = asyncio.Semaphore(READERS)
        self._progress: dict[int, tuple[int, int]] = {}

    def shown(self) -> list[tuple[int, Result]]:
        """The slides that are there, in their order, and their numbers."""
        return [(number, self._results[number]) for number in self._shown]

    def result(self, request: Request) -> Result:
        return self._results[self.number(request)]

    def number(self, request: Request) -> int:
        """The number of the slide that is asked for.

        Raises:
            HTTPException: 404, there is no such slide, or no longer.
        """
        number = request.path_params['number']
        if number >= len(self._results):
            raise HTTPException(404, f'slide {number}: expected below {len(self._results)}')
        if number not in self._shown:
            name = self._results[number].name
            raise HTTPException(404, f'{name}: no longer in the folder, load the page again')
        return number

    async def index(self, request: Request) -> NucleiIndex:
        """The nuclei of a slide; made first, once, where nobody has.

        Raises:
            UserError: the results have changed since, or are not as expected.
        """
        number = self.number(request)
        if number not in self._opening:
            made = partial(NucleiIndex, self._results[number], partial(self._tell, number))
            self._opening[number] = asyncio.create_task(run_in_threadpool(made))
        task = self._opening[number]
        try:
            index = await asyncio.shield(task)
        except Exception:
            self._forget(number, task)  # the files may be mended
            raise
        await run_in_threadpool(index.check)
        return index

    async def renew(self, request: Request) -> None:
        """Forget the index of a slide whose results have changed: a page begins with new ones.

        Raises:
            UserError: a file of the results is gone.
        """
        number = self.number(request)
        task = self._opening.get(number)
        if task is None:  # its index will be made of what there is now
            await self.read_again()
        elif not task.done() or task.exception():
            return
        elif await run_in_threadpool(task.result().is_stale):
            await self.read_again()
            self._forget(number, task)

    async def read_again(self) -> None:
        """Look which slides there are now, and what is said of them."""
        there = [path for path in self._slides if path.exists()]
        away = [f'{path}: no such file or folder' for path in self._slides if path not in there]
        try:
            found, problems = await run_in_threadpool(find_results, self._folder, there)
        except UserError as error:
            found, problems = [], [str(line) for line in error.args]
        self._take(found, problems + away)

    def _take(self, found: Sequence[Result], problems: Sequence[str]) -> None:
        numbers = {_key(one): number for number, one in enumerate(self._results)}
        self._shown, self.problems = [], problems
        for one in found:
            number = numbers.get(_key(one), len(self._results))
            self._results[number : number + 1] = [one]
            self._shown.append(number)
        for number in self._opening.keys() - self._shown:
            del self._opening[number]

    def _forget(self, number: int, task: asyncio.Task[NucleiIndex]) -> None:
        """Forget an index, unless another is made already."""
        if self._opening.get(number) is task:
            del self._opening[number]

    def _tell(self, number: int, done: int, total: int) -> None:
        self._progress[number] = done, total

    def progress(self, request: Request) -> tuple[int, int]:
        """How many nuclei of how many are in the index that is being made."""
        return self._progress.get(self.number(request), (0, 0))

    async def read(self, request: Request, key: tuple, make: Callable[[], bytes]) -> bytes | None:
        """Read from a slide, a few at a time; nothing if the client does not wait any more."""
        async with self._reading:
            if await request.is_disconnected():
                return None
            return await run_in_threadpool(self.cache.get, key, make)


def _key(result: Result) -> tuple[str, Path, Path]:
    """What stays the same of a slide's results when they are made anew."""
    return result.name, result.table, result.outlines
