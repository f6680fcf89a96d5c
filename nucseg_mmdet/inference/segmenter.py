"""A trained model over an image of any size.

In a notebook::

    from nucseg_mmdet import Segmenter

    nuclei = Segmenter()(image)  # uint8, (H, W, 3), RGB; or a path
    nuclei.centroids, nuclei.scores, nuclei.measurements

For whole slides, with files for other programs, see ``run`` and ``tools/segment.py``.
"""

import os
import time
from collections import deque
from collections.abc import Callable, Generator, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from functools import partial
from itertools import groupby, product
from numbers import Integral, Real
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from PIL import Image

from nucseg_mmdet.imaging.stain import UnfitImageError, tissue_share
from nucseg_mmdet.inference import tiling
from nucseg_mmdet.inference.backends import load_predictor
from nucseg_mmdet.inference.frame import Frame, make_frame
from nucseg_mmdet.inference.masks_to_nuclei import to_nuclei
from nucseg_mmdet.inference.predictor import ModelOptions, Prediction, Predictor
from nucseg_mmdet.inference.tiling import Grid
from nucseg_mmdet.slides.base import RegionError, Slide
from nucseg_mmdet.slides.open import open_image
from nucseg_mmdet.slides.pixel_size import MODEL_MPP
from nucseg_mmdet.structures.nuclei import Nuclei, concatenate
from nucseg_mmdet.utils.errors import UserError, describe

# px; the largest nuclei are 64 px, 16 microns. Tiles of 512 px would look at 1.8 times the image,
# these at 1.3 times; of those below, a field of 1,000 px is one.
TILE, OVERLAP = 1_024, 128
AHEAD = 2  # batches that are read before the network wants them
BEHIND = 4  # tiles whose masks are traced while the network goes on
READERS = 2  # threads
# A slide's colors are measured on every fourth row and column of so many of its tiles.
COLOR_TILES, COLOR_STEP = 64, 4
MOST_TISSUE = 0.5  # of the fullest tile's share of tissue; tiles with less do not count

T = TypeVar('T')


class Job(NamedTuple):
    """A tile to segment.

    Attributes:
        key: names it in the results.
        read: gives the tile, uint8, (H, W, 3), RGB; called in another thread.
        colors: of the slide as a whole, for the predictor; None if the tile's own count.
    """

    key: Hashable
    read: Callable[[], np.ndarray]
    colors: Any = None


def _check_whole(least: int = 1, **values: object) -> None:
    """Refuse what is no whole number, or one below the least."""
    for name, value in values.items():
        if not isinstance(value, Integral) or isinstance(value, bool) or value < least:
            raise UserError(f'{name} is {value!r}, expected a whole number, at least {least}')


