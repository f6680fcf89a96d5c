"""Shape and stain of nuclei, many at once.

The shapes are those of scikit-image's ``regionprops``, in microns, at a tenth of its time. Every
nucleus is measured on its own pixels, so they may overlap.
"""

from collections.abc import Iterable, Sequence

import numpy as np

from nucseg_mmdet.imaging.stain import DENSITY_OF_GRAY, STAIN_OD
from nucseg_mmdet.structures.nuclei import MEASUREMENTS
from nucseg_mmdet.utils import ragged

# What a border pixel adds to the perimeter, px, by 1 + 2 for each border pixel above, below,
# left and right of it and 10 for each diagonal one. scikit-image's, after Benkrid and Crookes,
# "Design and FPGA implementation of a perimeter estimator".
PERIMETER = np.zeros(50)
PERIMETER[[5, 7, 15, 17, 25, 27]] = 1
PERIMETER[[21, 33]] = np.sqrt(2)
PERIMETER[[13, 23]] = (1 + np.sqrt(2)) / 2

NO_PIXEL = 1 << 30  # stands for the edge of a row without pixels: no hull reaches so far


def measure(
    masks: Sequence[np.ndarray], corners: np.ndarray, image: np.ndarray, mpp: float
) -> tuple[np.ndarray, np.ndarray]:
    """Measure nuclei of one image.

    - area: pixels. perimeter: ``neighborhood=4``. Axes: of the ellipse with the same second
      moments, whole lengths. eccentricity: 0 for a circle, towards 1 for a line. solidity:
      area / ``area_convex``. All as ``skimage.measure.regionprops`` has them.
    - circularity: 4 pi area / perimeter^2. The perimeter of a small mask is estimated too short,
      that of a large one too long: discs of 5, 10, 25, 200 px across have a circularity of 1.34,
      1.09, 0.96, 0.91 on average. Undefined for a perimeter of 0 (one pixel).
    - hematoxylin and eosin: optical density to base 10, -log10 of the fraction of light,
      split by the vectors of Ruifrok and Johnston, ``stain.STAIN_OD``, and averaged over the
      pixels of the nucleus. 6 times what ``skimage.color.rgb2hed`` gives, but negative amounts
      stay negative: cut off at 0 for each pixel they would lift the mean.

    Args:
        masks: N bool arrays, (h, w), cut out of the image, each with at least one pixel.
        corners: int, (N, 2); x, y of each mask's first pixel in the image.
        image: uint8, (H, W, 3), RGB.
        mpp: microns per pixel.

    Returns:
        centroids: float64, (N, 2); x, y of the center of mass, px, pixel edges at integers.
        measurements: float32, (N, len(MEASUREMENTS)), in this order; NaN where undefined.

    Raises:
        ValueError: a mask is empty or reaches beyond the image.
    """
    corners = np.asarray(corners, np.int64).reshape(-1, 2)
    if not len(masks):
        return np.zeros((0, 2)), np.zeros((0, len(MEASUREMENTS)), np.float32)
    flat, start, stride = _lay_out(masks)
    pixels = np.flatnonzero(flat)
    owner = np.searchsorted(start, pixels, 'right') - 1
    area = np.bincount(owner, minlength=len(masks))
    if not area.all():
        raise ValueError(f'mask {np.argmin(area)} is empty, expected at least one pixel')
    step = stride[owner]
    y, x = (part - 1 for part in np.divmod(pixels - start[owner], step))  # without the border
    perimeter = _perimeters(flat, pixels, owner, step, len(masks))
    center_y, center_x = _means((y, x), owner, area)
    dy, dx = y - center_y[owner], x - center_x[owner]
    major, minor = _eigenvalues(*_means((dx * dx, dx * dy, dy * dy), owner, area))
    density = _densities(image, x + corners[owner, 0], y + corners[owner, 1])
    stains = np.stack(_means(density.T, owner, area), 1) @ np.linalg.inv(STAIN_OD)

    measured = dict(
        area_um2=area * mpp**2,
        perimeter_um=perimeter * mpp,
        circularity=4 * np.pi * area / np.where(perimeter > 0, perimeter, np.nan) ** 2,
        major_axis_um=4 * np.sqrt(major) * mpp,
        minor_axis_um=4 * np.sqrt(minor) * mpp,
        eccentricity=np.sqrt(1 - minor / np.where(major > 0, major, 1)) * (major > 0),
        solidity=area / _hull_areas(y, x, area),
        hematoxylin_od_mean=stains[:, 0],
        eosin_od_mean=stains[:, 1],
    )
    columns = np.stack([measured[name] for name in MEASUREMENTS], 1).astype(np.float32)
    return corners + np.stack([center_x, center_y], 1) + 0.5, columns


