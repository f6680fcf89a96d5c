"""Time a slide from file to GeoJSON: python -m nucseg_mmdet.benchmarks.slides IMAGE.

All sides take turns in one run, so that a busy minute meets them all:

- ours: the default model by OpenVINO, from the image's file to GeoJSON;
- before: the same by the path of version 0.1: torch in fp32, tiles of 512 px, 8,000 proposals;
- stardist, instanseg: their networks alone, of random weights, by OpenVINO; in bf16 where ours is,
  else in fp32. What they leave out is to our disadvantage: reading, colors, their own NMS or
  clustering, outlines, measurements, files.

Every side has loaded its model before.
"""

from nucseg_mmdet.utils.start import start_script

if __name__ == '__main__':
    start_script()

import argparse
import contextlib
import io
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import openvino
from openvino import Node, opset15

from nucseg_mmdet.engine.model_zoo import DEFAULT, MODELS, find_file
from nucseg_mmdet.evaluation.label_scores import count_image, summarize
from nucseg_mmdet.inference import inputs, openvino_model
from nucseg_mmdet.inference.plan import Settings
from nucseg_mmdet.inference.rows import InProcess
from nucseg_mmdet.inference.run import SlideRun
from nucseg_mmdet.inference.segmenter import Segmenter
from nucseg_mmdet.slides.open import open_slide
from nucseg_mmdet.structures.nuclei import Nuclei
from nucseg_mmdet.structures.polygons import ring_runs
from nucseg_mmdet.structures.rle import from_runs, label_map, painting_order
from nucseg_mmdet.utils.arguments import ArgumentParser
from nucseg_mmdet.utils.errors import UserError, exit_code

SIDES = ('ours', 'before', 'stardist', 'instanseg')
TILE = 1_024  # px, of the small networks


