"""Repeat the original experiments: python tools/analysis_tools/reproduce.py [NUMBER ...].

For each experiment: train, write the checked answer.zip, score it where --truth is given, and at
the end one table beside the published scores. The same command goes on where it was stopped.
Before the first training it measures a step of each kind of experiment and says how long all of
them will take and how much memory they need.
"""

from nucseg_mmdet.utils.start import start_script

if __name__ == '__main__':
    start_script()

import argparse
import contextlib
import json
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from mmengine.config import Config

from nucseg_mmdet.engine.checkpoint import cached_download
from nucseg_mmdet.engine.provenance import device
from nucseg_mmdet.engine.work_dir import read_card
from nucseg_mmdet.evaluation import submission
from nucseg_mmdet.evaluation.run_cards import CARD
from nucseg_mmdet.evaluation.truth import read_tidy_truth
from nucseg_mmdet.utils.arguments import ArgumentParser
from nucseg_mmdet.utils.errors import UserError, exit_code
from nucseg_mmdet.utils.files import write_json

ROOT = Path(__file__).resolve().parents[2]
EXPERIMENTS = range(1, 16)
MEASURED_STEPS = 4  # the first, with the start of the data workers in it, does not count
PATIENCE = 60  # s that a stopped tool has for its end; torchrun gives its workers 30 of them


class Experiment(NamedTuple):
    """One row of the original table.

    Attributes:
        number: of the row.
        config: path of its config.
        work_dir: of its training and answer.
        iterations: that it trains.
        weights: value of ``--initial-weights``.
    """

    number: int
    config: Path
    work_dir: Path
    iterations: int
    weights: str

    @property
    def card(self) -> dict:
        """The run card, empty where there is no readable one."""
        return read_card(self.work_dir)

    @property
    def trained(self) -> int:
        """The iterations that its training has behind it."""
        iteration = self.card.get('iteration')
        return iteration if isinstance(iteration, int) else 0

    @property
    def checkpoint(self) -> Path:
        return self.work_dir / f'iter_{self.iterations}.pth'

    @property
    def answer(self) -> Path:
        return self.work_dir / 'answer.zip'


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        'numbers', type=int, nargs='*', metavar='NUMBER', help='1 to 15, default: all'
    )
    parser.add_argument('--gpus', type=int, default=1, help='processes of each training')
    parser.add_argument(
        '--initial-weights',
        metavar='fetch|none|DIR',
        help='download the ImageNet weights, train from scratch, or a folder with their files; '
        "default: those in torch hub's cache",
    )
    parser.add_argument('--iterations', type=int, help='of every experiment, to try the command')
    parser.add_argument('--data-root', type=Path, help='folder that tools/prepare_data.py made')
    parser.add_argument('--truth', type=Path, help='COCO truth of the test images, to score with')
    parser.add_argument(
        '--out', type=Path, default=Path('work_dirs/reproduce'), help='default: %(default)s'
    )
    parser.add_argument('--measure-only', action='store_true', help='say how long, and stop')
    return parser.parse_args(argv)


def find_experiments(args: argparse.Namespace) -> list[Experiment]:
    """Settle config, length and initial weights of the experiments asked for.

    Raises:
        UserError: a number is none of the table's, or a file of initial weights is missing.
    """
    unknown = [number for number in args.numbers if number not in EXPERIMENTS]
    if unknown:
        raise UserError(f'experiment {unknown[0]}: expected {EXPERIMENTS[0]} to {EXPERIMENTS[-1]}')
    experiments = []
    for number in sorted(set(args.numbers or EXPERIMENTS)):
        (config,) = (ROOT / 'configs/vrdl').glob(f'*_e{number:02d}_*.py')
        cfg = Config.fromfile(config)
        # The table takes a run of another length for this experiment only if its name says so.
        length = f'_iterations{args.iterations}' if args.iterations else ''
        experiments.append(
            Experiment(
                number,
                config,
                args.out / f'{config.stem}{length}',
                args.iterations or cfg.train_cfg.max_iters,
                find_weights(args.initial_weights, cfg),
            )
        )
    return experiments


def check_files(args: argparse.Namespace) -> None:
    """See before the trainings whether the data and the truth are there and belong together.

    Raises:
        UserError: a file is missing or not as it should be, or an image to predict has no truth.
    """
    train, test = (_data_root(args) / f'annotations/{name}.json' for name in ('train', 'test'))
    for path in (train, test):
        if not path.is_file():
            raise UserError(f'{path}: not there, expected data that tools/prepare_data.py made')
    predicted = submission.read_images(test)
    if args.truth:
        known = {image.id for image in read_tidy_truth(args.truth)}
        if missing := sorted(set(predicted) - known):
            raise UserError(f'{args.truth}: has no image {missing[0]}, expected those of {test}')


