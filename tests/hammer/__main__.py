"""All of the hammer, with figures: python -m tests.hammer [KIND ...] [--number N] [--seed S].

Prints a line for each failure and, at the end, how many inputs of each kind passed.
"""

import argparse
import tempfile
import time
from collections import Counter
from pathlib import Path

import torch

from tests.hammer import damaged

KINDS = {'damaged': damaged.damage}


def main() -> int:
    parser = argparse.ArgumentParser('python -m tests.hammer', description=__doc__)
    parser.add_argument('--number', type=int, default=120, help='damages a format')
    parser.add_argument('--seed', type=int, default=0)
    parser.add_argument('--only', nargs='*', help='formats to damage')
    args = parser.parse_args()
    torch.set_num_threads(1)
    started, tried, passed = time.monotonic(), Counter(), Counter()
    with tempfile.TemporaryDirectory() as scratch:
        for kind, name, complaint in damaged.damage(
            Path(scratch), args.number, args.seed, args.only
        ):
            tried[kind] += 1
            passed[kind] += complaint is None
            if complaint:
                print(f'{kind} | {name} | {complaint}', flush=True)
    for kind, number in tried.items():
        print(f'{passed[kind]:5} of {number:5} passed: {kind}')
    print(f'{passed.total():5} of {tried.total():5} passed in {time.monotonic() - started:.0f} s')
    return int(passed != tried)


if __name__ == '__main__':
    raise SystemExit(main())
