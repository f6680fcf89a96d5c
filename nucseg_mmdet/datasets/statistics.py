"""What a data set holds, and whether a config fits it: sizes, anchors, crowding, stain.

Sizes count twice: in the image files, and as the network gets them, after the training
pipeline (resized, cropped, ...), which is what anchors must match.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from mmdet.registry import TASK_UTILS
from mmdet.structures.bbox import get_box_tensor
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from scipy.spatial import KDTree

from nucseg_mmdet.imaging.image_files import read_color
from nucseg_mmdet.imaging.stain import UnfitImageError, measure_stains
from nucseg_mmdet.utils.errors import UserError
from nucseg_mmdet.utils.wrapped import parts

ANCHOR_IOU = (0.5, 0.7)
MIN_MATCHED = 0.9  # of the nuclei with an anchor of IoU 0.5; below it, a warning
MAX_SUPPRESSED = 0.01  # of the nuclei that non-maximum suppression would take; above, a warning
MIN_BRIGHTNESS = 80  # median gray value; the glass of a slide is bright, fluorescence dark


class Anchors(NamedTuple):
    """The anchors of a config.

    Attributes:
        base: float, (A, 4) for each level; xyxy at the grid's first place, px.
        strides: x, y for each level, px.
        divisor: images are padded to a multiple of this, px.
    """

    base: list[np.ndarray]
    strides: list[tuple[int, int]]
    divisor: int


class Field(NamedTuple):
    """An image file and its nuclei.

    Attributes:
        name: of the file.
        height: px.
        width: px.
        boxes: float, (N, 4), xyxy, px.
        areas: float, (N,), of the masks, px.
        stain: 99th percentile of hematoxylin and of eosin; None where it is not measurable.
        brightness: median gray value, 0 to 255.
    """

    name: str
    height: int
    width: int
    boxes: np.ndarray
    areas: np.ndarray
    stain: tuple[float, float] | None
    brightness: float


class View(NamedTuple):
    """An image as the network gets it: boxes float, (N, 4), xyxy, px; height, width in px."""

    boxes: np.ndarray
    height: int
    width: int


class Stats(NamedTuple):
    """All that a report tells.

    Attributes:
        fields: the image files.
        views: one for each image file.
        anchors: of the config.
        best_iou: float, (M,), of each nucleus in the views with its best anchor.
        suppressed: bool, (N,), by nucleus of the files: its box overlaps another's by more
            than the config's non-maximum suppression allows.
        spacing: float, (N,), distance to the next nucleus, center to center, in units of the
            nucleus' diameter; infinite for a nucleus alone.
        warnings: a line for each thing in the config that does not fit.
    """

    fields: list[Field]
    views: list[View]
    anchors: Anchors
    best_iou: np.ndarray
    suppressed: np.ndarray
    spacing: np.ndarray
    warnings: list[str]


def collect(cfg: Config, dataset: BaseDataset) -> Stats:
    """Measure the training data of a config.

    Args:
        cfg: of a two-stage detector with an ``AnchorGenerator``.
        dataset: built from ``cfg.train_dataloader.dataset``. Of one that is repeated each image
            counts once.

    Raises:
        UserError: the data has no nucleus of the classes.
    """
    sets = parts(dataset)
    fields = [_field(part.get_data_info(index)) for part in sets for index in range(len(part))]
    if not sum(len(field.boxes) for field in fields):
        ann_file, classes = Path(sets[0].ann_file), sets[0].metainfo['classes']
        names = ', '.join(_category_names(ann_file))
        raise UserError(f'{ann_file}: no nucleus of the classes {", ".join(classes)}, has {names}')
    views = [_view(part[index]) for part in sets for index in range(len(part))]
    warnings = [
        line
        for part in sets
        for line in _class_warnings(cfg, Path(part.ann_file), part.metainfo['classes'])
    ]
    anchors = read_anchors(cfg)
    best = [
        best_anchor_iou(view.boxes, anchors, view.height, view.width)
        for view in views
        if len(view.boxes)
    ]
    threshold = cfg.model.test_cfg.rcnn.nms.iou_threshold
    stats = Stats(
        fields,
        views,
        anchors,
        np.concatenate([np.zeros(0), *best]),
        np.concatenate([overlapping(field.boxes, threshold) for field in fields]),
        np.concatenate([spacing(field.boxes, field.areas) for field in fields]),
        warnings,
    )
    stats.warnings.extend(_fit_warnings(cfg, stats))
    return stats


def _field(info: dict) -> Field:
    image = read_color(Path(info['img_path']))
    try:
        stain = tuple(measure_stains(image[..., ::-1]).maxima.tolist())
    except UnfitImageError:
        stain = None
    return Field(
        Path(info['img_path']).name,
        info['height'],
        info['width'],
        np.array([instance['bbox'] for instance in info['instances']], float).reshape(-1, 4),
        np.array([polygon_area(instance['mask']) for instance in info['instances']]),
        stain,
        float(np.median(image)),
    )


def polygon_area(polygons: Sequence[Sequence[float]]) -> float:
    """The area inside disjoint polygons ``[x0, y0, x1, y1, ...]``, px."""
    area = 0.0
    for polygon in polygons:
        x, y = np.reshape(polygon, (-1, 2)).T
        area += float(abs(x @ np.roll(y, 1) - y @ np.roll(x, 1))) / 2
    return area


def _view(packed: dict) -> View:
    boxes = get_box_tensor(packed['data_samples'].gt_instances.bboxes)
    height, width = packed['inputs'].shape[-2:]
    return View(boxes.numpy().astype(float).reshape(-1, 4), height, width)


def read_anchors(cfg: Config) -> Anchors:
    """The anchors that a config's RPN puts on every place of its grids."""
    generator = TASK_UTILS.build(cfg.model.rpn_head.anchor_generator)
    return Anchors(
        [base.numpy().astype(float) for base in generator.base_anchors],
        generator.strides,
        cfg.model.data_preprocessor.get('pad_size_divisor', 1),
    )


