"""A trained model over an image of any size.

In a notebook::

    from nucseg_mmdet.inference.segmenter import Segmenter

    nuclei = Segmenter(config, checkpoint)(image)  # uint8, (H, W, 3), RGB
    nuclei.centroids, nuclei.scores, nuclei.measurements

For whole slides, with files for other programs, see ``slide_run`` and ``tools/segment.py``.
"""

import copy
import hashlib
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from itertools import islice, product
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from mmcv.transforms import Compose
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from pycocotools import mask as coco_mask

from nucseg_mmdet.datasets.transforms.stain import StainNormalize
from nucseg_mmdet.engine import config_edits
from nucseg_mmdet.engine.checkpoint import load_weights_only, refuse_unfit
from nucseg_mmdet.engine.model_zoo import model_files
from nucseg_mmdet.imaging.stain import UnfitImageError, tissue_share
from nucseg_mmdet.inference import tiling
from nucseg_mmdet.inference.masks_to_nuclei import to_nuclei
from nucseg_mmdet.inference.tiling import Grid, Views
from nucseg_mmdet.models.half_precision import prepare_for_inference
from nucseg_mmdet.slides.base import ArraySlide, RegionError, Slide
from nucseg_mmdet.structures.nuclei import Nuclei, concatenate
from nucseg_mmdet.utils.errors import UserError

MPP = 0.25  # microns per pixel that the models are trained at
FIELD = 1_000  # px; side of the images that a config's fixed sizes are meant for
STRIDE = 32  # px of the network's input between places of the coarsest map that nuclei are seen on
TILE, OVERLAP = 512, 128  # px; the largest nuclei are 64 px, 16 microns
AHEAD = 2  # batches that are read before the network wants them
BEHIND = 4  # tiles whose masks are traced while the network goes on
READERS = 2  # threads
# A slide's colours are measured on every fourth row and column of so many of its tiles.
COLOUR_TILES, COLOUR_STEP = 64, 4
MOST_TISSUE = 0.5  # of the fullest tile's share of tissue; tiles with less do not count

T = TypeVar('T')


class Job(NamedTuple):
    """A tile to look at.

    Attributes:
        key: names it in the results.
        read: gives the tile, uint8, (H, W, 3), RGB; called in another thread.
        looks: for the pipeline, of the slide as a whole.
    """

    key: Hashable
    read: Callable[[], np.ndarray]
    looks: dict


class Frame(NamedTuple):
    """The working image: a slide, or a region of it, at the model's resolution.

    Attributes:
        scale: level-0 px per working px.
        left: of the region's corner, working px from the slide's.
        top: likewise.
        width: working px.
        height: working px.
    """

    scale: float
    left: int
    top: int
    width: int
    height: int

    def read(self, slide: Slide, x: int, y: int, width: int, height: int) -> np.ndarray:
        """Read a part, given in working px from the region's corner."""
        corner = (self.left + x) * self.scale, (self.top + y) * self.scale
        return slide.read(*corner, width * self.scale, height * self.scale, self.scale)


def make_frame(slide: Slide, region: tuple[int, int, int, int] | None = None) -> Frame:
    """Lay the model's pixels over a slide; one that does not say its resolution has the model's.

    Args:
        slide: opened.
        region: x, y, width, height, level-0 px; by default the whole slide.
    """
    scale = MPP / (slide.mpp or MPP)
    x, y, width, height = region or (0, 0, slide.width, slide.height)
    sides = (max(1, round(side / scale)) for side in (width, height))
    return Frame(scale, round(x / scale), round(y / scale), *sides)


