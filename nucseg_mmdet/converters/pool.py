"""Images in several processes."""

import functools
import multiprocessing
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import TypeVar

import cv2

from nucseg_mmdet.utils.errors import UserError
from nucseg_mmdet.utils.processes import become_worker

Entry = TypeVar('Entry')
Result = TypeVar('Result')


def in_processes(
    function: Callable[[Entry], Result], entries: Sequence[Entry], workers: int | None
) -> Iterator[Result]:
    """Call a module-level function on each entry, in processes; results come in order.

    Args:
        function: whose arguments and results can be pickled.
        entries: its arguments.
        workers: processes; 1 for this one, None for one a core.

    Raises:
        UserError: a process ended by itself. What ``function`` raises comes as well.
    """
    if workers == 1:
        yield from map(function, entries)
        return
    # spawn: a forked process would inherit the locks of OpenMP's threads, and hang.
    context = multiprocessing.get_context('spawn')
    start = functools.partial(_start_worker, os.getpid())
    try:
        with ProcessPoolExecutor(workers or os.cpu_count(), context, start) as pool:
            try:
                yield from pool.map(function, entries)
            finally:
                pool.shutdown(cancel_futures=True)  # at an interrupt leave the rest
    except BrokenProcessPool:
        raise UserError(
            'a worker process ended by itself, perhaps for want of memory; --workers 1 shows '
            'at which image'
        ) from None
    except KeyboardInterrupt:
        for worker in multiprocessing.active_children():
            worker.kill()  # one that has only started would complain that we are gone
        raise


def _start_worker(parent: int) -> None:
    become_worker(parent)
    cv2.setNumThreads(1)  # the processes share the cores
