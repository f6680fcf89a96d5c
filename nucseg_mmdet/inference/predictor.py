"""What finds nuclei in tiles: the part of the work that differs between runtimes."""

import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from nucseg_mmdet.utils.errors import UserError

BACKENDS = ('mmdet',)


class Prediction(NamedTuple):
    """What was found in a tile.

    Attributes:
        boxes: float32, (N, 4), xyxy, px of the tile.
        scores: float32, (N,), 0 to 1.
        masks: N masks of the tile's size, COCO run lengths.
    """

    boxes: np.ndarray
    scores: np.ndarray
    masks: list[dict]


class Predictor(Protocol):
    """A model in a runtime.

    Attributes:
        identity: what the nuclei depend on, plain values.
        device: 'cpu', 'cuda:0', ...
        precision: 'fp32', 'bf16' or 'fp16'.
        step: px by which a tile may be moved with nuclei in the same places of the network's maps.
        measure_colors: of an image, uint8, (H, W, 3), RGB: what ``prepare`` takes to normalize
            all tiles of a slide alike; None if the model's images are not normalized.
    """

    identity: dict
    device: str
    precision: str
    step: int
    measure_colors: Callable[[np.ndarray], Any] | None

    def prepare(self, tile: np.ndarray, colors: Any = None) -> Any:
        """Make the network's input of a tile; called in threads.

        Args:
            tile: uint8, (H, W, 3), RGB.
            colors: of the slide as a whole, by ``measure_colors``; None measures the tile.
        """

    def predict(self, prepared: Sequence[Any]) -> list[Prediction]:
        """Find nuclei in tiles that go through the network together.

        Raises:
            UserError: the memory of the device does not suffice.
        """


class ModelOptions(NamedTuple):
    """Which model, and how it runs; None leaves a choice to the project or the predictor.

    Attributes:
        config: of the model.
        checkpoint: with its weights.
        device: 'cpu', 'cuda', 'cuda:1'.
        precision: 'fp32', 'bf16' or 'fp16'.
        score_thr: less certain nuclei are left out, 0 to 1.
        tile: largest side of a tile, px.
    """

    config: str | Path | None = None
    checkpoint: str | Path | None = None
    device: str | None = None
    precision: str | None = None
    score_thr: float | None = None
    tile: int = 512


def load_predictor(options: ModelOptions, backend: str | None = None) -> Predictor:
    """Load a model into a runtime, which is imported only now.

    Args:
        options: which model.
        backend: one of ``BACKENDS``.

    Raises:
        UserError: the runtime is not installed, a file is missing or does not fit, or a value is
            not possible.
    """
    if options.score_thr is not None and not 0 <= options.score_thr < 1:
        raise UserError(
            f'score threshold is {options.score_thr}, expected 0 or more and less than 1'
        )
    if backend not in (None, *BACKENDS):
        raise UserError(f'backend is {backend!r}, expected one of {", ".join(BACKENDS)}')
    if importlib.util.find_spec('torch') is None:
        raise UserError('backend mmdet needs torch: pip install nucseg-mmdet[train]')
    from nucseg_mmdet.inference.mmdet_predictor import MMDetPredictor

    return MMDetPredictor(options)
