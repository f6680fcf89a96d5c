"""All of the hammer, with figures: python -m tests.hammer [KIND ...] [--number N] [--seed S].

Prints a line for each failure and, at the end, how many inputs of each kind passed.
"""

import argparse
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import torch

from tests.hammer import damaged, faults, hostile, kills

PARTS = ('damaged', 'hostile', 'faults', 'kills', 'doubles')


def main() -> int:
    parser = argparse.ArgumentParser('python -m tests.hammer', description=__doc__)
    parser.add_argument('parts', nargs='*', choices=[*PARTS, []], help='default: all')
    parser.add_argument('--number', type=int, default=120, help='damages a format')
    parser.add_argument('--kills', type=int, default=26, help='of each command, and pairs')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--only', nargs='*', help='formats to damage, kinds of hostile files')
    args = parser.parse_args()
    torch.set_num_threads(1)
    started, tried, passed = time.monotonic(), Counter(), Counter()
    with tempfile.TemporaryDirectory() as scratch:
        for kind, name, complaint in verdicts(args, Path(scratch)):
            tried[kind] += 1
            passed[kind] += complaint is None
            if complaint:
                print(f'{kind} | {name} | {complaint}', flush=True)
    for kind, number in tried.items():
        print(f'{passed[kind]:5} of {number:5} passed: {kind}')
    print(f'{passed.total():5} of {tried.total():5} passed in {time.monotonic() - started:.0f} s')
    return int(passed != tried)


def verdicts(args: argparse.Namespace, scratch: Path) -> Iterator[damaged.Verdict]:
    parts = args.parts or PARTS
    if 'damaged' in parts:
        yield from damaged.damage(scratch, args.number, args.seed, args.only)
    if 'hostile' in parts:
        yield from hostile.attack(scratch, args.only)
    if 'faults' in parts:
        yield from faults.fill(scratch)
    if 'kills' in parts:
        yield from kills.kill(scratch, args.kills, args.seed, args.only)
    if 'doubles' in parts:
        yield from kills.double(scratch, args.kills, args.seed)


if __name__ == '__main__':
    raise SystemExit(main())
