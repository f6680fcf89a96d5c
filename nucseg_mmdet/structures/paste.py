"""Masks of a network, pasted where their boxes are, as COCO run lengths.

The twin of ``models.rle_mask_head.paste_rle``, for runtimes without torch. Bilinear weights are
products of one for the row and one for the column, so that sampling is two matrix products.
"""

import numpy as np

from nucseg_mmdet.structures import rle

BUCKET = 8  # masks whose windows round up to the same multiple of this, px, go together
CHUNK = 1 << 20  # pixels sampled together; bounds the memory


def paste(
    probs: np.ndarray, boxes: np.ndarray, height: int, width: int, threshold: float = 0.5
) -> list[dict]:
    """Paste masks into an image of their own each, as COCO run lengths.

    A mask reaches 1 px beyond its box, and is empty if that leaves nothing of the image.

    Args:
        probs: float32, (N, h, w), 0 to 1.
        boxes: float32, (N, 4), xyxy, px of the image; finite, otherwise any.
        height: of the image, px.
        width: of the image, px.
        threshold: a pixel belongs to the mask from this probability on, > 0.

    Returns:
        N masks ``{'size': [height, width], 'counts': bytes}``.

    Raises:
        ValueError: the threshold is not above 0.
    """
    if threshold <= 0:
        raise ValueError(f'mask threshold is {threshold}, expected a value above 0')
    boxes = np.asarray(boxes, np.float32)
    low = np.maximum(np.floor(boxes[:, :2]) - 1, 0)
    high = np.minimum(np.ceil(boxes[:, 2:]) + 1, np.array([width, height], np.float32))
    extent = np.maximum(high - low, 0)  # of each mask's window, (N, 2), px

    # Masks whose windows are about as large are sampled together.
    sides = np.ceil(extent / BUCKET).astype(np.int64) * BUCKET
    sides, bucket = np.unique(sides, axis=0, return_inverse=True)
    runs = [np.zeros((3, 0), np.int64)]
    for number, (columns, rows) in enumerate(sides.tolist()):
        members = np.flatnonzero(bucket.ravel() == number)
        if not columns or not rows:
            continue
        step = max(1, CHUNK // (columns * rows))
        for chosen in np.split(members, range(step, len(members), step)):
            across = _weights(boxes, low, extent, chosen, 0, columns, probs.shape[2])
            down = _weights(boxes, low, extent, chosen, 1, rows + 1, probs.shape[1])
            inside = across @ probs[chosen].transpose(0, 2, 1) @ down.transpose(0, 2, 1)
            runs.append(_find_runs(inside >= threshold, low[chosen], chosen, height))
    start, length, index = np.concatenate(runs, axis=1)
    order = np.argsort(index, kind='stable')
    return rle.from_runs(start[order], length[order], index[order], len(boxes), height, width)


def _weights(
    boxes: np.ndarray,
    low: np.ndarray,
    extent: np.ndarray,
    chosen: np.ndarray,
    axis: int,
    count: int,
    cells: int,
) -> np.ndarray:
    """How much of each cell of a mask is in each pixel of its window, along one axis.

    Beyond the mask, and beyond the window, there is nothing.

    Returns:
        float32, (M, count, cells).
    """
    first, last = boxes[chosen, axis, None], boxes[chosen, axis + 2, None]
    step = np.arange(count, dtype=np.float32)
    with np.errstate(divide='ignore', invalid='ignore'):
        place = (low[chosen, axis, None] + step + np.float32(0.5) - first) / (last - first)
        place = np.where(np.isinf(place), np.float32(0.5), place)  # as torch's code does
    place = place * cells - np.float32(0.5)
    hat = 1 - np.abs(place[..., None] - np.arange(cells, dtype=np.float32))
    hat[step >= extent[chosen, axis, None]] = 0
    return np.maximum(np.nan_to_num(hat), 0)


def _find_runs(inside: np.ndarray, low: np.ndarray, index: np.ndarray, height: int) -> np.ndarray:
    """Find the runs down the columns of windows.

    Args:
        inside: bool, (M, columns, rows); the last row is False, so that no run goes on in the
            next column.
        low: float, (M, 2); x and y of the window's first pixel, px.
        index: int64, (M,); the number of each mask.
        height: of the image, px.

    Returns:
        int64, (3, F): start, length and mask as ``rle.from_runs`` takes them.
    """
    _, columns, rows = inside.shape
    flat = inside.ravel()
    edges = np.flatnonzero(np.diff(flat, prepend=False))
    start, end = edges[0::2], edges[1::2]
    column, row = np.divmod(start, rows)
    window, column = np.divmod(column, columns)
    x, y = low.astype(np.int64)[window].T
    return np.stack([(x + column) * height + y + row, end - start, index[window]])
