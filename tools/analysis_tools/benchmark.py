"""Time stock MMDetection against this project.

    python tools/analysis_tools/benchmark.py [--step STEP]

Each side has a process of its own, and they run in turn, after one run to warm up. The
table has medians, their ratio, and the peak of memory above what a process held before its
first run. Weights are random and images made up, so it runs on any machine.
"""

from nucseg_mmdet.utils.start import start_script

if __name__ == '__main__':
    start_script()

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import torch

from nucseg_mmdet.benchmarks.stock import Spec, count_nuclei, write_data
from nucseg_mmdet.structures.coco import check_truth, load_json
from nucseg_mmdet.utils.arguments import ArgumentParser
from nucseg_mmdet.utils.errors import UserError, exit_code
from nucseg_mmdet.utils.files import check_file_is_writable, write_json

ROOT = Path(__file__).resolve().parents[2]
EXACT = ('assign', 'rle', 'load')  # whose results must not differ in one bit
STEPS = ('assign', 'rle', 'test', 'train', 'load')
LARGE = ROOT / 'configs/vrdl/mask-rcnn_r101_fpn_e08_vrdl.py'
SMALL = ROOT / 'configs/demo/mask-rcnn_r18_fpn_demo_nuclei.py'
DENSEST = [1_862, 1_584]  # nuclei in the two densest class images
ANCHORS = 0.25  # per px of the image: 3 per 4 x 4 px, and a third more on coarser levels
# What the stock side needs at its peak, measured.
PAIR_BYTES = 37  # per anchor and nucleus in MaxIoUAssigner
MODEL_BYTES = 2e9  # of a model that tests one image
PASTE_BYTES = 1.2  # per px and pasted mask
LOAD_BYTES = 3.4  # per px and bitmap of a training image
BATCH_BYTES = 8e9  # R-101, two images of 1200 px, beside assigner and bitmaps


class Case(NamedTuple):
    """A row of the table: its name, what to run, and the memory its stock side needs."""

    name: str
    spec: Spec
    stock_bytes: float


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--step', choices=STEPS, nargs='+', default=STEPS, help='default: all')
    parser.add_argument('--runs', type=int, default=3, help='of each side, default: %(default)s')
    parser.add_argument('--threads', type=int, help="of each process, default: torch's choice")
    parser.add_argument(
        '--device', choices=['cpu', 'cuda'], help='default: cuda where there is a GPU'
    )
    parser.add_argument(
        '--precision', choices=['fp32', 'bf16', 'fp16'], default='bf16', help='of our side'
    )
    parser.add_argument(
        '--count', type=int, nargs='+', help='nuclei or detections in assign, rle and test'
    )
    parser.add_argument('--size', type=int, help='of the image in assign, rle and test, px')
    parser.add_argument(
        '--data-root', type=Path, help='prepared data whose densest images train and load take'
    )
    parser.add_argument('--json', type=Path, metavar='OUT', help='write all figures to this file')
    return parser.parse_args(argv)


def check_args(args: argparse.Namespace) -> None:
    numbers = dict(runs=args.runs, threads=args.threads, size=args.size)
    numbers.update({f'count {n}': n for n in args.count or []})
    for name, value in numbers.items():
        if value is not None and value < 1:
            raise UserError(f'--{name}: {value}, expected at least 1')
    if args.device == 'cuda' and not torch.cuda.is_available():
        raise UserError('--device cuda: torch finds no GPU, expected cpu')
    truth = args.data_root and args.data_root / 'annotations' / 'train.json'
    if truth and not truth.is_file():
        raise UserError(f'{truth}: not there, expected data that tools/prepare_data.py made')
    if truth:
        check_truth(load_json(truth), str(truth))
        if not count_nuclei(args.data_root):
            raise UserError(f'{truth}: has no annotations, expected images with nuclei')
    if args.json:
        check_file_is_writable(args.json)