def find_weights(choice: str | None, cfg: Config) -> str:
    """Value of ``--initial-weights`` for one config; '' leaves it to the cache.

    Raises:
        UserError: the folder has no file for this backbone.
    """
    if choice is None or choice in ('fetch', 'none'):
        return choice or ''
    depth_name = 'X-101-32x8d.pkl' if cfg.model.backbone.type == 'ResNeXt' else 'R-101.pkl'
    names = [cached_download(cfg.model.backbone.init_cfg.checkpoint)[1].name, depth_name]
    for name in names:
        if Path(choice, name).is_file():
            return str(Path(choice, name))
    raise UserError(f'--initial-weights {choice}: expected {" or ".join(names)} in this folder')


def train_command(experiment: Experiment, args: argparse.Namespace, *options: str) -> list[str]:
    """Command that trains an experiment, or goes on with it."""
    tool = [str(ROOT / 'tools/train.py'), str(experiment.config)]
    if args.gpus > 1:
        launcher = ['-m', 'torch.distributed.run', '--nproc-per-node', str(args.gpus)]
        command = [sys.executable, *launcher, *tool, '--launcher', 'pytorch']
    else:
        command = [sys.executable, *tool]
    if experiment.weights:
        command += ['--initial-weights', experiment.weights]
    return [*command, *_data_option(args), *options]


def measure(experiment: Experiment, args: argparse.Namespace) -> dict[str, Any]:
    """Train a few steps of an experiment beside its work folder.

    What was measured before is taken where data, processes and device are the same.

    Returns:
        ``seconds`` of a step (median) and ``bytes``, the peak memory of a process; and of which
        data, processes and device these are.

    Raises:
        UserError: the training failed.
    """
    folder = args.out / 'measured' / experiment.config.stem
    found = _read_json(folder / 'step.json')
    way = dict(data=str(_data_root(args).resolve()), gpus=args.gpus, device=device())
    if all(isinstance(found.get(key), int | float) for key in ('seconds', 'bytes')) and (
        found.items() >= way.items()
    ):
        return found
    _run(
        train_command(
            experiment,
            args,
            *('--work-dir', str(folder), '--cfg-options'),
            f'train_cfg.max_iters={MEASURED_STEPS}',
            'default_hooks.logger.interval=1',
            'default_hooks.checkpoint.interval=-1',
            'default_hooks.checkpoint.save_last=False',
        ),
        folder,
    )
    card = read_card(folder)
    logs = sorted(folder.glob('*/vis_data/scalars.json'))
    steps = [json.loads(line) for line in logs[-1].read_text().splitlines()]
    found = dict(
        way,
        seconds=statistics.median([step['time'] for step in steps if 'time' in step][1:]),
        bytes=card.get('peak_gpu_bytes') or card['peak_memory_bytes'],
    )
    write_json(folder / 'step.json', found)
    (folder / CARD).unlink()  # no run, and no row of the table
    return found


def kind_of(experiment: Experiment) -> str:
    """What the cost of a step depends on: two experiments of a kind differ in their length."""
    cfg = Config.fromfile(experiment.config)
    resize = next(step for step in cfg.train_dataloader.dataset.pipeline if step.type == 'Resize')
    sampler = cfg.model.train_cfg.rcnn.sampler
    return f'{cfg.model.backbone.type}, {min(resize.scale)} px, {sampler.num} RoIs'


def announce(experiments: Sequence[Experiment], args: argparse.Namespace) -> None:
    """Say how long the trainings will take, and how much memory."""
    costs: dict[str, dict[str, Any]] = {}
    total = 0.0
    for experiment in experiments:
        left = experiment.iterations - experiment.trained
        if left <= 0:
            continue
        kind = kind_of(experiment)
        if kind not in costs:
            print(f'measuring a step of experiment {experiment.number} ({kind}) ...', flush=True)
            costs[kind] = measure(experiment, args)
        cost = costs[kind]
        total += left * cost['seconds']
        print(
            f'experiment {experiment.number:2d}: {left:,} iterations of {cost["seconds"]:.2f} s, '
            f'{left * cost["seconds"] / 3600:.1f} h, {cost["bytes"] / 1e9:.1f} GB a process'
        )
    print(f'all trainings together: {total / 3600:.1f} h, tests not counted', flush=True)


