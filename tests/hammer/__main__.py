"""All of the hammer, with figures: python -m tests.hammer [KIND ...] [--number N] [--seed S].

Two processes share the work, each with one thread. Prints a line for each failure and, at the end,
how many inputs of each kind passed.
"""

import argparse
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import NamedTuple

import torch

from tests.hammer import damaged, faults, hostile, kills

PARTS = ('damaged', 'hostile', 'faults', 'kills', 'doubles')


class Job(NamedTuple):
    """A part of the hammer that needs nothing of the others."""

    try_out: Callable[..., Iterator[damaged.Verdict]]
    arguments: tuple = ()

    def run(self) -> list[damaged.Verdict]:
        """Try all of it; what breaks the part itself is one more failure."""
        torch.set_num_threads(1)
        found: list[damaged.Verdict] = []
        with tempfile.TemporaryDirectory() as scratch:
            try:
                found += self.try_out(Path(scratch), *self.arguments)
            except Exception as error:
                name = f'{self.try_out.__name__} {self.arguments}'
                found.append(damaged.Verdict('the hammer itself', name, repr(error)))
        return found


def main() -> int:
    parser = argparse.ArgumentParser('python -m tests.hammer', description=__doc__)
    parser.add_argument('parts', nargs='*', choices=[*PARTS, []], help='default: all')
    parser.add_argument('--number', type=int, default=140, help='damages a format')
    parser.add_argument('--kills', type=int, default=25, help='of each command, and pairs')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--only', nargs='*', help='formats to damage, kinds of hostile files')
    parser.add_argument('--jobs', type=int, default=2, help='processes (default: 2)')
    args = parser.parse_args()
    started, tried, passed = time.monotonic(), Counter(), Counter()
    with ProcessPoolExecutor(args.jobs) as pool:
        for done in as_completed([pool.submit(job.run) for job in jobs(args)]):
            for kind, name, complaint in done.result():
                tried[kind] += 1
                passed[kind] += complaint is None
                if complaint:
                    print(f'{kind} | {name} | {complaint}', flush=True)
    for kind, number in sorted(tried.items()):
        print(f'{passed[kind]:5} of {number:5} passed: {kind}')
    print(f'{passed.total():5} of {tried.total():5} passed in {time.monotonic() - started:.0f} s')
    return int(passed != tried)


def jobs(args: argparse.Namespace) -> Iterator[Job]:
    """The parts that are asked for, the longest first."""
    parts = args.parts or PARTS
    if 'kills' in parts:
        names = [command.name for command in kills.commands(Path())]
        for name in sorted(args.only or names, reverse=True):
            yield Job(kills.kill, (args.kills, args.seed, [name]))
    if 'doubles' in parts:
        yield Job(kills.double, (args.kills, args.seed))
    if 'faults' in parts:
        yield Job(faults.fill)
    if 'hostile' in parts:
        for kind in args.only or dict.fromkeys(one.kind for one in hostile.every()):
            yield Job(hostile.attack, ([kind],))
    if 'damaged' in parts:
        for name in args.only or damaged.SUBJECTS:
            yield Job(damaged.damage, (args.number, args.seed, [name]))


if __name__ == '__main__':
    raise SystemExit(main())