def make_cases(args: argparse.Namespace, scratch: Path) -> list[Case]:
    """List the rows that were asked for; images are made up in the scratch folder."""
    base = Spec('', 'ours', str(LARGE), 0, 0, args.device, args.precision, '', 1)
    return [*_step_cases(args, base), *_data_cases(args, base, scratch)]


def _step_cases(args: argparse.Namespace, base: Spec) -> Iterator[Case]:
    for step, counts, size in (
        ('assign', [400, 1_862], 1200),
        ('rle', [600, 2_000], 1000),
        ('test', [600], 1200),
    ):
        if step not in args.step:
            continue
        size = args.size or size
        for count in args.count or counts:
            pixels = count * size**2
            name, need = {
                'assign': (f'{count:,} nuclei', PAIR_BYTES * ANCHORS * pixels),
                'rle': (f'{count:,} masks', PASTE_BYTES * pixels),
                'test': (f'R-101, {count:,} nuclei', MODEL_BYTES + PASTE_BYTES * pixels),
            }[step]
            spec = base._replace(step=step, count=count, size=size)
            if step == 'test':
                yield from _in_precisions(Case(f'{step}: {name}, {size} px', spec, need))
            else:
                yield Case(f'{step}: {name}, {size} px', spec, need)


def _in_precisions(case: Case) -> Iterator[Case]:
    """A case with both sides in float32, and with ours in the precision that was asked for.

    The stock side is always in float32: only the first of the two compares the same arithmetic.
    """
    for precision in dict.fromkeys(['fp32', case.spec.precision]):
        yield case._replace(
            name=f'{case.name}, ours in {precision}', spec=case.spec._replace(precision=precision)
        )


def _data_cases(args: argparse.Namespace, base: Spec, scratch: Path) -> Iterator[Case]:
    if not {'train', 'load'} & set(args.step):
        return
    dense = args.data_root
    if dense is None:
        dense = scratch / 'dense'
        write_data(dense, DENSEST, 1000)
    counts = [count for _, count in count_nuclei(dense)[:2]]
    images = f'{" + ".join(f"{count:,}" for count in counts)} nuclei, 1200 px'
    pixels = counts[0] * 1200**2
    spec = base._replace(data_root=str(dense), batch=len(counts))
    if 'train' in args.step:
        small = scratch / 'small'
        write_data(small, [40] * 4, 256)
        demo = Spec('train', 'ours', str(SMALL), 0, 0, args.device, args.precision, str(small), 4)
        yield from _in_precisions(Case('train: R-18 of the demo, 4 x 256 px', demo, MODEL_BYTES))
        need = BATCH_BYTES + PAIR_BYTES * ANCHORS * pixels
        yield from _in_precisions(
            Case(f'train: R-101, {images}', spec._replace(step='train'), need)
        )
    if 'load' in args.step:
        yield Case(f'load: {images}', spec._replace(step='load'), LOAD_BYTES * pixels)


def available_bytes(device: str) -> int:
    """Memory that a process can still take."""
    if device == 'cuda':
        return torch.cuda.mem_get_info()[0]
    lines = Path('/proc/meminfo').read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith('MemAvailable')) * 1024


class Side:
    """A process that runs one side of a case whenever it is asked to."""

    def __init__(self, spec: Spec, threads: int | None, scratch: Path) -> None:
        threaded = {} if threads is None else dict(OMP_NUM_THREADS=str(threads))
        self.log = scratch / f'{spec.side}.log'
        with self.log.open('w') as log:
            self.process = subprocess.Popen(
                [sys.executable, '-m', 'nucseg_mmdet.benchmarks.stock', json.dumps(spec._asdict())],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                cwd=ROOT,
                env={**os.environ, **threaded},
            )
        self.answers = []

    def __enter__(self) -> 'Side':
        return self

    def __exit__(self, *_) -> None:
        self.process.kill()
        self.process.communicate()

    def read(self) -> dict[str, Any]:
        line = self.process.stdout.readline()
        if line:
            return json.loads(line)
        code = self.process.wait()
        said = self.log.read_text().strip().splitlines()
        raise UserError(f'benchmark ended with {code}: {said[-1] if said else "no message"}')

    def run(self) -> None:
        self.process.stdin.write('\n')
        self.process.stdin.flush()
        self.answers.append(self.read())

    def figures(self) -> dict[str, Any]:
        """Medians without the first run, which warms up; the peak of all."""
        later = self.answers[1:]
        return dict(
            seconds=statistics.median(answer['seconds'] for answer in later),
            cpu_seconds=statistics.median(answer['cpu_seconds'] for answer in later),
            peak_bytes=max(answer['peak_bytes'] for answer in self.answers),
            result=self.answers[0]['result'],
        )