class Segmenter:
    """Mask R-CNN, ready to find nuclei.

    Args:
        config: of the model; by default the project's own model.
        checkpoint: with the model's weights.
        device: 'cpu', 'cuda', 'cuda:1'; by default a GPU if there is one.
        precision: 'fp32', 'bf16' or 'fp16'; by default bf16 on a GPU and fp32 on a CPU.
        score_thr: less certain nuclei are left out, 0 to 1; by default those that the
            config's ``test_evaluator`` leaves out.
        batch: tiles that go through the network together.
        tile: largest side of a tile, px at 0.25 microns.
        overlap: of neighbouring tiles, px at 0.25 microns; twice the largest nucleus.

    Attributes:
        identity: what the nuclei depend on, to recognise results of the same model.

    Raises:
        UserError: a file is missing or does not fit, or a value is not possible.
    """

    def __init__(
        self,
        config: str | Path | None = None,
        checkpoint: str | Path | None = None,
        device: str | None = None,
        precision: str | None = None,
        score_thr: float | None = None,
        batch: int = 1,
        tile: int = TILE,
        overlap: int = OVERLAP,
    ) -> None:
        config, checkpoint = model_files(config, checkpoint)
        if batch < 1:
            raise UserError(f'batch is {batch}, expected at least 1')
        tiling.make_grid(tile, tile, tile, overlap)  # refuses what is not possible
        self.batch, self.tile, self.overlap = batch, tile, overlap
        self.device = _find_device(device)
        self.precision = precision or ('fp32' if self.device.type == 'cpu' else 'bf16')

        cfg = config_edits.load_config(config, {}, None)
        if score_thr is None:
            score_thr = config_edits.score_threshold(cfg)
        if not 0 <= score_thr < 1:
            raise UserError(f'score threshold is {score_thr}, expected 0 or more and less than 1')
        init_default_scope(cfg.get('default_scope', 'mmdet'))
        cfg.model.backbone.init_cfg = None
        cfg.model.test_cfg.rcnn.pop('truth_offset', None)  # nuclei where the image has them
        pipeline = tile_pipeline(cfg)
        self.identity = dict(
            model=_digest(str(cfg.model.to_dict()).encode()),
            pipeline=_digest(str(pipeline).encode()),
            checkpoint=_digest(checkpoint.read_bytes()),
            score_thr=score_thr,
            batch=batch,
            tile=tile,
            overlap=overlap,
            precision=self.precision,
        )
        self._pipeline = Compose(pipeline)
        self._steps = self._pipeline.transforms
        self._step = tile_step(pipeline)
        self._score_thr = score_thr
        # In the network, so that what is less certain gets no mask.
        cfg.model.test_cfg.rcnn.score_thr = score_thr
        raise_limits(cfg, tile)
        model = MODELS.build(cfg.model)
        _load_weights(model, checkpoint)
        self._model = prepare_for_inference(model.to(self.device), self.precision)

    def __call__(self, image: np.ndarray, mpp: float = MPP) -> Nuclei:
        """Find the nuclei of an image, tile by tile if it is large.

        Args:
            image: uint8, (H, W, 3), RGB.
            mpp: its microns per pixel.

        Returns:
            Nuclei in px of the image, where ``points`` are float64: outlines follow the edges of
            pixels of 0.25 microns.

        Raises:
            UserError: the image or the microns per pixel are something else.
        """
        slide = ArraySlide(image, mpp)
        frame = make_frame(slide)
        grid = self.make_grid(frame)
        columns = len(grid.lefts)
        jobs = self.jobs(slide, frame, grid, product(range(len(grid.tops)), range(columns)))
        found = (tiling.own(nuclei, grid, *place) for place, nuclei in self.detect(jobs))
        rows = (
            tiling.concatenate_views(list(tiling.join(row, grid.seams_x, axis=0)))
            for row in _chunks(found, columns)
        )
        nuclei = concatenate([part.nuclei for part in tiling.join(rows, grid.seams_y, axis=1)])
        return nuclei._replace(
            points=nuclei.points * frame.scale,
            centroids=nuclei.centroids * frame.scale,
        )

    def make_grid(self, frame: Frame) -> Grid:
        """Cover a working image with tiles."""
        return tiling.make_grid(frame.width, frame.height, self.tile, self.overlap, self._step)

    def jobs(
        self,
        slide: Slide,
        frame: Frame,
        grid: Grid,
        places: Iterable[tuple[int, int]],
        tissue: np.ndarray | None = None,
    ) -> Iterator[list[Job]]:
        """Batches of a slide's tiles, none of two rows, so that rows do not depend on others.

        Args:
            slide: opened.
            frame: of the working image.
            grid: its tiles.
            places: row and column of each tile wanted, row by row; the keys of the jobs.
            tissue: bool, (rows, columns), tiles that are not glass; by default all.
        """
        looks = self._look(slide, frame, grid, tissue)
        batch: list[Job] = []
        for row, column in places:
            if batch and (len(batch) == self.batch or batch[0].key[0] != row):
                yield batch
                batch = []
            read = partial(frame.read, slide, *grid.tile(row, column))
            batch.append(Job((row, column), read, looks))
        if batch:
            yield batch

    def detect(
        self, batches: Iterable[Sequence[Job]]
    ) -> Iterator[tuple[Hashable, Nuclei | RegionError]]:
        """Find nuclei tile by tile, each for itself; reading and tracing go on beside.

        Args:
            batches: tiles that go through the network together.

        Yields:
            Key of each tile, in order, and its nuclei in px of the tile, or why it could not be
            read.

        Raises:
            UserError: the memory of the device does not suffice.
        """
        with ThreadPoolExecutor(READERS) as readers, ThreadPoolExecutor(1) as tracer:
            reads = (
                [(job.key, readers.submit(self._load, job)) for job in batch] for batch in batches
            )
            found = (item for batch in _ahead(reads, AHEAD) for item in self._run(batch, tracer))
            for key, future in _ahead(found, BEHIND):
                yield key, future.result()

    def _look(
        self, slide: Slide, frame: Frame, grid: Grid, tissue: np.ndarray | None
    ) -> dict[str, tuple]:
        """Measure the colours of a slide, where they are normalised: tile by tile, a nucleus on
        a seam would change. A single tile is measured by the pipeline.
        """
        normalize = next((step for step in self._steps if isinstance(step, StainNormalize)), None)
        shape = len(grid.tops), len(grid.lefts)
        places = np.argwhere(np.ones(shape, bool) if tissue is None else tissue)
        if normalize is None or len(places) < 2:
            return {}
        samples = []
        for index in np.unique(np.linspace(0, len(places) - 1, COLOUR_TILES).round().astype(int)):
            try:
                part = frame.read(slide, *grid.cell(*places[index].tolist()))
            except RegionError:
                continue
            samples.append(part[::COLOUR_STEP, ::COLOUR_STEP].reshape(-1, 1, 3))
        shares = np.array([tissue_share(sample) for sample in samples])
        fullest = np.flatnonzero(shares >= MOST_TISSUE * shares.max(initial=0))
        try:
            return dict(measured=normalize.measure(np.concatenate([samples[i] for i in fullest])))
        except (UnfitImageError, ValueError):  # as without tiles that can be read
            return {}

    def _load(self, job: Job) -> tuple[np.ndarray, dict] | RegionError:
        """Read a tile and prepare it for the network."""
        try:
            image = job.read()
        except RegionError as error:
            return error
        results = dict(img=np.ascontiguousarray(image[..., ::-1]), img_id=0, **job.looks)
        return image, self._pipeline(results)

    def _run(
        self, batch: Sequence[tuple[Hashable, Future]], tracer: ThreadPoolExecutor
    ) -> Iterator[tuple[Hashable, Future]]:
        """Send a batch through the network and its masks to be traced."""
        loaded = [(key, future.result()) for key, future in batch]
        samples = [item[1] for _, item in loaded if not isinstance(item, RegionError)]
        results = iter(self._predict(samples) if samples else ())
        for key, item in loaded:
            if isinstance(item, RegionError):
                yield key, tracer.submit(lambda error: error, item)
            else:
                yield key, tracer.submit(to_nuclei, *next(results), item[0], MPP)

    def _predict(self, samples: Sequence[dict]) -> list[tuple[list[dict], np.ndarray]]:
        """Masks, COCO run lengths, and scores of each tile."""
        data = {name: [sample[name] for sample in samples] for name in ('inputs', 'data_samples')}
        try:
            with torch.no_grad():
                found = self._model.test_step(data)
        except torch.OutOfMemoryError:
            raise UserError(
                f'{self.device}: out of memory with {len(samples)} tiles of up to {self.tile} px, '
                'expected a smaller batch or tile'
            ) from None
        nuclei = [sample.pred_instances for sample in found]
        nuclei = [some[some.scores >= self._score_thr] for some in nuclei]  # no lowered doubles
        return [(_to_rles(some.masks), some.scores.cpu().numpy()) for some in nuclei]


