"""Groups of different sizes in one flat array, one group after the other.

``sizes`` below is int, (N,), the number of items of each group; M is their sum.
"""

import numpy as np


def starts(sizes: np.ndarray) -> np.ndarray:
    """Index of each group's first item, which an empty group shares with the next: int64, (N,)."""
    return np.cumsum(sizes, dtype=np.int64) - sizes


def owners(sizes: np.ndarray) -> np.ndarray:
    """The group of each item: int64, (M,); sizes 3, 2 give 0, 0, 0, 1, 1."""
    return np.repeat(np.arange(len(sizes)), sizes)


def places(sizes: np.ndarray) -> np.ndarray:
    """Number the items of each group: int64, (M,); sizes 3, 2 give 0, 1, 2, 0, 1."""
    return np.arange(np.sum(sizes)) - np.repeat(starts(sizes), sizes)


def spans(first: np.ndarray, sizes: np.ndarray) -> np.ndarray:
    """Count up from a number for each group: int64, (M,).

    First 7, 4 with sizes 3, 2 gives 7, 8, 9, 4, 5: indices of the items of groups that lie
    somewhere in a flat array.

    Args:
        first: int, (N,).
        sizes: items of each group.
    """
    return np.repeat(first, sizes) + places(sizes)


def closing(sizes: np.ndarray) -> np.ndarray:
    """Index the vertices of rings so that each ring ends with its first vertex again.

    Args:
        sizes: vertices of each ring.

    Returns:
        int64, (M + N,).
    """
    place = places(sizes + 1)
    place[np.cumsum(sizes + 1, dtype=np.int64) - 1] = 0
    return np.repeat(starts(sizes), sizes + 1) + place
