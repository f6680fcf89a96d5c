"""Data sets inside of others."""

from typing import Any


def parts(dataset: Any) -> list[Any]:
    """The data sets inside of ``ConcatDataset`` and ``RepeatDataset``, or the one itself."""
    if hasattr(dataset, 'datasets'):
        return [part for inner in dataset.datasets for part in parts(inner)]
    return parts(dataset.dataset) if hasattr(dataset, 'dataset') else [dataset]
