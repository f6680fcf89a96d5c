"""Rows of tiles that wait on disk until their slide is finished."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from numpy.lib.npyio import NpzFile

from nucseg_mmdet.inference.tiling import Part
from nucseg_mmdet.structures.nuclei import COLUMNS, Nuclei
from nucseg_mmdet.utils.errors import UserError
from nucseg_mmdet.utils.files import new_file
from nucseg_mmdet.utils.reading import check_file


def write_row(
    path: Path,
    row: Part,
    broken: Sequence[tuple[int, str]] = (),
    seconds: float = 0.0,
    place: str = '',
) -> None:
    """Keep a joined row of tiles as a shard, whole or not at all.

    Args:
        path: of the ``.npz`` file.
        row: its nuclei.
        broken: columns of tiles that could not be read, and why.
        seconds: that it took.
        place: of the row, as ``Plan.place``.

    Raises:
        UserError: the file cannot be written.
    """
    with new_file(path) as file:
        np.savez(
            file,
            **row.nuclei.columns(),
            cut=row.cut,
            broken=np.array([column for column, _ in broken], np.int32),
            reasons=np.array([reason for _, reason in broken], np.str_),
            seconds=seconds,
            place=place,
        )


def read_row(path: Path, place: str = '') -> Part:
    """Read the nuclei of a shard.

    Args:
        path: of the ``.npz`` file.
        place: that the row was kept with.

    Raises:
        UserError: the file is missing or broken, or a copy of a row of another place.
    """
    with _opened(path) as shard:
        if (found := str(shard['place'])) != place:
            raise UserError(f'{path}: is the row of tiles {found}, expected {place}; remove it')
        return Part(Nuclei(*(shard[name] for name in COLUMNS)), shard['cut'])


def read_broken(path: Path) -> list[tuple[int, str]]:
    """Read which tiles of a shard could not be read, and why.

    Raises:
        UserError: as ``read_row``.
    """
    with _opened(path) as shard:
        return list(zip(shard['broken'].tolist(), shard['reasons'].tolist(), strict=True))


def read_seconds(path: Path) -> float:
    """Read how long a shard took.

    Raises:
        UserError: as ``read_row``.
    """
    with _opened(path) as shard:
        return float(shard['seconds'])


@contextmanager
def _opened(path: Path) -> Iterator[NpzFile]:
    check_file(path)
    try:
        # Of a damaged file NumPy would leave closing to the collector.
        with path.open('rb') as file, np.load(file, allow_pickle=False) as shard:
            yield shard
    except UserError:
        raise
    except Exception as error:  # NumPy and zipfile raise many kinds for a damaged file
        raise UserError(f'{path}: no readable row of tiles ({error}); remove it') from None
