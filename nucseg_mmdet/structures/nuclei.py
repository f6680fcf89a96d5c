"""Many nuclei as columns."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace

import numpy as np
import shapely

from nucseg_mmdet.utils import ragged

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


@dataclass(frozen=True, eq=False)
class Nuclei:
    """Many nuclei as columns, no Python object a nucleus; ``len`` is how many.

    A nucleus is one ring: the largest 4-connected part of its mask with holes filled, traced
    along the pixel edges, vertices at corners only.

    Attributes:
        points: int32, (P, 2); x, y of the vertices, px of the working image or the tile.
        sizes: int32, (N,); vertices of each nucleus, P in total.
        scores: float32, (N,), 0 to 1.
        centroids: float64, (N, 2); x, y of the mask's center of mass, px.
        measurements: float32, (N, len(MEASUREMENTS)); NaN where undefined.
        labels: uint8, (N,); index of the class, 0 with one class.
    """

    points: np.ndarray
    sizes: np.ndarray
    scores: np.ndarray
    centroids: np.ndarray
    measurements: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.sizes)

    def columns(self) -> dict[str, np.ndarray]:
        """All columns by name; ``Nuclei(**columns)`` is their inverse."""
        return {name: getattr(self, name) for name in COLUMNS}

    def take(self, index: np.ndarray) -> 'Nuclei':
        """Choose nuclei.

        Args:
            index: int, (M,), in the order wanted; or bool, (N,).
        """
        index = np.flatnonzero(index) if index.dtype == bool else index
        sizes = self.sizes[index]
        return Nuclei(
            self.points[ragged.spans(ragged.starts(self.sizes)[index], sizes)],
            sizes,
            self.scores[index],
            self.centroids[index],
            self.measurements[index],
            self.labels[index],
        )

    def moved(self, x: int, y: int) -> 'Nuclei':
        """Shift all by whole pixels."""
        return replace(
            self,
            points=self.points + np.array([x, y], np.int32),
            centroids=self.centroids + np.array([x, y], float),
        )

    def scaled(self, factor: float) -> 'Nuclei':
        """Give all in other pixels, ``points`` as float64."""
        return replace(self, points=self.points * factor, centroids=self.centroids * factor)

    def boxes(self) -> np.ndarray:
        """The tight boxes, xyxy, px: (N, 4), of the dtype of ``points``."""
        if not len(self):
            return np.zeros((0, 4), self.points.dtype)
        first = ragged.starts(self.sizes)
        return np.hstack([side.reduceat(self.points, first) for side in (np.minimum, np.maximum)])

    def polygons(self) -> np.ndarray:
        """Shapely polygons: object, (N,)."""
        rings = shapely.linearrings(self.points.astype(float), indices=ragged.owners(self.sizes))
        return np.asarray(shapely.polygons(rings))


COLUMNS = tuple(field.name for field in fields(Nuclei))

EMPTY = Nuclei(
    np.zeros((0, 2), np.int32),
    np.zeros(0, np.int32),
    np.zeros(0, np.float32),
    np.zeros((0, 2)),
    np.zeros((0, len(MEASUREMENTS)), np.float32),
    np.zeros(0, np.uint8),
)


def concatenate(parts: Sequence[Nuclei]) -> Nuclei:
    """Put nuclei one after the other; without parts there are none."""
    columns = zip(*(part.columns().values() for part in (EMPTY, *parts)), strict=True)
    return Nuclei(*(np.concatenate(column) for column in columns))
