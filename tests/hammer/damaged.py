"""Give the readers damaged files: each is read rightly, or refused in a few lines."""

import shutil
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tests.hammer import isolation
from tests.hammer.subjects import SUBJECTS, Subject


class Verdict(NamedTuple):
    """What became of one input.

    Attributes:
        kind: of input.
        name: which one.
        complaint: what is wrong; None if nothing is.
    """

    kind: str
    name: str
    complaint: str | None


def damage(scratch: Path, number: int, seed: int = 0, names: list[str] | None = None) -> Iterator:
    """Try a number of damages of each subject.

    Args:
        scratch: folder for the files.
        number: for each subject.
        seed: of the damages.
        names: of subjects; by default all.
    """
    for name in names or SUBJECTS:
        yield from _damage(SUBJECTS[name], scratch, number, seed)


def _damage(subject: Subject, scratch: Path, number: int, seed: int) -> Iterator[Verdict]:
    template = isolation.fresh(scratch / 'intact')
    subject.make(template)
    intact = (template / subject.file).read_bytes()
    folder = scratch / 'damaged'
    _lay_out(template, folder)
    ended = isolation.run(subject.read, folder)
    if ended.code:
        yield Verdict(subject.name, 'intact', f'refused: {ended.stderr:.500}')
        return
    right = subject.result(folder) if subject.result else None
    for index in range(number):
        rng = np.random.default_rng([seed, zlib.crc32(subject.name.encode()), index])
        action = subject.damage[rng.integers(len(subject.damage))]
        what, data = action(intact, rng)
        _lay_out(template, folder)
        (folder / subject.file).write_bytes(data)
        ended = isolation.run(subject.read, folder)
        name = f'{index}: {action.__name__}, {what}'
        yield Verdict(subject.name, name, _judge(subject, folder, right, ended))


def _lay_out(template: Path, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(template, folder)


def _judge(subject: Subject, folder: Path, right: Any, ended: isolation.Ended) -> str | None:
    found = isolation.complaint(ended, codes=(0, 2)) or isolation.leftovers(folder)
    if found or subject.result is None:
        return found
    if ended.code:
        return None
    try:
        result = subject.result(folder)
    except Exception as error:
        return f'what was made of it is damaged: {error!s:.100}'
    if same(result, right):
        return None
    if subject.expected is None:
        return 'accepted with another result, though the format has a checksum'
    try:
        expected = subject.expected(folder / subject.file)
    except Exception as error:
        return f'accepted, though damage can be told: {error!s:.100}'
    return None if same(result, expected) else 'accepted, but not as a strict reader reads it'


def same(one: Any, other: Any) -> bool:
    """Whether two results are equal; arrays by shape and value."""
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        return np.array_equal(one, other)
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    return one == other
