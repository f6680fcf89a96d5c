"""COCO's compressed run lengths, read and written for many masks at once.

A mask is ``{'size': [height, width], 'counts': bytes}``. Its pixels are taken
column by column; the runs count background and foreground in turn, background
first. ``pycocotools`` handles one mask at a time, and only through a bitmap;
here all masks of an image go through a few NumPy operations.
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from pycocotools import mask

from nucseg_mmdet.utils import ragged

coco_mask: Any = mask  # its type hints know one form of a mask where it takes three

BITS = 5  # of a run in each character
MORE = 1 << BITS  # this character is not the last of its run
OFFSET = 48  # from the 6 bits to a printable character: '0' to 'o'
LONGEST = 7  # characters of a run: 34 bits; pycocotools has 32 for all pixels of a mask


def encode_counts(runs: np.ndarray, sizes: np.ndarray) -> list[bytes]:
    """Write runs as COCO's compressed strings.

    Args:
        runs: int, (R,), >= 0; the runs of all masks, one mask after the other.
        sizes: int, (N,); number of runs of each mask, R in total.

    Raises:
        ValueError: the sizes do not add up to R.

    Source:
        ``rleToString`` of ``maskApi.c`` in pycocotools.
    """
    runs, sizes = np.asarray(runs, np.int64), np.asarray(sizes, np.int64)
    if sizes.sum() != runs.size:
        raise ValueError(f'sizes add up to {sizes.sum()} runs, expected {runs.size}')
    place = ragged.places(sizes)
    values = runs.copy()
    later = np.flatnonzero(place > 2)  # from the 4th run on: the change to the run two before
    values[later] -= runs[later - 2]

    magnitude = np.where(values < 0, ~values, values)
    lengths = np.ones(values.size, np.int64)  # in characters, the top bit of the last is the sign
    while (longer := magnitude >> (BITS * lengths - 1) > 0).any():
        lengths += longer
    ends = np.cumsum(lengths)
    text = np.empty(lengths.sum(), np.uint8)
    for step in range(lengths.max(initial=0)):
        has = np.flatnonzero(lengths > step)
        bits = (values[has] >> (BITS * step)) & (MORE - 1)
        bits |= np.where(lengths[has] > step + 1, MORE, 0)
        text[ends[has] - lengths[has] + step] = bits + OFFSET

    text = text.tobytes()
    ends = np.append(0, ends)[np.append(0, np.cumsum(sizes))].tolist()
    return [text[start:end] for start, end in pairwise(ends)]


def decode_counts(counts: Sequence[bytes | str]) -> tuple[np.ndarray, np.ndarray]:
    """Read COCO's compressed strings, the inverse of ``encode_counts``.

    Args:
        counts: N compressed strings.

    Returns:
        runs: int64, (R,), >= 0; the runs of all masks, one mask after the other.
        sizes: int64, (N,); number of runs of each mask.

    Raises:
        ValueError: a string is malformed; the message has its index.

    Source:
        ``rleFrString`` of ``maskApi.c`` in pycocotools.
    """
    for index, item in enumerate(counts):
        if not isinstance(item, bytes | str):
            kind = type(item).__name__
            raise ValueError(f'mask {index}: counts are a {kind}, expected a compressed string')
    counts = [item.encode() if isinstance(item, str) else item for item in counts]
    widths = np.array([len(item) for item in counts], np.int64)
    owner = ragged.owners(widths)
    codes = np.frombuffer(b''.join(counts), np.uint8).astype(np.int64) - OFFSET
    _refuse(owner[(codes < 0) | (codes >= 2 * MORE)], 'counts have a character outside 0 to o')

    is_last = codes < MORE
    ends = np.cumsum(widths)[widths > 0] - 1
    _refuse(owner[ends[~is_last[ends]]], 'counts end within a run')
    last = np.flatnonzero(is_last)
    first = np.append(-1, last[:-1])[: last.size] + 1
    lengths = last - first + 1
    _refuse(owner[last[lengths > LONGEST]], f'a run has more than {LONGEST} characters')

    values = np.zeros(last.size, np.int64)
    for step in range(lengths.max(initial=0)):
        has = np.flatnonzero(lengths > step)
        values[has] |= (codes[first[has] + step] & (MORE - 1)) << (BITS * step)
    top = np.int64(1) << (BITS * lengths - 1)
    values = (values ^ top) - top  # extend the sign bit

    sizes = np.bincount(owner[last], minlength=widths.size)
    runs = _sum_every_second(values, sizes)
    _refuse(owner[last[runs < 0]], 'counts have a negative run')
    return runs, sizes


def checked_runs(rles: Sequence[dict]) -> tuple[np.ndarray, np.ndarray]:
    """Read masks and check that each one's runs fill its height and width.

    Args:
        rles: N masks.

    Returns:
        As ``decode_counts``.

    Raises:
        ValueError: a string is malformed, or its runs do not cover the mask's
            size exactly; the message has its index.
    """
    runs, sizes = decode_counts([rle['counts'] for rle in rles])
    covered = _sums(runs, sizes)
    for index in np.flatnonzero(covered != _shapes(rles).prod(axis=1)).tolist():
        height, width = rles[index]['size']
        raise ValueError(
            f'mask {index}: runs cover {covered[index]} px, expected {height} x {width} px'
        )
    return runs, sizes


def foreground_runs(rles: Sequence[dict]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """List the foreground of many masks as runs down the columns.

    Args:
        rles: N masks.

    Returns:
        start: int64, (F,); column-major index ``x * height + y`` of the run's first pixel.
        length: int64, (F,), px, >= 1. A run may go on at the top of the next column.
        index: int64, (F,), ascending; the mask that the run belongs to.

    Raises:
        ValueError: as ``checked_runs``.
    """
    runs, sizes = checked_runs(rles)
    owner = ragged.owners(sizes)
    before = ragged.starts(runs)
    before -= np.append(0, _sums(runs, sizes).cumsum())[owner]
    keep = np.flatnonzero((ragged.places(sizes) % 2 == 1) & (runs > 0))
    return before[keep], runs[keep], owner[keep]


def from_runs(
    start: np.ndarray, length: np.ndarray, index: np.ndarray, num: int, height: int, width: int
) -> list[dict]:
    """Make masks of foreground runs, the inverse of ``foreground_runs``.

    Args:
        start: int, (F,); column-major index of the run's first pixel.
        length: int, (F,), px, >= 1; runs of one mask may touch but not overlap.
        index: int, (F,), ascending, and ``start`` ascending within a mask.
        num: number of masks, N. A mask without runs is empty.
        height: of every mask, px.
        width: of every mask, px.

    Returns:
        N masks, ``counts`` as ``pycocotools.mask.encode`` writes them.
    """
    start, length, index = (np.asarray(part, np.int64) for part in (start, length, index))
    end = start + length
    # Runs that touch, at the foot of a column and the head of the next, are one run.
    apart = (index[1:] != index[:-1]) | (start[1:] != end[:-1])
    opens, closes = (np.ones(start.size, bool) for _ in range(2))
    opens[1:], closes[:-1] = apart, apart
    start, end, index = start[opens], end[closes], index[opens]

    pairs = np.bincount(index, minlength=num)
    total = height * width
    tail = np.ones(num, bool)  # background after the last run, or no run at all
    tail[index[end == total]] = False
    sizes = 2 * pairs + tail
    bounds = np.full(sizes.sum(), total, np.int64)  # where each run ends
    at = np.flatnonzero(ragged.places(sizes) < np.repeat(2 * pairs, sizes))
    bounds[at[0::2]], bounds[at[1::2]] = start, end
    runs = np.diff(bounds, prepend=0)
    first = ragged.starts(sizes)[sizes > 0]
    runs[first] = bounds[first]
    return [{'size': [height, width], 'counts': text} for text in encode_counts(runs, sizes)]


def areas(rles: Sequence[dict]) -> np.ndarray:
    """Count the pixels of N masks: int64, (N,).

    Raises:
        ValueError: as ``checked_runs``.
    """
    _, length, index = foreground_runs(rles)
    area = np.zeros(len(rles), np.int64)
    np.add.at(area, index, length)
    return area


def boxes(rles: Sequence[dict]) -> np.ndarray:
    """Find the tight boxes of N masks: int64, (N, 4), xywh, px; zeros for an empty mask.

    Raises:
        ValueError: as ``checked_runs``.
    """
    start, length, index = foreground_runs(rles)
    height = _shapes(rles)[index, 0]
    first_x, first_y = np.divmod(start, height)
    last_x, last_y = np.divmod(start + length - 1, height)
    wraps = last_x > first_x  # such a run has the foot of one column and the head of another
    first_y[wraps], last_y[wraps] = 0, height[wraps] - 1

    far = np.iinfo(np.int64).max
    low, high = np.full((len(rles), 2), far), np.full((len(rles), 2), -1)
    np.minimum.at(low, index, np.stack([first_x, first_y], axis=1))
    np.maximum.at(high, index, np.stack([last_x, last_y], axis=1))
    low[high < 0] = 0
    return np.hstack([low, high - low + 1])


def painting_order(scores: np.ndarray) -> np.ndarray:
    """The order for ``label_map`` in which the surest mask keeps a contested pixel.

    Args:
        scores: float, (N,); of equal ones the first keeps it.

    Returns:
        int64, (N,), indices.
    """
    return np.argsort(-scores, kind='stable')[::-1]


def label_map(
    rles: Sequence[dict], height: int, width: int, order: Sequence[int] | np.ndarray | None = None
) -> np.ndarray:
    """Paint masks into one label map; mask ``i`` gets the value ``i + 1``.

    Args:
        rles: N masks of one size.
        height: of the map, px.
        width: of the map, px.
        order: indices of the masks to paint; a later one covers an earlier one.
            Without it all are painted as they come.

    Returns:
        int32, (height, width); 0 is background.

    Raises:
        ValueError: a mask has another size, or as ``checked_runs``.
    """
    for index in np.flatnonzero((_shapes(rles) != (height, width)).any(axis=1)).tolist():
        found = ' x '.join(map(str, rles[index]['size']))
        raise ValueError(f'mask {index}: size is {found} px, expected {height} x {width} px')
    painted = np.arange(len(rles)) if order is None else np.asarray(order, np.int64)
    start, length, index = foreground_runs(rles)
    rank = np.full(len(rles), -1)
    rank[painted] = np.arange(painted.size)
    runs = np.argsort(rank[index], kind='stable')[np.count_nonzero(rank[index] < 0) :]
    labels = np.zeros(height * width, np.int32)
    columns = (start[runs], start[runs] + length[runs], index[runs] + 1)
    for low, high, value in zip(*(column.tolist() for column in columns), strict=True):
        labels[low:high] = value
    return np.ascontiguousarray(labels.reshape(width, height).T)


def _sums(values: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Sum the items of each group, which may be empty."""
    sums = np.append(0, np.cumsum(values))
    ends = np.cumsum(sizes)
    return sums[ends] - sums[ends - sizes]


def _sum_every_second(values: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Add to each item of a group the sum of those 2, 4, ... before it, the first left out."""
    place = ragged.places(sizes)
    first = np.repeat(ragged.starts(sizes), sizes)
    result = np.where(place == 0, values, 0)
    for parity in (0, 1):
        chosen = (place % 2 == parity) & (place > 0)
        sums = np.cumsum(np.where(chosen, values, 0))
        result[chosen] = (sums - sums[first])[chosen]
    return result


def _shapes(rles: Sequence[dict]) -> np.ndarray:
    """Collect height and width of N masks: int64, (N, 2), px."""
    return np.array([rle['size'] for rle in rles], np.int64).reshape(-1, 2)


def _refuse(owners: np.ndarray, found: str) -> None:
    """Name the first of the masks at fault, if there is one."""
    if owners.size:
        raise ValueError(f'mask {owners[0]}: {found}')
