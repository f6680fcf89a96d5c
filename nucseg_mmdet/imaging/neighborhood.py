"""How nuclei stand to one another, a million at a time."""

import numpy as np
from scipy.spatial import Delaunay, KDTree, QhullError

from nucseg_mmdet.utils.processes import available_cores

NEIGHBORHOOD = (
    'nearest_um',
    'nearest_5_mean_um',
    'neighbors_25um',
    'density_50um_per_mm2',
    'delaunay_degree',
)
NEAREST = 5
CLOSE, AROUND = 25.0, 50.0  # microns


def neighborhood(centroids: np.ndarray) -> np.ndarray:
    """Measure the surroundings of each nucleus by the centroids alone.

    - nearest_um: distance to the nearest other nucleus, microns.
    - nearest_5_mean_um: mean distance to the 5 nearest others, microns.
    - neighbors_25um: other nuclei within 25 microns.
    - density_50um_per_mm2: nuclei within 50 microns, itself included, by the area of that disc.
      It is not corrected at the border of the tissue or of the region, where it is too low.
    - delaunay_degree: neighbors in the Delaunay triangulation, however far; of nuclei in one place
      all but one have none.

    Args:
        centroids: float, (N, 2); x, y, microns.

    Returns:
        float32, (N, len(NEIGHBORHOOD)), in this order; NaN where there are too few nuclei.

    Source:
        ``scipy.spatial.KDTree`` and ``scipy.spatial.Delaunay``.
    """
    num = len(centroids)
    columns = np.full((num, len(NEIGHBORHOOD)), np.nan, np.float32)
    if not num:
        return columns
    tree, threads = KDTree(centroids), available_cores()
    distances = tree.query(centroids, k=NEAREST + 1, workers=threads)[0][:, 1:]  # without itself
    distances[np.isinf(distances)] = np.nan
    columns[:, 0] = distances[:, 0]
    columns[:, 1] = distances.mean(1)
    close, around = (
        tree.query_ball_point(centroids, radius, return_length=True, workers=threads)
        for radius in (CLOSE, AROUND)
    )
    columns[:, 2] = close - 1
    columns[:, 3] = around / (np.pi * (AROUND / 1000) ** 2)
    try:
        first, _ = Delaunay(centroids).vertex_neighbor_vertices
    except QhullError:  # too few, or all on a line
        return columns
    columns[:, 4] = np.diff(first)
    return columns
