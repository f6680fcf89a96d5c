"""Masks of the same nucleus: the less certain of two keeps part of its score."""

import torch
from mmengine.structures import InstanceData

from nucseg_mmdet.structures.doubles import find_doubles


def lower_doubles(
    results: InstanceData, iom_thr: float, factor: float, class_agnostic: bool = False
) -> InstanceData:
    """Lower the scores of doubles.

    Args:
        results: ``scores``, float, (N,); ``labels``, int, (N,); ``masks``, run lengths.
        iom_thr: as of ``find_doubles``.
        factor: of a double's score, 0 to 1.
        class_agnostic: whether a nucleus of another class can be its double.

    Returns:
        The results by descending score.
    """
    results = results[results.scores.argsort(descending=True, stable=True)]
    labels = results.labels.cpu().numpy() * (not class_agnostic)
    doubles = find_doubles(results.masks, labels, iom_thr)
    lower = torch.from_numpy(doubles).to(results.scores.device)
    results.scores = torch.where(lower, results.scores * factor, results.scores)
    return results[results.scores.argsort(descending=True, stable=True)]