def best_anchor_iou(boxes: np.ndarray, anchors: Anchors, height: int, width: int) -> np.ndarray:
    """The IoU of each box with the anchor that fits it best.

    An anchor of a given size overlaps a box most at the place of its grid that is nearest to
    the box, in x and in y apart, so one place a size is enough.

    Args:
        boxes: float, (N, 4), xyxy, px.
        anchors: of the config.
        height: of the image before padding, px.
        width: of the image before padding, px.

    Returns:
        float, (N,), 0 to 1.
    """
    low, high = boxes[:, :2], boxes[:, 2:]
    area = (high - low).prod(axis=1)
    padded = -(-np.array([width, height]) // anchors.divisor) * anchors.divisor
    best = np.zeros(len(boxes))
    for base, stride in zip(anchors.base, anchors.strides, strict=True):
        last = -(-padded // stride) - 1  # of the grid's places, counted from 0
        for anchor in base:
            offset = (low + high - anchor[:2] - anchor[2:]) / 2
            shift = np.clip(np.rint(offset / stride), 0, last) * stride
            sides = np.minimum(high, anchor[2:] + shift) - np.maximum(low, anchor[:2] + shift)
            shared = np.clip(sides, 0, None).prod(axis=1)
            union = area + (anchor[2:] - anchor[:2]).prod() - shared
            best = np.maximum(best, shared / union)
    return best


def overlapping(boxes: np.ndarray, threshold: float) -> np.ndarray:
    """Which boxes overlap another one with an IoU above the threshold: bool, (N,).

    Args:
        boxes: float, (N, 4), xyxy, px.
        threshold: IoU.
    """
    found = np.zeros(len(boxes), bool)
    if len(boxes) < 2:
        return found
    # Boxes overlap only where their centers are no further apart than the longest side.
    reach = (boxes[:, 2:] - boxes[:, :2]).max()
    tree = KDTree((boxes[:, :2] + boxes[:, 2:]) / 2)
    pairs = tree.query_pairs(reach, p=np.inf, output_type='ndarray')
    one, other = boxes[pairs[:, 0]], boxes[pairs[:, 1]]
    sides = np.minimum(one[:, 2:], other[:, 2:]) - np.maximum(one[:, :2], other[:, :2])
    shared = np.clip(sides, 0, None).prod(axis=1)
    areas = [(part[:, 2:] - part[:, :2]).prod(axis=1) for part in (one, other)]
    found[pairs[shared > threshold * (sum(areas) - shared)]] = True
    return found


def spacing(boxes: np.ndarray, areas: np.ndarray) -> np.ndarray:
    """Distance from each nucleus to the next one, in units of its diameter.

    Args:
        boxes: float, (N, 4), xyxy, px.
        areas: float, (N,), px.

    Returns:
        float, (N,), between the centers of the boxes; infinite for a nucleus alone and for one
            without an area.
    """
    found = np.full(len(boxes), np.inf)
    if len(boxes) < 2:
        return found
    centers = (boxes[:, :2] + boxes[:, 2:]) / 2
    distances = KDTree(centers).query(centers, k=2)[0][:, 1]
    return np.divide(distances, diameters(areas), out=found, where=areas > 0)


def diameters(areas: np.ndarray) -> np.ndarray:
    """Diameters of circles: float64, (N,), px.

    Args:
        areas: int or float, (N,), square px.
    """
    return np.sqrt(4 * areas / np.pi)


def _class_warnings(cfg: Config, ann_file: Path, classes: Sequence[str]) -> list[str]:
    names = _category_names(ann_file)
    head = cfg.model.roi_head
    counts = {
        'roi_head.bbox_head.num_classes': head.bbox_head.num_classes,
        'roi_head.mask_head.num_classes': head.mask_head.num_classes,
    }
    warnings = [
        f'{key} is {count}, the data set has {len(classes)} classes: {", ".join(classes)}'
        for key, count in counts.items()
        if count != len(classes)
    ]
    for name in sorted(set(names) - set(classes)):
        # The data set refuses nuclei of such a category: it has none.
        warnings.append(
            f'category {name} of {ann_file.name}, without nuclei, is no class of the config'
        )
    for name in sorted(set(classes) - set(names)):
        warnings.append(f'class {name} is no category of {ann_file.name}')
    return warnings


def _category_names(ann_file: Path) -> list[str]:
    return [category['name'] for category in json.loads(ann_file.read_text())['categories']]


def _fit_warnings(cfg: Config, stats: Stats) -> list[str]:
    warnings = []
    missed = np.mean(stats.best_iou < ANCHOR_IOU[0]) if stats.best_iou.size else 0.0
    if missed > 1 - MIN_MATCHED:
        sides, sizes = box_sides(stats.views), anchor_sizes(stats.anchors)
        warnings.append(
            f'{missed:.0%} of the nuclei have no anchor with IoU {ANCHOR_IOU[0]}: anchors are '
            f'{sizes[0]:.0f} to {sizes[-1]:.0f} px, nuclei {np.percentile(sides, 5):.0f} to '
            f'{np.percentile(sides, 95):.0f} px as the network gets them; change '
            'rpn_head.anchor_generator.scales, or enlarge the images'
        )
    fullest = max(stats.fields, key=lambda field: len(field.boxes))
    test_cfg = cfg.model.test_cfg
    for part in ('rpn', 'rcnn'):
        limit = test_cfg[part].max_per_img
        if len(fullest.boxes) > limit:
            over = sum(len(field.boxes) > limit for field in stats.fields)
            warnings.append(
                f'test_cfg.{part}.max_per_img is {limit}: {over} of {len(stats.fields)} images '
                f'have more nuclei, {fullest.name} {len(fullest.boxes):,}'
            )
    if stats.suppressed.mean() > MAX_SUPPRESSED:
        warnings.append(
            f'{stats.suppressed.mean():.1%} of the nuclei have a neighbor whose box overlaps '
            f'theirs by more than test_cfg.rcnn.nms.iou_threshold '
            f'({test_cfg.rcnn.nms.iou_threshold}): one of the two is lost at test'
        )
    dark = [field.name for field in stats.fields if field.brightness < MIN_BRIGHTNESS]
    if dark:
        warnings.append(f'{len(dark)} images are dark, as fluorescence is, first {dark[0]}')
    unfit = [field.name for field in stats.fields if field.stain is None]
    if unfit:
        warnings.append(f'{len(unfit)} images show no two stains, first {unfit[0]}')
    return warnings


def box_sides(views: Sequence[View]) -> np.ndarray:
    """Square roots of the areas of the boxes in the views, px: what anchor sizes compare to."""
    boxes = np.concatenate([view.boxes for view in views])
    return np.sqrt((boxes[:, 2:] - boxes[:, :2]).prod(axis=1))


def anchor_sizes(anchors: Anchors) -> list[float]:
    """Square roots of the areas of the anchors, each size once, ascending, px."""
    base = np.concatenate(anchors.base)
    sizes = np.sqrt((base[:, 2:] - base[:, :2]).prod(axis=1))
    return np.unique(sizes.round(3)).tolist()
