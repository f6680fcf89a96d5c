"""Nuclei as labels of OME-Zarr."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from nucseg_mmdet.export.painting import LabelStrips
from nucseg_mmdet.export.spatialdata import import_zarr
from nucseg_mmdet.export.writer import FolderWriter
from nucseg_mmdet.structures.nuclei import Nuclei

if TYPE_CHECKING:
    import zarr

VERSION = '0.5'
NAME, CLASSES = 'nuclei', 'classes'
CHUNK = (256, 1024)  # px; a row of chunks, all that is painted at once, is 100 MB at 100,000 px
SMALLEST = 512  # px; the pyramid ends at a level that is no larger


class OmeZarr(FolderWriter):
    """OME-Zarr 0.5 labels, int32: 0 is background, a nucleus has its number in the tables.

    ``<name>.ome.zarr/labels/nuclei`` is a pyramid of the size of the image, or of the region, in
    microns from the slide's corner; each level has every second pixel of the one before, since
    numbers have no mean. Chunks without nuclei are not stored. Where there are several classes,
    ``labels/classes`` has that of each pixel, from 1, with names and colors.

    Source:
        OME-NGFF 0.5 (ngff.openmicroscopy.org/0.5), "labels" and "multiscales".
    """

    suffix = '.ome.zarr'

    @classmethod
    def check(cls) -> None:
        import_zarr('ome-zarr')

    def _start(self) -> None:
        zarr = import_zarr('ome-zarr')
        root = zarr.create_group(self._folder, zarr_format=3)
        root.attrs['ome'] = dict(version=VERSION)
        labels = root.create_group('labels')
        names = [NAME, CLASSES] if self.classes else [NAME]
        labels.attrs['ome'] = dict(version=VERSION, labels=names)
        self._groups = [labels.create_group(name) for name in names]
        self._classes = [np.zeros(1, np.uint8)]  # of each number, from 1; 0 is none
        self._painter = LabelStrips(self._open_scratch(), self.target)

    def _write(self, nuclei: Nuclei, ids: np.ndarray) -> None:
        self._painter.add(nuclei)
        self._classes.append(nuclei.labels + 1)

    def _finish(self) -> None:
        _, _, width, height = self.target.box
        shapes = [(height, width)]
        while max(height, width) > SMALLEST:
            height, width = -(-height // 2), -(-width // 2)
            shapes.append((height, width))
        pyramids = []
        for group in self._groups:
            name = group.basename
            kind, about = (np.int32, {}) if name == NAME else (np.uint8, self._describe_classes())
            group.attrs['ome'] = {
                'version': VERSION,
                'multiscales': [self._multiscale(name, len(shapes))],
                'image-label': about,
            }
            pyramids.append(_pyramid(group, shapes, kind))
        class_of = np.concatenate(self._classes)
        for strip in self._painter.strips(CHUNK[0]):
            pyramids[0].add(strip)
            if self.classes:
                pyramids[1].add(class_of[strip])
        for pyramid in pyramids:
            pyramid.finish()

    def _describe_classes(self) -> dict:
        numbered = list(enumerate(self.options.classes, start=1))
        return dict(
            colors=[{'label-value': i, 'rgba': [*one.color, 255]} for i, one in numbered],
            properties=[{'label-value': i, 'class': one.name} for i, one in numbered],
        )

    def _multiscale(self, name: str, levels: int) -> dict:
        mpp = self.target.slide_mpp
        corner = [side * mpp for side in reversed(self.target.box[:2])]
        axes = [dict(name=axis, type='space', unit='micrometer') for axis in 'yx']
        datasets = []
        for number in range(levels):
            # A coordinate is that of a pixel's center; every second of them stays where it is.
            scale = dict(type='scale', scale=[mpp * 2**number] * 2)
            move = dict(type='translation', translation=corner)
            datasets.append(dict(path=str(number), coordinateTransformations=[scale, move]))
        return dict(name=name, axes=axes, datasets=datasets, type='nearest')


def _pyramid(
    group: 'zarr.Group', shapes: Sequence[tuple[int, int]], kind: type, number: int = 0
) -> '_Level':
    """Make the arrays of a pyramid, the coarsest first; the finest, ``number``, is returned."""
    coarser = _pyramid(group, shapes, kind, number + 1) if number + 1 < len(shapes) else None
    array = group.create_array(
        str(number), shape=shapes[number], chunks=CHUNK, dtype=kind, dimension_names=('y', 'x')
    )
    return _Level(array, coarser)


class _Level:
    """A level of the pyramid that is written in whole rows of chunks.

    Args:
        array: of its size.
        coarser: the next level.
    """

    def __init__(self, array: 'zarr.Array', coarser: '_Level | None') -> None:
        self._array, self._coarser = array, coarser
        self._top = 0  # of the rows that wait
        self._waiting: list[np.ndarray] = []

    def add(self, rows: np.ndarray) -> None:
        """Add rows of pixels, which may be overwritten after this."""
        self._waiting.append(rows.copy())
        if sum(len(part) for part in self._waiting) >= CHUNK[0]:
            self._write()

    def finish(self) -> None:
        """Write what waits, here and in coarser levels."""
        if self._waiting:
            self._write()
        if self._coarser:
            self._coarser.finish()

    def _write(self) -> None:
        rows = np.concatenate(self._waiting)[: self._array.shape[0] - self._top]
        self._waiting = []
        if rows.any():  # else the chunks stay as they are, not stored
            self._array[self._top : self._top + len(rows)] = rows
        self._top += len(rows)  # even, but for the last rows
        if self._coarser:
            self._coarser.add(rows[::2, ::2])
