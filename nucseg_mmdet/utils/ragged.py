"""Groups of different sizes in one flat array."""

import numpy as np


def closing(sizes: np.ndarray) -> np.ndarray:
    """Index the vertices of rings so that each ring ends with its first vertex again.

    Args:
        sizes: int, (N,); vertices of each ring, P in total.

    Returns:
        int64, (P + N,).
    """
    first = np.cumsum(sizes, dtype=np.int64) - sizes
    index = np.arange(sizes.sum() + len(sizes)) - np.repeat(np.arange(len(sizes)), sizes + 1)
    index[np.cumsum(sizes + 1, dtype=np.int64) - 1] = first
    return index