class Layers:
    """Layers with random weights, the same for all who make them."""

    def __init__(self) -> None:
        self._rng = np.random.default_rng(0)

    def conv(self, x: Node, outputs: int, size: int = 3, relu: bool = True) -> Node:
        inputs = x.get_output_partial_shape(0)[1].get_length()
        shape = outputs, inputs, size, size
        weights = self._rng.normal(0, (2 / (inputs * size * size)) ** 0.5, shape)
        pads = [size // 2] * 2
        x = opset15.convolution(
            x, opset15.constant(weights.astype(np.float32)), [1, 1], pads, pads, [1, 1]
        )
        x = opset15.add(x, opset15.constant(np.zeros((1, outputs, 1, 1), np.float32)))
        return opset15.relu(x) if relu else x


def pool(x: Node) -> Node:
    return opset15.convert(
        opset15.max_pool(x, [2, 2], [1, 1], [0, 0], [0, 0], [2, 2]).output(0), 'f32'
    )


def enlarge(x: Node) -> Node:
    return opset15.interpolate(
        x,
        np.array([2.0, 2.0], np.float32),
        'nearest',
        'scales',
        coordinate_transformation_mode='asymmetric',
        nearest_mode='floor',
        axes=np.array([2, 3]),
    )


def stardist() -> openvino.Model:
    """The network of ``2D_versatile_he``: a U-Net of depth 3 on a grid of 2 px, 32 rays.

    Source:
        Schmidt et al., MICCAI 2018; layers as in stardist 0.9 (``StarDist2D._build_unet``) and
        csbdeep 0.8 (``unet_block``).
    """
    layers = Layers()
    image = opset15.parameter([1, 3, TILE, TILE], openvino.Type.f32)
    x = image
    for _ in range(2):
        x = layers.conv(x, 32)
    x = pool(x)
    skips = []
    for level in range(3):
        for _ in range(2):
            x = layers.conv(x, 32 << level)
        skips.append(x)
        x = pool(x)
    x = layers.conv(layers.conv(x, 256), 128)
    for level in reversed(range(3)):
        x = opset15.concat([enlarge(x), skips[level]], 1)
        x = layers.conv(layers.conv(x, 32 << level), 32 << max(0, level - 1))
    x = layers.conv(x, 128)
    outputs = [opset15.sigmoid(layers.conv(x, 1, 1, relu=False)), layers.conv(x, 32, 1, relu=False)]
    return openvino.Model(outputs, [image], 'stardist')


def instanseg() -> openvino.Model:
    """The U-Net of ``brightfield_nuclei``, which works at 0.5 microns per pixel.

    Source:
        Goldsborough et al., arXiv 2408.15954; layers as in its ``InstanSeg_UNet``, batch norms
        folded.
    """
    layers = Layers()
    image = opset15.parameter([1, 3, TILE // 2, TILE // 2], openvino.Type.f32)
    x, skips = image, []
    for level in range(4):
        x = pool(x) if level else x
        width = 32 << level
        beside = layers.conv(x, width, 1)
        x = opset15.add(beside, layers.conv(layers.conv(x, width), width))
        x = opset15.add(x, layers.conv(layers.conv(x, width), width))
        skips.append(x)
    for level in reversed(range(3)):
        width = 32 << level
        x = enlarge(x)
        beside = layers.conv(x, width, 1)
        x = opset15.add(layers.conv(x, width), layers.conv(skips[level], width, 1))
        x = opset15.add(beside, layers.conv(x, width))
        x = opset15.add(x, layers.conv(layers.conv(x, width), width))
    return openvino.Model([layers.conv(x, 5, 1, relu=False)], [image], 'instanseg')


def clocks() -> np.ndarray:
    """Seconds of the wall clock, and of the processor for all threads: float64, (2,)."""
    return np.array([time.perf_counter(), time.process_time()])


def network_alone(
    network: openvino.Model, megapixels: float, precision: str
) -> Callable[[], np.ndarray]:
    """Make what runs a network on as many pixels as the image has, and returns its ``clocks``."""
    options = dict(INFERENCE_PRECISION_HINT='bf16' if precision == 'bf16' else 'f32')
    request = openvino_model.runtime().compile_model(network, 'CPU', options).create_infer_request()
    shape = network.input().shape
    tile = np.random.default_rng(0).random(shape, np.float32)
    share = megapixels * 1e6 / TILE**2

    def run() -> np.ndarray:
        """Seconds for the image: of whole tiles, at least one, in proportion."""
        count = max(1, round(share))
        start = clocks()
        for _ in range(count):
            request.infer([tile], share_inputs=True)
        return (clocks() - start) * share / count

    return run


def whole_path(segmenter: Segmenter, path: Path) -> Callable[[], np.ndarray]:
    """Make what segments a file into GeoJSON, and returns its ``clocks``."""

    def run() -> np.ndarray:
        with tempfile.TemporaryDirectory() as name, contextlib.redirect_stderr(io.StringIO()):
            settings = Settings(Path(name), ('geojson',), skip_glass=True)
            start = clocks()
            engine = InProcess(segmenter)
            plans = engine.plan([path], inputs.name_outputs([path]), settings)
            SlideRun(plans, settings, engine).run(lambda *_: None, lambda _: None)
            return clocks() - start

    return run


def make_before(folder: Path, name: str = DEFAULT, tile: int = 512) -> Segmenter:
    """The path of version 0.1, of a model; ``tile`` is the largest side of a tile, px."""
    model = MODELS[name]
    config = folder / 'before.py'
    config.write_text(
        f'_base_ = {str(find_file(model.config))!r}\n'
        'model = dict(test_cfg=dict(rpn=dict(min_score=0.0)))\n'
    )
    return Segmenter(
        config, find_file(model.weights), device='cpu', precision='fp32', backend='mmdet', tile=tile
    )


def to_labels(nuclei: Nuclei, height: int, width: int) -> np.ndarray:
    """Label map of nuclei at 0.25 microns per pixel."""
    owner, x, top, bottom = ring_runs(np.int64(nuclei.points), nuclei.sizes, axis=1)
    masks = from_runs(x * height + top, bottom - top, owner, len(nuclei), height, width)
    return label_map(masks, height, width, order=painting_order(nuclei.scores))


def agreement(ours: Segmenter, image: np.ndarray, folder: Path, name: str) -> float:
    """PQ of our nuclei against those of the path of version 0.1 in one tile."""
    untiled = make_before(folder, name, max(image.shape))
    one, other = (to_labels(some(image), *image.shape[:2]) for some in (untiled, ours))
    return summarize([count_image(one, other)])['pooled']['PQ']


def make_mosaic(image: np.ndarray, side: int, path: Path) -> None:
    """Write an image of many mirrored copies."""
    pair = np.hstack([image, image[:, ::-1]])
    four = np.vstack([pair, pair[::-1]])
    times = [-(-side // length) for length in four.shape[:2]]
    mosaic = np.tile(four, (*times, 1))[:side, :side]
    cv2.imwrite(str(path), mosaic[..., ::-1])


@exit_code
def main(argv: Sequence[str] | None = None) -> int:
    parser = ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('image', type=Path, help='such as a class image of 1,000 px')
    parser.add_argument('--mosaic', type=int, metavar='PX', help='mirror it to so many px')
    parser.add_argument('--sides', nargs='+', choices=SIDES, default=list(SIDES))
    parser.add_argument(
        '--precision', choices=['fp32', 'bf16', 'int8'], help='default: as nucseg segment'
    )
    parser.add_argument(
        '--model', choices=list(MODELS), default=DEFAULT, help='ours, default: %(default)s'
    )
    parser.add_argument('--runs', type=int, default=3, help='of each side, default: 3')
    parser.add_argument('--agreement', action='store_true', help='also the PQ against before')
    args = parser.parse_args(argv)
    for name, number in (('runs', args.runs), ('mosaic', args.mosaic)):
        if number is not None and number < 1:
            raise UserError(f'--{name} {number}: expected at least 1')
    with open_slide(args.image) as slide:
        image = slide.read(0, 0, slide.width, slide.height)
    with tempfile.TemporaryDirectory() as name:
        folder, path = Path(name), args.image
        ours = Segmenter(args.model, backend='openvino', precision=args.precision)
        precision = ours.predictor.precision
        if args.agreement:
            agreed = agreement(ours, image, folder, args.model)
            print(f'PQ against the path of 0.1, untiled: {agreed:.4f}')
        width, height = image.shape[1], image.shape[0]
        if args.mosaic:
            path, width = folder / 'mosaic.png', args.mosaic
            height = width
            make_mosaic(image, args.mosaic, path)
        megapixels = width * height / 1e6
        sides: dict[str, Callable[[], np.ndarray]] = {}
        for side in args.sides:
            if side in ('ours', 'before'):
                sides[side] = whole_path(
                    ours if side == 'ours' else make_before(folder, args.model), path
                )
            else:
                network = stardist() if side == 'stardist' else instanseg()
                sides[side] = network_alone(network, megapixels, precision)
        times: dict[str, list[np.ndarray]] = {side: [] for side in sides}
        for number in range(args.runs + 1):  # the first one warms up
            for side, run in sides.items():
                seconds = run()
                if number or args.runs == 1:
                    times[side].append(seconds)
    print(f'{width} x {height} px, {args.model}, {precision}; the least of {args.runs} runs')
    for side, found in times.items():
        wall, processor = np.min(found, axis=0) / megapixels
        print(f'{side:10} {wall:7.2f} s a megapixel, {processor:7.2f} s of CPU')
    return 0


if __name__ == '__main__':
    sys.exit(main())
