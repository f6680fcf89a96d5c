"""A model in OpenVINO, on a CPU: no torch, no mm*, no compiler.

The networks run in OpenVINO; what lies between them is NumPy here, in the order and the arithmetic
of MMDetection, so that the nuclei are those of ``mmdet_predictor``.
"""

import contextlib
import functools
import hashlib
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import openvino

from nucseg_mmdet.engine.model_zoo import find_config, model_files
from nucseg_mmdet.imaging import stain
from nucseg_mmdet.inference import openvino_int8, openvino_model
from nucseg_mmdet.inference.predictor import (
    RUNTIME_SUFFIX,
    ModelOptions,
    Prediction,
    runtime_file,
    tile_step,
)
from nucseg_mmdet.inference.roi_align import roi_features
from nucseg_mmdet.structures import boxes as box_math
from nucseg_mmdet.structures.doubles import find_doubles
from nucseg_mmdet.structures.paste import paste
from nucseg_mmdet.utils.errors import UserError
from nucseg_mmdet.utils.processes import available_cores

# Boxes that a head looks at together, in one thread. Bounds the memory; few enough that all threads
# have some of a tile, and the same number whatever the threads, so that the sums are the same.
TOGETHER = dict(boxes=512, masks=64)
# Sizes of tiles that the network of features stays compiled for. For a narrower tile at the end of
# a row it is compiled anew, in 0.2 s; each size more would hold memory for all its maps.
SIZES = 1
PRECISIONS = ('fp32', 'bf16', 'int8')
HINTS = dict(fp32='f32', bf16='bf16')
NORMALIZATIONS = dict(
    reinhard=(stain.measure_colors, stain.normalize_colors, stain.TARGET_COLORS),
    macenko=(stain.measure_stains, stain.normalize_stains, stain.TARGET_STAINS),
)


class Prepared(NamedTuple):
    """A tile as the network sees it.

    Attributes:
        image: uint8, (1, H, W, 3), BGR; normalized and enlarged.
        width: of the tile, px.
        height: likewise.
    """

    image: np.ndarray
    width: int
    height: int


