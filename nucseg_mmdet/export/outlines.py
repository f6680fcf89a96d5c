"""Nuclei as valid polygons in full-resolution pixels, for the formats that want geometries."""

import numpy as np
import shapely

from nucseg_mmdet.export.writer import Target
from nucseg_mmdet.structures.nuclei import Nuclei
from nucseg_mmdet.utils import ragged

DECIMALS = 2  # of a coordinate, px


def polygons(nuclei: Nuclei, target: Target) -> np.ndarray:
    """Make valid shapely polygons: object, (N,), full-resolution px of the slide."""
    points, sizes = closed_rings(nuclei, target)
    return valid_polygons(points, sizes, touching(nuclei))


def closed_rings(nuclei: Nuclei, target: Target) -> tuple[np.ndarray, np.ndarray]:
    """Bring outlines to the slide, each with its first vertex again at the end.

    Returns:
        points: float64, (P + N, 2); x, y, full-resolution px to 0.01 px.
        sizes: int32, (N,), vertices of each, with the repeated one.
    """
    points = np.round(target.to_slide(nuclei.points), DECIMALS)[ragged.closing(nuclei.sizes)]
    return points, nuclei.sizes + 1


def touching(nuclei: Nuclei) -> np.ndarray:
    """Find nuclei whose ring meets itself at a vertex, as around a bay that closes diagonally.

    Such a ring is no valid polygon; one with the bay as a hole is.

    Returns:
        int64, (M,), ascending indices.
    """
    owner = ragged.owners(nuclei.sizes)
    x, y = (nuclei.points - nuclei.points.min(0)).T.astype(np.int64)
    vertex = owner * (x.max() + 1) * (y.max() + 1) + x * (y.max() + 1) + y
    vertex.sort()
    twice = vertex[1:][vertex[1:] == vertex[:-1]]
    return np.unique(twice // ((x.max() + 1) * (y.max() + 1)))


def valid_polygons(points: np.ndarray, sizes: np.ndarray, invalid: np.ndarray) -> np.ndarray:
    """Make polygons of closed rings; those that meet themselves get their bays as holes."""
    rings = shapely.linearrings(points, indices=ragged.owners(sizes))
    made = np.asarray(shapely.polygons(rings))
    made[invalid] = shapely.make_valid(made[invalid], method='structure', keep_collapsed=False)
    return shapely.orient_polygons(made)