def _lay_out(masks: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Put masks one behind the other, each row by row with a border of one pixel.

    Returns:
        flat: uint8, (F,), 0 or 1.
        start: int64, (N,); where each mask's border begins.
        stride: int64, (N,); from one row of a mask to the next.
    """
    shapes = np.array([mask.shape for mask in masks], np.int64) + 2
    sizes = shapes.prod(1)
    start = ragged.starts(sizes)
    flat = np.zeros(sizes.sum(), np.uint8)
    layout = zip(masks, start.tolist(), sizes.tolist(), shapes.tolist(), strict=True)
    for mask, first, size, shape in layout:
        flat[first : first + size].reshape(shape)[1:-1, 1:-1] = mask
    return flat, start, shapes[:, 1]


def _means(columns: Iterable[np.ndarray], owner: np.ndarray, area: np.ndarray) -> list[np.ndarray]:
    """Average values of pixels over each mask."""
    return [np.bincount(owner, column, len(area)) / area for column in columns]


def _perimeters(
    flat: np.ndarray, pixels: np.ndarray, owner: np.ndarray, step: np.ndarray, num: int
) -> np.ndarray:
    """Estimate the perimeters of ``num`` masks, px; ``step`` is the stride at each pixel."""
    inside = flat[pixels - step] & flat[pixels + step] & flat[pixels - 1] & flat[pixels + 1]
    at = np.flatnonzero(inside == 0)
    pixels, owner, step = pixels[at], owner[at], step[at]
    border = np.zeros_like(flat)
    border[pixels] = 1
    beside = border[pixels - 1] + border[pixels + 1]
    beside += border[pixels - step] + border[pixels + step]
    across = border[pixels - step - 1] + border[pixels - step + 1]
    across += border[pixels + step - 1] + border[pixels + step + 1]
    return np.bincount(owner, PERIMETER[1 + 2 * beside + 10 * across], num)


def _eigenvalues(xx: np.ndarray, xy: np.ndarray, yy: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The larger and the smaller eigenvalue, >= 0, of covariances."""
    larger = (xx + yy) / 2 + np.hypot((xx - yy) / 2, xy)
    # Their product is the determinant; a difference would lose the digits of a thin mask.
    smaller = (xx * yy - xy * xy) / np.where(larger > 0, larger, 1)
    return larger, np.clip(smaller, 0, larger)


def _hull_areas(y: np.ndarray, x: np.ndarray, area: np.ndarray) -> np.ndarray:
    """Count the pixels of convex hulls as ``skimage.morphology.convex_hull_image`` does.

    The hull is that of the middles of the pixels' edges; a pixel belongs to it if its center is
    inside or on it. In units of half a pixel all of these are integers, so the count is exact.

    Args:
        y: int64, (P,), row of each pixel, ascending within a mask.
        x: int64, (P,), column, ascending within a row.
        area: int, (N,), pixels of each mask, P in total.

    Returns:
        int64, (N,), px.
    """
    ends = np.cumsum(area)
    top, bottom = y[ends - area], y[ends - 1]
    rows = bottom - top + 1
    # Every half row from the middle of the top edge to that of the bottom edge.
    halves = 2 * rows + 1
    first = ragged.starts(halves)
    at = np.repeat(first - 2 * top, area) + 2 * y + 1

    is_left = np.ones(y.size, bool)  # the first pixel of its row
    is_left[1:] = y[1:] != y[:-1]
    is_left[ends[:-1]] = True
    is_right = np.append(is_left[1:], True)
    sides = []
    for chosen, sign in ((is_left, 1), (is_right, -1)):
        edge = np.full(halves.sum(), NO_PIXEL)
        place, column = at[chosen], sign * 2 * x[chosen]
        np.minimum.at(edge, place - 1, column)
        np.minimum.at(edge, place + 1, column)
        edge[place] = column - 1
        sides.append(edge)

    # Left and right side of a mask, the right one mirrored, are two chains of one kind.
    value = np.concatenate(sides)
    last = np.concatenate([first, first + halves.sum()]) + np.tile(halves, 2) - 1
    is_end = np.zeros(value.size, bool)
    is_end[last] = is_end[last - np.tile(halves, 2) + 1] = True
    corner = _lower_hull(value, is_end)

    center = np.repeat(first, rows) + 2 * ragged.places(rows) + 1
    center = np.concatenate([center, center + halves.sum()])
    low = np.searchsorted(corner, center, 'right') - 1  # never the end of its chain
    before, after = corner[low], corner[low + 1]
    run, rise = after - before, value[after] - value[before]
    left, right = -(-(value[before] * run + rise * (center - before)) // (2 * run)).reshape(2, -1)
    return np.add.reduceat(1 - right - left, ragged.starts(rows))


def _lower_hull(value: np.ndarray, is_end: np.ndarray) -> np.ndarray:
    """Find the corners of the lower convex hulls of many chains at once.

    A point on or above the line between its neighbors is no corner, whichever of the others
    go too, so all such points go together until there are none.

    Args:
        value: int64, (P,), heights at equal steps, one chain after the other.
        is_end: bool, (P,), first and last point of a chain, at least three steps apart.

    Returns:
        int64, (Q,), ascending indices of the corners, both ends included.
    """
    kept = np.arange(value.size)
    while True:
        height, steps = value[kept], np.diff(kept)
        slope_in, slope_out = np.diff(height)[:-1] * steps[1:], np.diff(height)[1:] * steps[:-1]
        goes = np.zeros(kept.size, bool)
        goes[1:-1] = (slope_in >= slope_out) & ~is_end[kept[1:-1]]
        if not goes.any():
            return kept
        kept = kept[~goes]


def _densities(image: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Optical densities, base 10, of pixels in R, G, B: float64, (P, 3)."""
    height, width = image.shape[:2]
    if x.min() < 0 or y.min() < 0 or x.max() >= width or y.max() >= height:
        raise ValueError(
            f'masks reach from {x.min()}, {y.min()} to {x.max() + 1}, {y.max() + 1} px, '
            f'expected 0, 0 to {width}, {height}'
        )
    return DENSITY_OF_GRAY[image[y, x]]
