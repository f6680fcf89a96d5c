"""A picture of an image with its nuclei outlined."""

from itertools import pairwise

import numpy as np

from nucseg_mmdet.export.writer import Target, Writer
from nucseg_mmdet.imaging.draw import draw_key, draw_outlines
from nucseg_mmdet.imaging.image_files import encode
from nucseg_mmdet.structures.nuclei import Nuclei

OVERLAY_LIMIT = 4096 * 4096  # px; the drawing is twice as wide and high, 200 MB


class Overlay(Writer):
    """A PNG of the image, or the region, with the outlines of the nuclei.

    Of several classes each has its color, named at the top left; of one, neighbors differ in color.
    """

    suffix = '.overlay.png'
    nucleus_bytes = 0

    def _start(self) -> None:
        if self.options.image is None:
            raise ValueError('format overlay needs the image')
        self._image = self.options.image
        self._outlines: list[list[list[float]]] = []
        self._labels: list[int] = []

    @classmethod
    def obstacle(cls, target: Target) -> str | None:
        _, _, width, height = target.box
        if width * height > OVERLAY_LIMIT:
            return f'{width} x {height} px are more than {OVERLAY_LIMIT / 1e6:.0f} million'
        return None

    def _write(self, nuclei: Nuclei, ids: np.ndarray) -> None:
        points = self.target.to_slide(nuclei.points) - self.target.box[:2]
        points = points.reshape(-1).tolist()
        ends = (2 * np.cumsum(nuclei.sizes)).tolist()
        self._labels += nuclei.labels.tolist()
        self._outlines += [[points[start:end]] for start, end in pairwise([0, *ends])]

    def _finish(self) -> None:
        image = self._image()[..., ::-1]
        if self.classes:
            colors = [one.color for one in self.options.classes]
            chosen = [colors[label] for label in self._labels]
            drawn = draw_key(draw_outlines(image, self._outlines, chosen), self.classes, colors)
        else:
            drawn = draw_outlines(image, self._outlines)
        self._file.write(encode('.png', drawn))
