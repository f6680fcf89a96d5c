"""The surest errors of a run: predicted nuclei that no true one matches, highest scores first.

They are what to look at first: what the model does not know is among them, and what the truth has
wrong, such as one nucleus drawn as two.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

MOST = 24
MARGIN = 16  # px around a nucleus
LEAST = 64  # px, side of the square that shows it


def find_errors(
    nuclei: Mapping[str, Sequence[Mapping[str, Any]]], width: int, height: int
) -> list[dict[str, Any]]:
    """Find the surest errors of an image, and the square around each.

    Args:
        nuclei: ``truth`` and ``pred`` as ``html_report.compare`` gives them.
        width: of the image, px.
        height: of the image, px.

    Returns:
        At most ``MOST``, the surest first: ``score``, ``iou``, ``rings``; the square's ``x``, ``y``
        and ``size``, px, within the image; ``truth``, the rings of each true nucleus in it.
    """
    wrong = [one for one in nuclei['pred'] if one['verdict'] != 'found']
    wrong = sorted(wrong, key=lambda one: -one['score'])[:MOST]
    true_boxes = np.array([_box(one['rings']) for one in nuclei['truth']]).reshape(-1, 4)
    errors = []
    for one in wrong:
        left, top, right, bottom = _box(one['rings'])
        size = max(right - left + 2 * MARGIN, bottom - top + 2 * MARGIN, LEAST)
        size = min(size, width, height)
        x = min(max(0, (left + right - size) // 2), width - size)
        y = min(max(0, (top + bottom - size) // 2), height - size)
        low, high = true_boxes[:, :2], true_boxes[:, 2:]
        near = np.flatnonzero(((low < (x + size, y + size)) & (high > (x, y))).all(axis=1))
        errors.append(
            dict(
                {key: one[key] for key in ('score', 'iou', 'rings')},
                **dict(x=x, y=y, size=size),
                truth=[nuclei['truth'][index]['rings'] for index in near.tolist()],
            )
        )
    return errors


def _box(rings: Sequence[Sequence[int]]) -> tuple[int, int, int, int]:
    """Left, top, right, bottom of rings that start with a corner and go on in steps."""
    corners = np.concatenate([np.reshape(ring, (-1, 2)).cumsum(axis=0) for ring in rings])
    return (*corners.min(axis=0).tolist(), *corners.max(axis=0).tolist())