def _find_device(name: str | None) -> torch.device:
    try:
        device = torch.device(name or ('cuda' if torch.cuda.is_available() else 'cpu'))
    except RuntimeError:
        raise UserError(f'device is {name!r}, expected cpu, cuda or cuda:N') from None
    if device.type == 'cuda' and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(f'device is {name}, but torch finds {torch.cuda.device_count()} GPUs')
    return device


def tile_pipeline(cfg: Config) -> list[dict]:
    """The model's own test pipeline, for tiles in memory.

    A step that brings an image to a fixed size would enlarge a small tile more than a large
    one. It becomes the factor that it is for a field of 1,000 px.
    """
    steps = copy.deepcopy(cfg.test_dataloader.dataset.pipeline)
    for step in steps:
        if step['type'] == 'LoadImageFromFile':
            step['type'] = 'mmdet.LoadImageFromNDArray'
        elif step['type'] == 'Resize' and step.get('scale'):
            short, long = sorted(step.pop('scale'))
            step['scale_factor'] = min(short, long) / FIELD
    return [step.to_dict() for step in steps]


def raise_limits(cfg: Config, tile: int) -> None:
    """Give a large tile as many proposals and nuclei for its area as one of 512 px, in place.

    A config's limits are for an image, whatever its size: where they bind, large tiles miss
    nuclei that small ones find. Proposals take most of the time, so there are no more.
    """
    more = max(1.0, (tile / TILE) ** 2)
    for stage in cfg.model.test_cfg.values():
        for key in ('nms_pre', 'max_per_img'):
            if key in stage:
                stage[key] = round(stage[key] * more)


