"""Many nuclei as columns."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import shapely

MEASUREMENTS = (
    'area_um2',
    'perimeter_um',
    'circularity',
    'major_axis_um',
    'minor_axis_um',
    'eccentricity',
    'solidity',
    'hematoxylin_od_mean',
    'eosin_od_mean',
)


class Nuclei(NamedTuple):
    """Many nuclei as columns, no Python object a nucleus.

    A nucleus is one ring: the largest 4-connected part of its mask with holes filled, traced
    along the pixel edges (see ``masks``), vertices at corners only.

    Attributes:
        points: int32, (P, 2); x, y of the vertices, px of the working image or the tile.
        sizes: int32, (N,); vertices of each nucleus, P in total.
        scores: float32, (N,), 0 to 1.
        centroids: float64, (N, 2); x, y of the mask's centre of mass, px.
        measurements: float32, (N, len(MEASUREMENTS)); NaN where undefined.
    """

    points: np.ndarray
    sizes: np.ndarray
    scores: np.ndarray
    centroids: np.ndarray
    measurements: np.ndarray

    @property
    def num(self) -> int:
        """How many nuclei, N; ``len`` is that of the tuple."""
        return len(self.sizes)

    def take(self, index: np.ndarray) -> 'Nuclei':
        """Choose nuclei.

        Args:
            index: int, (M,), in the order wanted; or bool, (N,).
        """
        index = np.flatnonzero(index) if index.dtype == bool else index
        sizes = self.sizes[index]
        first = (np.cumsum(self.sizes, dtype=np.int64) - self.sizes)[index]
        before = np.cumsum(sizes, dtype=np.int64) - sizes
        points = np.arange(sizes.sum()) + np.repeat(first - before, sizes)
        return Nuclei(
            self.points[points],
            sizes,
            self.scores[index],
            self.centroids[index],
            self.measurements[index],
        )

    def moved(self, x: int, y: int) -> 'Nuclei':
        """Shift all by whole pixels."""
        return self._replace(
            points=self.points + np.array([x, y], np.int32),
            centroids=self.centroids + np.array([x, y], float),
        )

    def boxes(self) -> np.ndarray:
        """The tight boxes, xyxy, px: (N, 4), of the dtype of ``points``."""
        if not self.num:
            return np.zeros((0, 4), self.points.dtype)
        first = np.cumsum(self.sizes, dtype=np.int64) - self.sizes
        sides = [side.reduceat(self.points, first) for side in (np.minimum, np.maximum)]
        return np.hstack(sides)

    def polygons(self) -> np.ndarray:
        """Shapely polygons: object, (N,)."""
        rings = np.repeat(np.arange(self.num), self.sizes)
        return shapely.polygons(shapely.linearrings(self.points.astype(float), indices=rings))


EMPTY = Nuclei(
    np.zeros((0, 2), np.int32),
    np.zeros(0, np.int32),
    np.zeros(0, np.float32),
    np.zeros((0, 2)),
    np.zeros((0, len(MEASUREMENTS)), np.float32),
)


def concatenate(parts: Sequence[Nuclei]) -> Nuclei:
    """Put nuclei one after the other; without parts there are none."""
    return Nuclei(*(np.concatenate(columns) for columns in zip(EMPTY, *parts, strict=True)))
