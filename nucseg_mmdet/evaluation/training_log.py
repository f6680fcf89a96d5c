"""mmengine's logs of a training, for the page of a run."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from nucseg_mmdet.utils.errors import UserError
from nucseg_mmdet.utils.reading import MOST_TEXT, read_bytes

LOG_POINTS = 150  # of a training curve; more of them hide its course


def read_log(work_dir: Path) -> dict[str, list[dict[str, float]]]:
    """Read mmengine's logs of a run, which may have been stopped and resumed.

    A later log replaces an earlier one from its first iteration on.

    Returns:
        ``train`` and ``val``: logged values at ascending ``iteration``.

    Raises:
        UserError: a log is not as mmengine writes it.
    """
    log: dict[str, list[dict[str, float]]] = dict(train=[], val=[])
    for path in sorted(work_dir.glob('*/vis_data/scalars.json')):
        iteration = None
        lines = read_bytes(path, MOST_TEXT).decode('utf-8', 'replace').splitlines()
        for number, line in enumerate(lines, 1):
            try:
                values = json.loads(line)
                part = 'train' if 'loss' in values else 'val'
                # The step of a validation is an epoch, always 0 here, unless set otherwise.
                at = max(int(values['step']), iteration or 0)
                log[part].append(_numbers(values, at))
            except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
                raise UserError(f'{path}: line {number} is no log entry of mmengine') from None
            if iteration is None:
                new = log[part].pop()
                for key, points in log.items():
                    log[key] = [point for point in points if point['iteration'] < at]
                log[part].append(new)
            iteration = at
    return log


def thin(points: Sequence[dict[str, float]]) -> list[dict[str, float]]:
    """Average neighboring points of a long training log, each group at its last iteration."""
    if not points:
        return []
    keys = [key for key in points[0] if key == 'lr' or 'loss' in key]
    size = -(-len(points) // LOG_POINTS)
    groups = [points[start : start + size] for start in range(0, len(points), size)]
    return [
        dict(iteration=group[-1]['iteration'])
        | {key: float(np.mean([point.get(key, np.nan) for point in group])) for key in keys}
        for group in groups
    ]


def _numbers(values: dict[str, Any], iteration: int) -> dict[str, float]:
    """The numbers of a line of a log."""
    found = {key: float(value) for key, value in values.items() if isinstance(value, int | float)}
    return dict(found, iteration=iteration)