def tile_step(pipeline: Sequence[dict]) -> int:
    """Pixels that a tile may be moved by with nuclei in the same places of the network's maps.

    Boxes and masks come from maps with strides of up to 32 px of the network's input: another
    phase gives slightly other nuclei, as different as those of tiles and the whole image. The
    configs' coarsest map, of 64 px, does not count: its anchors are larger than any nucleus.
    """
    factor = 1.0
    for step in pipeline:
        factor *= step.get('scale_factor', 1.0) if step['type'] == 'Resize' else 1.0
    steps = np.arange(1, 10 * STRIDE)
    remainder = np.abs((steps * factor + STRIDE / 2) % STRIDE - STRIDE / 2)
    return int(steps[np.argmin(np.round(remainder, 6))])


def _load_weights(model: torch.nn.Module, path: Path) -> None:
    checkpoint = load_weights_only(str(path), 'cpu')
    refuse_unfit(model, checkpoint, str(path))
    if dropped := checkpoint.get('meta', {}).get('dropped'):
        raise UserError(f'{path}: has no class layers for this config, missing {dropped[0]}')
    weights = checkpoint.get('state_dict', checkpoint)
    model.load_state_dict({key.removeprefix('module.'): item for key, item in weights.items()})


def _to_rles(masks: list[dict] | torch.Tensor) -> list[dict]:
    """Masks of ``RLEMaskHead`` as they are; mmdet's own heads give bitmaps."""
    if isinstance(masks, list):
        return masks
    return [coco_mask.encode(np.asfortranarray(mask, np.uint8)) for mask in masks.cpu().numpy()]


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _ahead(items: Iterable[T], count: int) -> Iterator[T]:
    """The items, of which ``count`` more are asked for before one is given out."""
    waiting: deque[T] = deque()
    for item in items:
        waiting.append(item)
        if len(waiting) > count:
            yield waiting.popleft()
    yield from waiting


def _chunks(items: Iterable[Views], size: int) -> Iterator[list[Views]]:
    items = iter(items)
    while chunk := list(islice(items, size)):
        yield chunk