class Segmenter:
    """Mask R-CNN, ready to find nuclei.

    Args:
        config: of the model; by default the project's own model.
        checkpoint: with the model's weights.
        device: 'cpu', 'cuda', 'cuda:1'; by default a GPU if there is one.
        precision: 'fp32', 'bf16', 'fp16' (torch) or 'int8' (OpenVINO); by default bf16 on a
            GPU, and with OpenVINO on a CPU that has it, else fp32.
        score_thr: less certain nuclei are left out, 0 to 1; by default those that the
            config's ``test_evaluator`` leaves out.
        batch: tiles that go through the network together.
        tile: largest side of a tile, px at 0.25 microns.
        overlap: of neighboring tiles, px at 0.25 microns; twice the largest nucleus.
        backend: 'mmdet' (torch) or 'openvino'; by default torch on a GPU if there is one, else
            OpenVINO.
        threads: of the network on a CPU; by default all.

    Attributes:
        predictor: the model in its runtime.
        classes: of nuclei, which ``Nuclei.labels`` are indices of.
        identity: what the nuclei depend on, to recognize results of the same model.

    Raises:
        UserError: a file is missing or does not fit, or a value is not possible.
    """

    def __init__(
        self,
        config: str | Path | None = None,
        checkpoint: str | Path | None = None,
        *,
        device: str | None = None,
        precision: str | None = None,
        score_thr: float | None = None,
        batch: int = 1,
        tile: int = TILE,
        overlap: int = OVERLAP,
        backend: str | None = None,
        threads: int | None = None,
    ) -> None:
        _check_whole(batch=batch, tile=tile, threads=1 if threads is None else threads)
        _check_whole(0, overlap=overlap)
        if score_thr is not None and not isinstance(score_thr, Real):
            raise UserError(f'score_thr is {score_thr!r}, expected a number')
        for name, path in (('config', config), ('checkpoint', checkpoint)):
            if path is not None and not isinstance(path, str | os.PathLike):
                raise UserError(f'{name} is {path!r}, expected a name or a path')
        tiling.make_grid(tile, tile, tile, overlap)  # refuses what is not possible
        self.batch, self.tile, self.overlap = batch, tile, overlap
        options = ModelOptions(
            config=config,
            checkpoint=checkpoint,
            device=device,
            precision=precision,
            score_thr=score_thr,
            tile=tile,
            threads=threads,
        )
        self._made_in = os.getpid()
        self.predictor: Predictor = load_predictor(options, backend)
        self.classes = self.predictor.classes
        self.identity = dict(self.predictor.identity, batch=batch, tile=tile, overlap=overlap)

    def __call__(
        self, image: np.ndarray | Image.Image | str | Path, mpp: float | None = None
    ) -> Nuclei:
        """Find the nuclei of an image, tile by tile if it is large.

        Args:
            image: uint8, (H, W, 3), RGB; an image of Pillow; or the path of a file.
            mpp: its microns per pixel; by default what the file says, or 0.25.

        Returns:
            Nuclei in px of the image, where ``points`` are float64: outlines follow the edges of
            pixels of 0.25 microns.

        Raises:
            UserError: the image or the microns per pixel are something else, or the file is
                damaged; or this object comes from a process that this one was forked from.
        """
        with open_image(image, mpp) as slide:
            frame = make_frame(slide)
            grid = self.make_grid(frame)
            places = product(range(len(grid.tops)), range(len(grid.lefts)))
            jobs = self.jobs(slide, frame, grid, places, self.slide_colors(slide, frame, grid))
            # Closed before the slide: its threads read from it, also where a tile is broken.
            with closing(self.segment(jobs)) as found:
                rows = (
                    tiling.join_row(map(_whole, tiles), grid, row)
                    for row, tiles in groupby(found, lambda item: item[0][0])
                )
                nuclei = concatenate([part.nuclei for part in tiling.join_rows(rows, grid)])
        return nuclei.scaled(frame.scale)

    def make_grid(self, frame: Frame) -> Grid:
        """Cover a working image with tiles."""
        step = self.predictor.step
        return tiling.make_grid(frame.width, frame.height, self.tile, self.overlap, step)

    def jobs(
        self,
        slide: Slide,
        frame: Frame,
        grid: Grid,
        places: Iterable[tuple[int, int]],
        colors: Any = None,
    ) -> Iterator[list[Job]]:
        """Batches of a slide's tiles, none of two rows, so that rows do not depend on others.

        Args:
            slide: opened.
            frame: of the working image.
            grid: its tiles.
            places: row and column of each tile wanted, row by row; the keys of the jobs.
            colors: of the slide, by ``slide_colors``.
        """
        batch: list[Job] = []
        for row, column in places:
            if batch and (len(batch) == self.batch or batch[0].key[0] != row):
                yield batch
                batch = []
            read = partial(frame.read, slide, *grid.tile(row, column))
            batch.append(Job((row, column), read, colors))
        if batch:
            yield batch

    def segment(
        self, batches: Iterable[Sequence[Job]]
    ) -> Generator[tuple[Hashable, Nuclei | RegionError, float], None, None]:
        """Find nuclei tile by tile; meanwhile, other threads read tiles and trace masks.

        Args:
            batches: tiles that go through the network together.

        Yields:
            Key of each tile, in order; its nuclei in px of the tile, or why it could not be read;
            when it left the network, seconds of ``time.monotonic``. Results come later, when other
            tiles have gone through it already.

        Raises:
            UserError: the memory of the device does not suffice.
        """
        if os.getpid() != self._made_in:
            # The threads of torch and OpenVINO are not there any more, and would be waited for.
            raise UserError(
                'this Segmenter was made before the process was forked, expected one that is made '
                "in it: multiprocessing.get_context('spawn'), or Segmenter() in the worker"
            )
        with ThreadPoolExecutor(READERS) as readers, ThreadPoolExecutor(1) as tracer:
            reads = (
                [(job.key, readers.submit(self._load, job)) for job in batch] for batch in batches
            )
            found = (
                (*item, time.monotonic())
                for batch in _ahead(reads, AHEAD)
                for item in self._predict(batch, tracer)
            )
            for key, future, left in _ahead(found, BEHIND):
                yield key, future.result(), left

    def slide_colors(
        self, slide: Slide, frame: Frame, grid: Grid, tissue: np.ndarray | None = None
    ) -> Any:
        """Measure the colors of a slide as a whole, if the model's images are normalized.

        Normalized tile by tile, a nucleus on a seam would look different in each. A single tile
        is measured by the predictor.

        Args:
            slide: opened.
            frame: of the working image.
            grid: its tiles.
            tissue: bool, (rows, columns), tiles that are not glass; by default all.

        Returns:
            What ``jobs`` takes; None if there is nothing to measure.
        """
        measure = self.predictor.measure_colors
        shape = len(grid.tops), len(grid.lefts)
        places = np.argwhere(np.ones(shape, bool) if tissue is None else tissue)
        if measure is None or len(places) < 2:
            return None
        samples = []
        for index in np.unique(np.linspace(0, len(places) - 1, COLOR_TILES).round().astype(int)):
            try:
                part = frame.read(slide, *grid.cell(*places[index].tolist()))
            except Exception:  # told when the tile itself is read
                continue
            samples.append(part[::COLOR_STEP, ::COLOR_STEP].reshape(-1, 1, 3))
        shares = np.array([tissue_share(sample) for sample in samples])
        fullest = np.flatnonzero(shares >= MOST_TISSUE * shares.max(initial=0))
        try:
            return measure(np.concatenate([samples[i] for i in fullest]))
        except (UnfitImageError, ValueError):  # the latter without tiles that can be read
            return None

    def _load(self, job: Job) -> tuple[np.ndarray, Any] | RegionError:
        """Read a tile and prepare it for the network."""
        try:
            tile = job.read()
            return tile, self.predictor.prepare(tile, job.colors)
        except Exception as error:  # of this tile; the others go on
            return RegionError(describe(error))

    def _predict(
        self, batch: Sequence[tuple[Hashable, Future]], tracer: ThreadPoolExecutor
    ) -> Iterator[tuple[Hashable, Future]]:
        """Send a batch through the network and its masks to be traced."""
        loaded = [(key, future.result()) for key, future in batch]
        prepared = [item[1] for _, item in loaded if not isinstance(item, RegionError)]
        predictions = iter(self.predictor.predict(prepared) if prepared else ())
        for key, item in loaded:
            if isinstance(item, RegionError):
                yield key, tracer.submit(lambda error: error, item)
            else:
                found = next(predictions)
                yield key, tracer.submit(_trace, found, item[0])


def _whole(item: tuple[Hashable, Nuclei | RegionError, float]) -> tuple[int, Nuclei]:
    """Column and nuclei of a tile, all of which are wanted."""
    (_, column), found, _ = item
    if isinstance(found, RegionError):
        raise found
    return column, found


def _trace(found: Prediction, tile: np.ndarray) -> Nuclei | RegionError:
    """Outline and measure the nuclei of a tile."""
    try:
        return to_nuclei(found.masks, found.scores, tile, MODEL_MPP, found.labels)
    except Exception as error:  # of this tile; the others go on
        return RegionError(describe(error))


def _ahead(items: Iterable[T], count: int) -> Iterator[T]:
    """The items, of which ``count`` more are asked for before one is given out."""
    waiting: deque[T] = deque()
    for item in items:
        waiting.append(item)
        if len(waiting) > count:
            yield waiting.popleft()
    yield from waiting
