"""Rows of tiles as tasks of Dask: several processes, GPUs or machines.

Workers plan slides, segment rows and write files; each loads the model once. This process gives
out the work. Dask does the tasks of a lost worker again; whatever ends, the shards that are there
are what the same command goes on from. All need the same view of the files.
"""

import ctypes.util
import importlib.util
import logging
import platform
import shlex
import shutil
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nucseg_mmdet import __version__
from nucseg_mmdet.inference.output_folder import finished
from nucseg_mmdet.inference.plan import Plan, Settings, try_to_plan
from nucseg_mmdet.inference.predictor import RUNTIME_SUFFIX
from nucseg_mmdet.inference.results import finish
from nucseg_mmdet.inference.rows import RowDone, RowsFailed, Work, segment_rows
from nucseg_mmdet.inference.segmenter import Segmenter
from nucseg_mmdet.utils.errors import UserError
from nucseg_mmdet.utils.fingerprint import signs
from nucseg_mmdet.utils.processes import available_cores

if TYPE_CHECKING:
    from dask_jobqueue import SLURMCluster
    from distributed import Client, LocalCluster

TILES = 16  # of a task at least, so that its steps overlap; a task is done again as a whole
SHARES = 4  # tasks of each worker at least: fewer tiles each, if there are too few for that
JOB_MEMORY, JOB_TIME = '16GB', '24:00:00'  # of a job of Slurm, unless its options say otherwise
CONNECT, PATIENCE = 30, 600  # s for a scheduler to answer, and for the first worker to come

Options = tuple[tuple[str, Any], ...]  # keywords of ``Segmenter``, hashable


class Cluster:
    """An ``Engine`` of Dask's workers; make it with ``connect``."""

    def __init__(self, client: 'Client', workers: int, options: Options) -> None:
        self.workers = workers
        self.dashboard = client.dashboard_link
        self._client, self._options = client, options

    def plan(
        self, paths: Sequence[Path], names: Sequence[str], settings: Settings
    ) -> Iterator[Plan | UserError]:
        settings = _anywhere(settings)
        futures = [
            # Links are not followed: a slide's further files lie beside the link.
            self._client.submit(_plan, self._options, path.absolute(), name, settings, pure=False)
            for path, name in zip(paths, names, strict=True)
        ]
        for future, path in zip(futures, paths, strict=True):
            try:
                yield future.result()
            except Exception as error:  # of Dask, such as a worker that died again and again
                yield UserError(f'{path}: not planned ({error})')
            future.release()

    def segment(self, work: Work, settings: Settings) -> Iterator[RowDone | RowsFailed]:
        from distributed import as_completed

        size = _task_size(work, self.workers)
        futures = {
            self._client.submit(
                _segment, self._options, plan, rows, settings, pure=False, priority=-number
            ): plan
            for number, (plan, all_rows) in enumerate(work)
            for rows in _tasks(plan, all_rows, size)
        }
        for future in as_completed(list(futures)):
            plan = futures.pop(future)
            try:
                found = future.result()
            except Exception as error:
                yield RowsFailed(plan.folder, f'{plan.path}: {error}')
            else:
                yield from found
            future.release()

    def finish(self, plan: Plan, settings: Settings, facts: dict) -> dict:
        settings = _anywhere(settings)
        # Before any row, so that shards do not fill the disk.
        future = self._client.submit(_finish, plan, settings, facts, pure=False, priority=1)
        return future.result()


def _anywhere(settings: Settings) -> Settings:
    """The settings, for workers that start in another folder."""
    return settings._replace(out=settings.out.absolute())


