"""What finds nuclei in tiles: the part of the work that differs between runtimes."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from nucseg_mmdet.engine.model_zoo import model_files
from nucseg_mmdet.structures.classes import NucleusClass

# Anchors with less are not looked at: of 8,000 boxes in a tile of 512 px a third are left. Boxes of
# the nuclei that are found then agree with those of all 8,000 to a PQ of 0.997 and more.
MIN_OBJECTNESS = 0.5
RUNTIME_SUFFIX = '.openvino.zip'  # of a model's file for OpenVINO
# px; a tile of up to this side has a config's limits as they are, a larger one more for its area.
# The limits are meant for fields of 1,000 px, so that is about four times as much as a config gives
# an area. It costs little: two thirds of 8,000 proposals fall to MIN_OBJECTNESS before.
LIMITS_SIDE = 512
STRIDE = 32  # px of the network's input between places of the coarsest map that nuclei are seen on


class Prediction(NamedTuple):
    """What was found in a tile.

    Attributes:
        boxes: float32, (N, 4), xyxy, px of the tile.
        scores: float32, (N,), 0 to 1.
        masks: N masks of the tile's size, COCO run lengths.
        labels: int64, (N,); indices into ``Predictor.classes``.
    """

    boxes: np.ndarray
    scores: np.ndarray
    masks: list[dict]
    labels: np.ndarray


class Predictor(Protocol):
    """A model in a runtime.

    Attributes:
        classes: of nuclei that it tells apart.
        identity: what the nuclei depend on, plain values.
        device: 'cpu', 'cuda:0', ...
        precision: 'fp32', 'bf16', 'fp16' or 'int8'.
        step: px by which a tile may be moved with nuclei in the same places of the network's maps.
        measure_colors: of an image, uint8, (H, W, 3), RGB: what ``prepare`` takes to normalize
            all tiles of a slide alike; None if the model's images are not normalized.
    """

    classes: tuple[NucleusClass, ...]
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
        precision: 'fp32', 'bf16', 'fp16' or 'int8'.
        score_thr: less certain nuclei are left out, 0 to 1.
        tile: largest side of a tile, px; by default one with the config's limits as they are.
        threads: of the network on a CPU.
    """

    config: str | Path | None = None
    checkpoint: str | Path | None = None
    device: str | None = None
    precision: str | None = None
    score_thr: float | None = None
    tile: int = LIMITS_SIDE
    threads: int | None = None


def runtime_file(options: ModelOptions) -> Path:
    """Where a model's file for OpenVINO is: as given, or beside its checkpoint, if at all."""
    if str(options.checkpoint).endswith(RUNTIME_SUFFIX):
        return Path(options.checkpoint)
    return model_files(options.config, options.checkpoint)[1].with_suffix(RUNTIME_SUFFIX)


def tile_step(factor: float) -> int:
    """Pixels that a tile may be moved by with nuclei in the same places of the network's maps.

    Boxes and masks come from maps with strides of up to 32 px of the network's input: another
    phase gives slightly other nuclei, as different as those of tiles and the whole image. The
    configs' coarsest map, of 64 px, does not count: its anchors are larger than any nucleus.

    Args:
        factor: by which tiles are enlarged for the network.
    """
    steps = np.arange(1, 10 * STRIDE)
    remainder = np.abs((steps * factor + STRIDE / 2) % STRIDE - STRIDE / 2)
    return int(steps[np.argmin(np.round(remainder, 6))])