class BoxResults(NamedTuple):
    """N nuclei before their masks.

    Attributes:
        boxes: xyxy, float32, (N, 4), px of the network's input.
        scores: float32, (N,).
        labels: int64, (N,).
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray


def _check_source(meta: dict[str, Any], path: Path, options: ModelOptions) -> None:
    """Refuse a file that was made of other weights, or with another config, than those named."""
    config, weights = options.config, None
    if not str(options.checkpoint).endswith(RUNTIME_SUFFIX):  # it lies beside the checkpoint
        config, weights = model_files(options.config, options.checkpoint)
    again = 'make it again by tools/model_converters/export_openvino.py'
    if weights:
        again += ', or take --backend mmdet'
    if weights and meta.get('weights') != hashlib.sha256(weights.read_bytes()).hexdigest():
        raise UserError(f'{path}: is of other weights than {weights}, expected of these; {again}')
    expected = config and find_config(config).stem
    if expected and meta.get('config') != expected:
        found = f'{meta.get("config")!r:.80}'
        raise UserError(f'{path}: is of config {found}, expected {expected}; {again}')


class OpenVinoPredictor:
    """See ``Predictor``; in bf16 on a CPU that has it, else in fp32, unless a precision is given.

    Raises:
        UserError: a file is missing or does not fit, or a value is not possible.
    """

    def __init__(self, options: ModelOptions) -> None:
        if options.device not in (None, 'cpu'):
            raise UserError(f'device is {options.device!r}, expected cpu with backend openvino')
        fastest = 'bf16' if openvino_model.has_bf16() else 'fp32'
        self.device, self.precision = 'cpu', options.precision or fastest
        # In int8, that of what is not in 8 bits.
        self._float = fastest if self.precision == 'int8' else self.precision
        if self.precision not in PRECISIONS:
            raise UserError(
                f'precision is {self.precision!r}, expected one of {", ".join(PRECISIONS)} with '
                'backend openvino'
            )
        path = runtime_file(options)
        if not path.is_file():
            raise UserError(
                f'{path}: not there; tools/model_converters/export_openvino.py makes it'
            )
        networks, self._meta = openvino_model.read(path)
        _check_source(self._meta, path, options)
        self.classes = openvino_model.read_classes(self._meta, path)
        if self.precision == 'int8':
            self._quantize(networks['features'], path)
        score_thr = options.score_thr
        self._score_thr = self._meta['score_thr'] if score_thr is None else score_thr
        normalize = self._meta['normalize']
        self.measure_colors, self._normalize, self._target = NORMALIZATIONS.get(
            normalize, (None, None, None)
        )
        self.step = tile_step(self._meta['resize'])
        with np.errstate(divide='ignore'):
            least = np.float64(self._meta['rpn']['min_score'])
            self._min_logit = np.log(least / (1 - least))
        # Files of models call the side of a tile with a config's own limits ``field``.
        self._limit = max(1.0, (options.tile / self._meta['field']) ** 2)
        threads = options.threads or available_cores()
        try:
            heads = {name: self._compile_head(name, networks[name], threads) for name in TOGETHER}
        except ValueError as error:
            raise UserError(f'{path}: a head {error}, expected one of this project') from None
        self._heads = heads
        self._features_of = functools.lru_cache(SIZES)(
            functools.partial(self._make_features, networks['features'], threads)
        )
        self._threads = ThreadPoolExecutor(threads)
        self._own = threading.local()  # requests for the heads, of each thread
        self._turn = threading.Lock()  # of the callers: a request is one tile's at a time
        self.identity = dict(
            model=hashlib.sha256(path.read_bytes()).hexdigest()[:16],
            classes=[one.name for one in self.classes],
            score_thr=self._score_thr,
            precision=self.precision,
        )

    def _quantize(self, network: openvino.Model, path: Path) -> None:
        if 'ranges' not in self._meta:
            raise UserError(
                f'{path}: has no ranges for int8; tools/model_converters/export_openvino.py '
                '--images measures them'
            )
        try:
            openvino_int8.quantize(network, self._meta['ranges'], self._meta.get('exact', 1))
        except (TypeError, ValueError):
            raise UserError(f'{path}: its ranges for int8 are not of its network') from None

    def _compile(
        self, network: openvino.Model, threads: int, streams: int = 1, precision: str | None = None
    ) -> openvino.CompiledModel:
        options = dict(
            INFERENCE_PRECISION_HINT=HINTS[precision or self._float],
            INFERENCE_NUM_THREADS=threads,
            NUM_STREAMS=streams,
        )
        return openvino_model.runtime().compile_model(network, 'CPU', options)

    def _compile_head(
        self, name: str, network: openvino.Model, threads: int
    ) -> list[openvino.CompiledModel]:
        """Networks, each of which takes what the one before it gives; a thread a stream, each on
        boxes of its own."""
        if name != 'boxes':
            return [self._compile(network, threads, threads)]
        # Scores of many nuclei would tie in the 8 bits that bfloat16 has for digits.
        hidden, last = openvino_model.cut(network)
        return [
            self._compile(hidden, threads, threads),
            self._compile(last, threads, threads, 'fp32'),
        ]

    def _make_features(
        self, network: openvino.Model, threads: int, height: int, width: int
    ) -> openvino.InferRequest:
        """What runs the network on images of one size: faster, and in less memory, than on any."""
        network.reshape([1, height, width, 3])
        return self._compile(network, threads).create_infer_request()

    def prepare(self, tile: np.ndarray, colors: Any = None) -> Prepared:
        height, width = tile.shape[:2]
        if self._normalize:
            with contextlib.suppress(stain.UnfitImageError):  # glass, or ink: as it is
                tile = self._normalize(tile, self._target, colors)
        size = tuple(int(side * self._meta['resize'] + 0.5) for side in (width, height))
        image = np.ascontiguousarray(tile[..., ::-1])
        if size != (width, height):
            image = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
        return Prepared(image[None], width, height)

    def predict(self, prepared: Sequence[Prepared]) -> list[Prediction]:
        with self._turn:
            return [self._predict(tile) for tile in prepared]

    def _predict(self, tile: Prepared) -> Prediction:
        height, width = tile.image.shape[1:3]
        features = self._features_of(height, width)
        features.infer({'image': tile.image}, share_inputs=True)
        size = width, height
        found = self._detect(features, self._propose(features, size), size)
        scale = self._meta['roi'].get('mask_scale', 1.0)  # files of before have none
        probs = self._look(features, 'masks', box_math.enlarge(found.boxes, scale))['probabilities']
        factors = np.array([size[0] / tile.width, size[1] / tile.height] * 2, np.float32)
        boxes = found.boxes / factors
        masks = paste(
            probs[np.arange(len(boxes)), found.labels if probs.shape[1] > 1 else 0],
            box_math.enlarge(boxes, scale),
            tile.height,
            tile.width,
            self._meta['rcnn']['mask_thr_binary'],
        )
        return self._lower_doubles(boxes, masks, found)

    def _propose(self, features: openvino.InferRequest, size: tuple[int, int]) -> np.ndarray:
        """Boxes of anchors that may hold a nucleus, the likeliest first: float32, (N, 4)."""
        rpn = self._meta['rpn']
        boxes, scores = [], []
        for index, anchors in enumerate(self._meta['anchors']):
            logits = features.get_tensor(f'objectness{index}').data[0]
            deltas = features.get_tensor(f'deltas{index}').data
            chosen = np.flatnonzero(logits > self._min_logit)
            if len(chosen) > (limit := round(rpn['nms_pre'] * self._limit)):
                chosen = chosen[np.argpartition(-logits.ravel()[chosen], limit)[:limit]]
            kind, y, x = np.unravel_index(chosen, logits.shape)
            deltas = deltas.reshape(len(logits), 4, *logits.shape[1:])[kind, :, y, x]
            base = np.array(anchors['base'], np.float32)[kind]
            place = np.stack([x, y, x, y], 1).astype(np.float32) * anchors['stride']
            stds = np.array(rpn['stds'], np.float32)
            level = box_math.decode(base + place, deltas * stds, *size)
            score = 1 / (1 + np.exp(-logits[kind, y, x]))
            solid = (level[:, 2:] > level[:, :2]).all(1)
            level, score = level[solid], score[solid]
            kept = box_math.suppress(level, score, rpn['iou_threshold'])
            boxes.append(level[kept])
            scores.append(score[kept])
        order = np.argsort(-np.concatenate(scores), kind='stable')
        return np.concatenate(boxes)[order[: round(rpn['max_per_img'] * self._limit)]]

    def _detect(
        self, features: openvino.InferRequest, proposals: np.ndarray, size: tuple[int, int]
    ) -> BoxResults:
        """Ask of each proposal what it is, and where exactly."""
        rcnn = self._meta['rcnn']
        answer = self._look(features, 'boxes', proposals)
        scores = answer['scores'][:, :-1]
        one_type = rcnn.get('one_type', False)
        if one_type:  # as OneTypeBBoxHead
            likeliest = np.arange(scores.shape[1]) == scores.argmax(1)[:, None]
            scores = np.where(likeliest, scores.sum(1, keepdims=True), 0)
        place, label = np.nonzero(scores > self._score_thr)
        deltas = answer['deltas']
        # -1 would not do: a tile of plain glass may have no proposal.
        deltas = deltas.reshape(len(proposals), deltas.shape[1] // 4, 4)
        deltas = deltas[place, label if deltas.shape[1] > 1 else 0]
        stds = np.array(rcnn['stds'], np.float32)
        boxes, scores = (
            box_math.decode(proposals[place], deltas * stds, *size),
            scores[place, label],
        )
        by_class = [np.flatnonzero(label == kind) for kind in range(rcnn['num_classes'])]
        kept = [
            members[box_math.suppress(boxes[members], scores[members], rcnn['iou_threshold'])]
            for members in ([np.arange(len(label))] if one_type else by_class)
        ]
        kept = np.concatenate(kept)
        kept = kept[np.argsort(-scores[kept], kind='stable')]
        kept = kept[: round(rcnn['max_per_img'] * self._limit)]
        return BoxResults(boxes[kept], scores[kept], label[kept])

    def _look(
        self, features: openvino.InferRequest, head: str, boxes: np.ndarray
    ) -> dict[str, np.ndarray]:
        """Run a head on what lies in boxes, in all threads."""
        roi, size = self._meta['roi'], self._meta['roi']['sizes'][head]
        maps = [features.get_tensor(f'map{index}').data[0] for index in range(len(roi['strides']))]

        def look(some: np.ndarray) -> dict[str, np.ndarray]:
            found = {
                'features': roi_features(maps, roi['strides'], roi['finest_scale'], some, size)
            }
            for request in self._requests(head):
                answer = request.infer(found, share_inputs=True)
                found = {name.any_name: values for name, values in answer.items()}
            return found

        order = np.argsort(box_math.areas(boxes))  # alike ones together: RoIAlign batches them
        parts = np.split(boxes[order], range(TOGETHER[head], len(boxes), TOGETHER[head]))
        answers = list(self._threads.map(look, parts))
        back = np.argsort(order)
        return {name: np.concatenate([one[name] for one in answers])[back] for name in answers[0]}

    def _requests(self, head: str) -> list[openvino.InferRequest]:
        """What runs a head in this thread."""
        if not hasattr(self._own, head):
            setattr(self._own, head, [one.create_infer_request() for one in self._heads[head]])
        return getattr(self._own, head)

    def _lower_doubles(self, boxes: np.ndarray, masks: list[dict], found: BoxResults) -> Prediction:
        """Leave out nuclei that lie on others and, with a lowered score, are not certain enough."""
        scores, mask_nms = found.scores, self._meta['rcnn']['mask_nms']
        if mask_nms and len(masks):
            labels = found.labels * (not mask_nms.get('class_agnostic', False))
            doubles = find_doubles(masks, labels, mask_nms['iom_thr'])
            scores = np.where(doubles, scores * np.float32(mask_nms['factor']), scores)
        order = np.argsort(-scores, kind='stable')
        order = order[scores[order] >= self._score_thr]
        masks = [masks[index] for index in order]
        return Prediction(boxes[order], scores[order], masks, found.labels[order])
