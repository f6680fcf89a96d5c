"""The statistics of a data set as text and as a figure."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from nucseg_mmdet.datasets.statistics import (
    ANCHOR_IOU,
    Stats,
    anchor_sizes,
    box_sides,
    diameters,
)
from nucseg_mmdet.utils.files import make_folder, new_file

PERCENTILES = (1, 5, 25, 50, 75, 95, 99)


def format_stats(stats: Stats) -> str:
    """Lay the report out as text."""
    fields = stats.fields
    counts = np.array([len(field.boxes) for field in fields])
    pixels = np.array([field.height * field.width for field in fields])
    areas = np.concatenate([field.areas for field in fields])
    sizes = sorted({(field.width, field.height) for field in fields})
    covered = areas.sum() / pixels.sum()
    shares = [np.mean(stats.best_iou >= iou) if stats.best_iou.size else 0 for iou in ANCHOR_IOU]
    stains = np.array([field.stain for field in fields if field.stain]).reshape(-1, 2)
    rows = [
        ('images', f'{len(fields)}, {_span([w for w, _ in sizes])} x '
                   f'{_span([h for _, h in sizes])} px'),
        ('nuclei', f'{counts.sum():,}; {_span(counts.tolist())} an image, '
                   f'median {np.median(counts):.0f}'),
        ('percentiles', '  '.join(f'{p:>5}' for p in PERCENTILES)),
        ('diameter, px of the file', _percentiles(diameters(areas))),
        ('box side, px in the network', _percentiles(box_sides(stats.views))),
        ('anchor sizes, px', ' '.join(f'{size:.0f}' for size in anchor_sizes(stats.anchors))),
        *((f'with an anchor of IoU {iou}', f'{share:.1%} of the nuclei')
          for iou, share in zip(ANCHOR_IOU, shares, strict=True)),
        ('nuclei on a million px', _span(np.rint(1e6 * counts / pixels).astype(int).tolist())),
        ('covered by nuclei', f'{covered:.1%}'),
        ('to the next nucleus', f'{np.median(stats.spacing):.2f} diameters (median)'),
        ('boxes that suppress one another', f'{stats.suppressed.mean():.2%} of the nuclei'),
        *((f'{name}, 99th percentile', _percentiles(stains[:, column], '5.2f'))
          for column, name in enumerate(('hematoxylin', 'eosin')) if len(stains)),
    ]  # fmt: skip
    width = max(len(name) for name, _ in rows)
    lines = [f'{name.ljust(width)}  {value}' for name, value in rows]
    return '\n'.join([*lines, *(f'warning: {line}' for line in stats.warnings)])


def _span(values: Sequence[int]) -> str:
    low, high = min(values), max(values)
    return f'{low:,}' if low == high else f'{low:,} to {high:,}'


def _percentiles(values: np.ndarray, style: str = '5.1f') -> str:
    if not values.size:
        return '-'
    return '  '.join(f'{value:{style}}' for value in np.percentile(values, PERCENTILES))


def plot(stats: Stats, path: Path) -> None:
    """Draw the report as a PNG: sizes and anchors, best IoU, nuclei an image, stain.

    Raises:
        UserError: the file cannot be written.
    """
    figure = Figure(figsize=(11, 8), layout='constrained')
    size_axes, iou_axes, count_axes, stain_axes = figure.subplots(2, 2).flat
    sides, sizes = box_sides(stats.views), anchor_sizes(stats.anchors)
    edges = np.geomspace(max(1, min(sides.min(), sizes[0])), max(sides.max(), sizes[-1]) * 1.1, 60)
    size_axes.hist(sides, edges, color='tab:blue')
    for size in sizes:
        size_axes.axvline(size, color='tab:red', linewidth=1)
    size_axes.set(
        xscale='log',
        xlabel='box side in the network, px',
        ylabel='nuclei',
        title='sizes; anchors red',
    )
    iou_axes.hist(stats.best_iou, np.linspace(0, 1, 51), cumulative=-1, density=True)
    for iou in ANCHOR_IOU:
        iou_axes.axvline(iou, color='tab:red', linewidth=1)
    iou_axes.set(
        xlabel='IoU with the best anchor', ylabel='share of nuclei', title='at least this IoU'
    )
    count_axes.hist([len(field.boxes) for field in stats.fields], 30, color='tab:blue')
    count_axes.set(xlabel='nuclei in the image', ylabel='images', title='crowding')
    stains = np.array([field.stain for field in stats.fields if field.stain]).reshape(-1, 2)
    stain_axes.scatter(stains[:, 0], stains[:, 1], s=12)
    stain_axes.set(
        xlabel='hematoxylin', ylabel='eosin', title='stain of the images, 99th percentile'
    )
    make_folder(path.parent)
    with new_file(path) as file:
        figure.savefig(file, dpi=110, format='png')