def reproduce(experiment: Experiment, args: argparse.Namespace) -> None:
    """Train, answer and score one experiment; what is done already is not done again.

    Raises:
        UserError: a step failed, or the answer would not be taken by the competition.
    """
    if not experiment.checkpoint.is_file():
        print(f'experiment {experiment.number}: training', flush=True)
        options = ['--work-dir', str(experiment.work_dir), '--resume']
        options += ['--cfg-options', f'train_cfg.max_iters={experiment.iterations}']
        _run(train_command(experiment, args, *options), experiment.work_dir)
    if not _is_newer(experiment.answer, experiment.checkpoint):
        print(f'experiment {experiment.number}: test images', flush=True)
        tool = [str(ROOT / 'tools/test.py'), str(experiment.config), str(experiment.checkpoint)]
        options = ['--work-dir', str(experiment.work_dir), '--format-only', *_data_option(args)]
        _run([sys.executable, *tool, *options], experiment.work_dir)
    images = _data_root(args) / 'annotations/test.json'
    if submission.main([str(experiment.answer), str(images)]):
        raise UserError(f'{experiment.answer}: not a valid submission')
    if args.truth:
        tool = [str(ROOT / 'tools/score.py'), str(args.truth), str(experiment.answer)]
        scores = experiment.work_dir / 'scores.json'
        _run([sys.executable, *tool, '--json', str(scores)], experiment.work_dir)
        add_scores(experiment, args.truth.name, _read_json(scores)['scores'])


def add_scores(experiment: Experiment, truth: str, scores: dict[str, float]) -> None:
    """Put the scores of an answer into the run card, beside what the test that made it wrote.

    Args:
        experiment: whose answer was scored.
        truth: name of the file.
        scores: by their names, such as ``AP50@100``.

    Raises:
        UserError: the card does not say how the answer was made.
    """
    card = experiment.card
    try:
        tested = dict(card['scores']['test.json'])
    except (KeyError, TypeError, ValueError):
        raise UserError(
            f'{experiment.work_dir / CARD}: has no test that made {experiment.answer.name}, '
            f'expected one; without {experiment.answer.name} it is made anew'
        ) from None
    card['scores'][truth] = dict(tested, **{f'nuclei/{key}': scores[key] for key in scores})
    write_json(experiment.work_dir / CARD, card)


def _run(command: Sequence[str], work_dir: Path) -> None:
    """Run one of the tools with its output in ``<work_dir>/reproduce.log``."""
    work_dir.mkdir(parents=True, exist_ok=True)
    log = work_dir / 'reproduce.log'
    with log.open('ab') as output:
        code = _call(command, output)
    if code:
        last = ['no output', *log.read_text(errors='replace').split('\n')]
        raise UserError(
            f'{Path(command[1]).name} ended with {code}, see {log}: '
            f'{next(line for line in reversed(last) if line.strip())}'
        )


def _call(command: Sequence[str], output: BinaryIO) -> int:
    """Run a command to its end; where this process is stopped, the command is stopped with it.

    By SIGTERM, at which torchrun stops the processes that it started; killed, it leaves them.
    """
    with subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT) as process:
        try:
            return process.wait()
        except BaseException:
            process.terminate()
            try:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(PATIENCE)
            finally:
                process.kill()
                process.wait()
            raise


def _data_root(args: argparse.Namespace) -> Path:
    return args.data_root or Path('data/vrdl')  # as in the configs


def _data_option(args: argparse.Namespace) -> list[str]:
    return ['--data-root', str(args.data_root)] if args.data_root else []


def _is_newer(path: Path, than: Path) -> bool:
    return path.is_file() and path.stat().st_mtime >= than.stat().st_mtime


def _read_json(path: Path) -> dict:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


@exit_code
def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    if args.gpus < 1 or (args.iterations is not None and args.iterations < 1):
        raise UserError('--gpus and --iterations: expected at least 1')
    check_files(args)
    experiments = find_experiments(args)
    announce(experiments, args)
    if args.measure_only:
        return 0
    failed = 0
    for experiment in experiments:
        try:
            reproduce(experiment, args)
        except UserError as error:
            failed += 1
            print(f'experiment {experiment.number}: {error}', file=sys.stderr, flush=True)
    table = [str(ROOT / 'tools/analysis_tools/results_table.py'), str(args.out)]
    subprocess.call([sys.executable, *table])
    return 1 if failed else 0


if __name__ == '__main__':
    raise SystemExit(main())