def measure(case: Case, args: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    """Run both sides of a case in turn; the stock side only if its memory is there."""
    row = dict(case=case.name, stock=None, ours=None, needs_bytes=None)
    names = ['stock', 'ours']
    if case.stock_bytes > 0.9 * available_bytes(args.device):
        row['needs_bytes'] = round(case.stock_bytes)
        names = ['ours']
    with ExitStack() as stack:
        sides = {
            name: stack.enter_context(Side(case.spec._replace(side=name), args.threads, scratch))
            for name in names
        }
        for side in sides.values():
            side.read()  # ready
        for _ in range(1 + args.runs):
            for side in sides.values():
                side.run()
        row.update({name: side.figures() for name, side in sides.items()})
    row['identical'] = None
    if row['stock'] and case.spec.step in EXACT:
        row['identical'] = row['stock']['result'] == row['ours']['result']
    return row


def format_table(rows: Sequence[dict[str, Any]]) -> str:
    """Lay the rows out; a stock side that was not run has what it needs in brackets."""
    width = max(len(row['case']) for row in rows)
    lines = [
        ' ' * width + '      seconds a run             peak memory, MB',
        ' ' * width + '     stock     ours   ratio      stock     ours   results',
    ]
    for row in rows:
        stock, ours = row['stock'], row['ours']
        if stock:
            seconds, ratio = f'{stock["seconds"]:.3f}', f'{stock["seconds"] / ours["seconds"]:.1f}'
            peak = f'{stock["peak_bytes"] / 1e6:.0f} '
        else:
            seconds, ratio, peak = '-', '-', f'({row["needs_bytes"] / 1e6:.0f})'
        lines.append(
            f'{row["case"]:{width}}{seconds:>10}{ours["seconds"]:9.3f}{ratio:>8}'
            f'{peak:>12}{ours["peak_bytes"] / 1e6:8.0f}   {describe(row)}'
        )
    if any(row['stock'] is None for row in rows):
        lines += ['', '( ): would need this much, more than is free here; not run']
    return '\n'.join(lines)


def describe(row: dict[str, Any]) -> str:
    """Say what the two sides' results have in common."""
    if row['identical'] is not None:
        return 'identical' if row['identical'] else 'DIFFERENT'
    results = [row[side]['result'] for side in ('stock', 'ours') if row[side]]
    losses = [f'{result:.3f}' for result in results if isinstance(result, float)]
    return f'loss {", ".join(losses)}' if losses else '-'


@exit_code
def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    args.device = args.device or ('cuda' if torch.cuda.is_available() else 'cpu')
    check_args(args)
    machine = dict(
        device=torch.cuda.get_device_name() if args.device == 'cuda' else platform.machine(),
        cores=os.cpu_count(),
        load=os.getloadavg()[0],
        threads=args.threads or torch.get_num_threads(),
        torch=torch.__version__,
        precision=args.precision,
        runs=args.runs,
    )
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        for case in make_cases(args, scratch):
            print(f'{case.name} ...', file=sys.stderr, flush=True)
            rows.append(measure(case, args, scratch))
    print(', '.join(f'{key} {value}' for key, value in machine.items()))
    print()
    print(format_table(rows))
    if args.json:
        write_json(args.json, dict(machine=machine, rows=rows))
    return int(any(row['identical'] is False for row in rows))


if __name__ == '__main__':
    raise SystemExit(main())
