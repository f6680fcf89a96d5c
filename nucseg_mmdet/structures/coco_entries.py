"""The entries of COCO files: images, categories, annotations and results."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import ndimage

from nucseg_mmdet.structures.polygons import Polygon, mask_to_polygons

CATEGORY_ID = 1


def make_categories(names: Sequence[str] = ('nucleus',)) -> list[dict[str, Any]]:
    """Make the categories of a COCO file, numbered from 1."""
    return [dict(id=index, name=name) for index, name in enumerate(names, start=CATEGORY_ID)]


def make_image(
    image_id: int | None,
    file_name: str,
    height: int,
    width: int,
    organ: str | None = None,
    slide: str | None = None,
) -> dict[str, Any]:
    """Make an image of a COCO file; ``organ`` and ``slide``, own keys, only where known."""
    own = dict(organ=organ, slide=slide)
    known = {key: value for key, value in own.items() if value is not None}
    return dict(id=image_id, file_name=file_name, height=height, width=width) | known


def make_annotation(
    annotation_id: int,
    image_id: int | None,
    segmentation: list[Polygon] | dict,
    area: int,
    bbox: Sequence[float] | None = None,
    category_id: int = CATEGORY_ID,
    kind: str | None = None,
) -> dict[str, Any]:
    """Make an annotation of a COCO file: one nucleus.

    Args:
        annotation_id: from 1; pycocotools takes 0 for "no match".
        image_id: of its image.
        segmentation: polygons on pixel edges, or an RLE.
        area: of the mask, px.
        bbox: xywh of the mask, px; left out where nobody reads it.
        category_id: of its class.
        kind: type of the nucleus, for this project's own key ``type``, where it is known.
    """
    annotation: dict[str, Any] = dict(
        id=annotation_id, image_id=image_id, category_id=category_id, segmentation=segmentation
    )
    annotation['area'] = area
    if bbox is not None:
        annotation['bbox'] = list(bbox)
    annotation['iscrowd'] = 0
    if kind is not None:
        annotation['type'] = kind
    return annotation


def make_annotations(labels: np.ndarray, image_id: int, first_id: int = 1) -> list[dict[str, Any]]:
    """Make the annotations of a label map, in the order of its labels.

    Args:
        labels: int, (H, W), 0 is background, 1 to N without gaps.
        image_id: of its image.
        first_id: of the annotations.
    """
    annotations = []
    for number, (rows, columns) in enumerate(ndimage.find_objects(labels)):
        mask = labels[rows, columns] == number + 1
        x, y = columns.start, rows.start
        polygons = mask_to_polygons(mask, (x, y))
        bbox = (x, y, columns.stop - x, rows.stop - y)
        annotations.append(
            make_annotation(first_id + number, image_id, polygons, int(mask.sum()), bbox)
        )
    return annotations


def make_results(
    image_id: int,
    boxes: np.ndarray,
    scores: np.ndarray,
    rles: Sequence[Mapping[str, Any]],
    category_ids: Sequence[int],
) -> list[dict[str, Any]]:
    """Make the results of an image for a COCO results file.

    Args:
        image_id: of the image.
        boxes: float, (N, 4), xyxy, px; written as xywh with two decimals.
        scores: float, (N,).
        rles: N masks, ``counts`` in bytes, which become text.
        category_ids: N.
    """
    boxes = boxes.astype(np.float64).round(2)
    boxes[:, 2:] -= boxes[:, :2]
    return [
        dict(
            image_id=image_id,
            bbox=box,
            score=score,
            category_id=category_id,
            segmentation=dict(size=list(mask['size']), counts=mask['counts'].decode()),
        )
        for box, score, mask, category_id in zip(
            boxes.round(2).tolist(), scores.tolist(), rles, category_ids, strict=True
        )
    ]