def _task_size(work: Work, workers: int) -> int:
    """Tiles that a task has at least."""
    total = sum(int(plan.wanted[rows].sum()) for plan, rows in work)
    return min(TILES, total // (SHARES * workers))


def _tasks(plan: Plan, rows: Sequence[int], size: int) -> Iterator[list[int]]:
    """Split rows into tasks of ``size`` tiles at least, but for the last."""
    task, count = [], 0
    for row in rows:
        task.append(row)
        count += int(plan.wanted[row].sum())
        if count >= size:
            yield task
            task, count = [], 0
    if task:
        yield task


def _plan(options: Options, path: Path, name: str, settings: Settings) -> Plan | UserError:
    """What a worker does to plan a slide."""
    return try_to_plan(path, name, settings, _load(options))


def _segment(
    options: Options, plan: Plan, rows: list[int], settings: Settings
) -> list[RowDone | RowsFailed]:
    """What a worker does to segment rows; those that a lost worker has left are not done again."""
    rows = [row for row in rows if not plan.shard(row).is_file()]
    try:
        segmenter, precision = _load(options), plan.identity['precision']
        if segmenter.predictor.precision != precision:  # planned on another kind of machine
            segmenter = _load((*options, ('precision', precision)))
        _check_same(plan, segmenter)
        return list(segment_rows(segmenter, [(plan, rows)], settings))
    except UserError as error:
        return [RowsFailed(plan.folder, str(error))]


def _check_same(plan: Plan, segmenter: Segmenter) -> None:
    """Check that this worker finds the nuclei that the one of the plan would.

    Raises:
        UserError: it has another package, model or runtime.
    """
    own = dict(version=__version__, **segmenter.identity)
    if others := [name for name in own if own[name] != plan.identity.get(name)]:
        raise UserError(
            f'{plan.path}: planned by a worker with another {", ".join(others)} than that of '
            f'{platform.node()}, expected one package, model and --backend on all'
        )


def _finish(plan: Plan, settings: Settings, facts: dict) -> dict:
    """What a worker does to write a slide's files; a lost worker may have written them all."""
    if all(path.is_file() for path in plan.shards()):
        return finish(plan, settings, facts)
    return finished(plan, settings) or finish(plan, settings, facts)  # which says what is missing


def _load(options: Options) -> Segmenter:
    """The model of this worker, loaded anew when one of its files has been replaced."""
    named = [Path(path) for name, path in options if name in ('config', 'checkpoint') and path]
    paths = [*named, *(path.with_suffix(RUNTIME_SUFFIX) for path in named)]
    files = [signs(path) for path in paths if path.is_file()]
    return _load_once(options, tuple(tuple(file.items()) for file in files))


@lru_cache(maxsize=1)
def _load_once(options: Options, files: tuple) -> Segmenter:
    """The model, on a GPU of its own where there are several."""
    keywords = dict(options)
    if keywords.get('device') is None and ctypes.util.find_library('cuda'):
        keywords['device'] = _own_gpu()
    return Segmenter(**keywords)


def _own_gpu() -> str | None:
    if importlib.util.find_spec('torch') is None:
        return None
    import torch
    from distributed import get_worker

    count = torch.cuda.device_count()
    name = str(get_worker().name).rpartition('-')[2]
    return f'cuda:{int(name) % count if name.isdigit() else 0}' if count else None


@contextmanager
def _closed_at_leisure() -> Iterator[ExitStack]:
    """Close a cluster at the end; on a busy machine Dask gives up waiting for its workers.

    That undoes nothing of the work, and what is left of them ends with this process.
    """
    stack = ExitStack()
    try:
        yield stack
    finally:
        disabled = logging.root.manager.disable
        logging.disable(logging.CRITICAL)
        with suppress(Exception):
            stack.close()
        logging.disable(disabled)


@contextmanager
def connect(
    options: dict[str, Any],
    workers: int | None = None,
    slurm: str | None = None,
    scheduler: str | None = None,
) -> Iterator[Cluster]:
    """Start workers, or go to those of a scheduler, and end what was started.

    Args:
        options: keywords of ``Segmenter``.
        workers: processes on this machine, or jobs of Slurm.
        slurm: options of sbatch; each worker is a job.
        scheduler: address of a scheduler that runs already, such as tcp://10.0.0.1:8786.

    Raises:
        UserError: Dask is not installed, a scheduler does not answer, or no worker comes.
    """
    if importlib.util.find_spec('distributed') is None:
        raise UserError('several workers need Dask: pip install nucseg-mmdet[cluster]')
    import distributed

    with _closed_at_leisure() as stack:
        try:
            if scheduler:
                client = stack.enter_context(distributed.Client(scheduler, timeout=CONNECT))
            else:
                if slurm is not None:
                    cluster = _slurm_cluster(workers or 1, slurm)
                else:
                    cluster, threads = _local_cluster(workers or 1)
                    options = dict(options, threads=threads)
                stack.enter_context(cluster)
                client = stack.enter_context(distributed.Client(cluster))
            client.wait_for_workers(1 if scheduler or slurm is not None else workers, PATIENCE)
        except (OSError, TimeoutError, ValueError, RuntimeError) as error:
            raise UserError(f'no cluster: {error}') from None
        count = workers or len(client.scheduler_info(n_workers=-1)['workers'])
        yield Cluster(client, count, tuple(sorted(options.items())))


def _local_cluster(workers: int) -> tuple['LocalCluster', int]:
    """Start workers on this machine; they, and the threads of the network that each is to use."""
    import dask
    from distributed import LocalCluster

    threads = max(1, available_cores() // workers)
    # In place of Dask's own, which gives memory back to the system at once: with the arrays of a
    # network the system then does nothing else, and a run takes a third longer.
    environment = dict.fromkeys(('OMP_NUM_THREADS', 'OPENBLAS_NUM_THREADS'), threads)
    with dask.config.set({'distributed.nanny.pre-spawn-environ': environment}):
        cluster = LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            processes=True,
            memory_limit=None,
            # Tasks of a stopped run, and heartbeats at its end; what fails comes with its result.
            silence_logs=logging.CRITICAL,
        )
    return cluster, threads


def _slurm_cluster(workers: int, slurm: str) -> 'SLURMCluster':
    """Submit a job for each worker.

    Raises:
        UserError: dask-jobqueue is not installed, or there is no Slurm.
    """
    if importlib.util.find_spec('dask_jobqueue') is None:
        raise UserError('--slurm needs dask-jobqueue: pip install nucseg-mmdet[cluster]')
    if shutil.which('sbatch') is None:  # dask-jobqueue would try for ever
        raise UserError('--slurm: no command sbatch, expected a machine from which Slurm is used')
    from dask_jobqueue import SLURMCluster

    cluster = SLURMCluster(
        cores=1,
        processes=1,
        memory=JOB_MEMORY,
        walltime=JOB_TIME,
        job_extra_directives=shlex.split(slurm),
    )
    cluster.scale(jobs=workers)
    return cluster
