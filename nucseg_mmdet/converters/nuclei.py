"""Nuclei out of masks and label maps, without loss."""

from pathlib import Path

import cv2
import numpy as np
from scipy import ndimage

from nucseg_mmdet.converters.base import Nucleus
from nucseg_mmdet.structures.polygons import mask_to_polygons
from nucseg_mmdet.utils.errors import UserError

EIGHT_BITS = 255  # the largest label
MANY_PARTS = 10  # of one label: more than any nucleus has
FEW_PARTS = 3  # beyond one for each label, in which nuclei may be that another one divides


def from_mask(
    mask: np.ndarray, origin: tuple[int, int] = (0, 0), kind: str | None = None
) -> Nucleus:
    """Make the nucleus of a mask.

    Args:
        mask: bool or uint8, (H, W), not empty.
        origin: x, y of the mask's top left corner in the image, px.
        kind: type of the nucleus.
    """
    x, y, width, height = cv2.boundingRect(mask.astype(np.uint8))
    inside = mask[y : y + height, x : x + width] > 0
    x, y = x + int(origin[0]), y + int(origin[1])
    polygons = mask_to_polygons(inside, origin=(x, y))
    return Nucleus(polygons, int(np.count_nonzero(inside)), (x, y, width, height), kind)


def from_labels(labels: np.ndarray) -> dict[int, Nucleus]:
    """Make the nuclei of a checked label map, by label in ascending order.

    A label in several parts is one nucleus in several polygons.

    Args:
        labels: int, (H, W), 0 is background.
    """
    values, dense = np.unique(labels, return_inverse=True)
    # From 0 on without gaps, background 0: find_objects makes an entry for each number.
    dense = dense.reshape(labels.shape) + (0 if values[0] == 0 else 1)
    present = values[values != 0].tolist()
    nuclei = {}
    for number, (window, value) in enumerate(
        zip(ndimage.find_objects(dense), present, strict=True), start=1
    ):
        rows, columns = window
        nuclei[value] = from_mask(dense[window] == number, (columns.start, rows.start))
    return nuclei


def check_labels(labels: np.ndarray, shape: tuple[int, int], path: Path) -> np.ndarray:
    """Check that an array is a label map of an image.

    Args:
        labels: any array; whole numbers may come as floats.
        shape: height and width of the image, px.
        path: what messages name.

    Returns:
        int64, (H, W).

    Raises:
        UserError: another shape or kind, negative or broken numbers.
    """
    if labels.ndim != 2:
        raise UserError(f'{path}: array of shape {labels.shape}, expected a label map (H, W)')
    if labels.shape != shape:
        found, expected = (f'{width} x {height} px' for height, width in (labels.shape, shape))
        raise UserError(f'{path}: {found}, expected {expected} as its image')
    if labels.dtype.kind not in 'iufb':
        raise UserError(f'{path}: array of {labels.dtype}, expected whole numbers')
    if labels.dtype.kind == 'f' and not (np.isfinite(labels) & (labels == np.rint(labels))).all():
        raise UserError(f'{path}: numbers that are not whole, expected labels')
    if labels.size and labels.min() < 0:
        raise UserError(f'{path}: label {labels.min()}, expected labels from 0')
    if labels.size and int(labels.max()) >= 1 << 63:
        raise UserError(f'{path}: label {labels.max()}, expected labels below 2^63')
    return labels.astype(np.int64)


def check_parts(labels: np.ndarray, path: Path) -> list[str]:
    """Refuse labels that are not those of single nuclei: foreground, types, or cut to 8 bits.

    Args:
        labels: int, (H, W).
        path: what messages name.

    Returns:
        A line where many labels are in several parts, which touch at no pixel's corner, or some
        and the largest label is that of 8 bits.

    Raises:
        UserError: the only label is in several parts, more than half of the labels are, or one is
            in more than ``MANY_PARTS``.
    """
    present, dense = np.unique(labels, return_inverse=True)
    dense = dense.reshape(labels.shape) + (0 if present.size and present[0] == 0 else 1)
    present = present[present != 0]
    parts = np.array(
        [
            # Without an output of its own it is a pair.
            ndimage.label(dense[window] == label, np.ones((3, 3)))[1]  # pyright: ignore[reportIndexIssue]
            for label, window in enumerate(ndimage.find_objects(dense), start=1)
        ]
    )
    number, split = len(present), np.count_nonzero(parts > 1)
    expected = 'expected another label for each nucleus'
    if number == 1 and split:
        found = f'one label, {present[0]}, in {parts[0]} parts: a foreground mask'
        raise UserError(f'{path}: {found}, {expected}')
    many = parts.sum() > number + FEW_PARTS
    if many and 2 * split > number:
        found = f'{number} labels in {parts.sum()} parts: of types, or cut to 8 bits'
        raise UserError(f'{path}: {found}, {expected}')
    if number and parts.max() > MANY_PARTS:
        found = (
            f'label {present[parts.argmax()]} in {parts.max()} parts: of a type, or cut to 8 bits'
        )
        raise UserError(f'{path}: {found}, {expected}')
    cut = split > 0 and present[-1] == EIGHT_BITS
    if cut or (many and 10 * split > number):
        note = f'{path}: {split} of {number} labels are in several parts, each taken as a nucleus'
        tail = f'; the largest is {EIGHT_BITS}, as where they were cut to 8 bits' if cut else ''
        return [note + tail]
    return []
