"""Segment images and slides of any size: nucseg segment INPUT... --out DIR.

INPUT is an image (PNG, JPEG, TIFF, OME-TIFF), a slide (svs, ndpi, mrxs, scn, DICOM, ...) or a
folder of them. Stopped in between, the same command goes on. Several GPUs or machines: --workers,
--slurm or --scheduler.
"""

import argparse
import math
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tqdm import tqdm

from nucseg_mmdet.engine import model_zoo
from nucseg_mmdet.export.formats import FORMATS
from nucseg_mmdet.inference import inputs, segmenter
from nucseg_mmdet.inference import plan as planning
from nucseg_mmdet.inference import run as running
from nucseg_mmdet.inference.backends import BACKENDS
from nucseg_mmdet.inference.rows import Engine, InProcess
from nucseg_mmdet.slides import pixel_size
from nucseg_mmdet.utils.arguments import ArgumentParser
from nucseg_mmdet.utils.errors import UserError, count_nuclei, exit_code, printable
from nucseg_mmdet.utils.ownership import owned_folder


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.dashed = '--roi', '--slurm'
    parser.add_argument('inputs', type=Path, nargs='+', metavar='INPUT')
    parser.add_argument('--out', type=Path, required=True, help='folder of the results')
    model = parser.add_mutually_exclusive_group()
    model.add_argument(
        '--model', choices=list(model_zoo.MODELS), help=f'default: {model_zoo.DEFAULT}'
    )
    model.add_argument('--config', type=Path, help='of a model of your own, with --checkpoint')
    parser.add_argument('--checkpoint', type=Path, help='goes with --config')
    parser.add_argument(
        '--format',
        nargs='+',
        type=_format_name,
        choices=list(FORMATS),
        default=['geojson', 'csv'],
        help='of the results, default: geojson csv',
    )
    parser.add_argument(
        '--features',
        action='store_true',
        help='also measure the surroundings and the texture of nuclei, see docs/formats.md',
    )
    parser.add_argument('--gzip', action='store_true', help='write .geojson.gz')
    parser.add_argument(
        '--simplify',
        type=float,
        default=0.0,
        metavar='PX',
        help='let outlines in GeoJSON move by so much to save vertices, default: exact',
    )
    parser.add_argument(
        '--mpp', type=float, help='microns per pixel of all inputs, default: what the files say'
    )
    parser.add_argument(
        '--roi', type=str, metavar='X,Y,W,H', help='a region only, full-resolution px of the slide'
    )
    parser.add_argument('--no-tissue-mask', action='store_true', help='look at empty glass too')
    parser.add_argument(
        '--score-thr',
        type=float,
        help="leave out nuclei with a lower score, 0 to 1; default: the config's",
    )
    _add_ways_to_work(parser)
    parser.add_argument(
        '--overwrite',
        action='store_true',
        help='start anew where settings have changed, and replace files of others',
    )
    return parser.parse_args(argv)


def _format_name(text: str) -> str:
    if text not in FORMATS:
        way = '; an input stands before --format' if os.path.lexists(text) else ''
        raise argparse.ArgumentTypeError(
            f'{text} is no format, expected some of {", ".join(FORMATS)}{way}'
        )
    return text


def _add_ways_to_work(parser: argparse.ArgumentParser) -> None:
    """Add the options that say how and where the network runs."""
    parser.add_argument(
        '--tile',
        type=int,
        default=segmenter.TILE,
        help='largest side of a tile, px of 0.25 microns, default: %(default)s',
    )
    parser.add_argument(
        '--overlap',
        type=int,
        default=segmenter.OVERLAP,
        help='of tiles, twice the largest nucleus, px of 0.25 microns, default: %(default)s',
    )
    parser.add_argument('--batch', type=int, default=1, help='tiles together, default: %(default)s')
    parser.add_argument(
        '--backend',
        choices=list(BACKENDS),
        help='mmdet (torch) or openvino, default: torch on a GPU if there is one, else openvino',
    )
    parser.add_argument('--device', help='cpu, cuda or cuda:N, default: a GPU where there is one')
    parser.add_argument(
        '--precision',
        choices=['fp32', 'bf16', 'fp16', 'int8'],
        help='default: bf16 on a GPU, and with openvino on a CPU that has it, else fp32; '
        'int8: faster on a CPU, nearly the same nuclei',
    )
    parser.add_argument(
        '--workers', type=int, metavar='N', help='processes on this machine, or jobs with --slurm'
    )
    parser.add_argument(
        '--slurm',
        type=str,
        metavar='OPTIONS',
        help='each worker is a job of sbatch with these, such as "--partition=gpu --gres=gpu:1"',
    )
    parser.add_argument('--scheduler', metavar='ADDRESS', help='of Dask, with workers of its own')


def parse_region(text: str) -> tuple[int, int, int, int]:
    """The region that ``--roi`` names: x, y, width, height, full-resolution px.

    Raises:
        UserError: it is none.
    """
    try:
        x, y, width, height = (int(part) for part in text.split(','))
    except ValueError:
        raise UserError(
            f'--roi {text or "is empty"}: expected four whole numbers x,y,w,h'
        ) from None
    if width < 1 or height < 1:
        raise UserError(f'--roi {text}: expected a width and a height of at least 1')
    return x, y, width, height


def refuse_launchers() -> None:
    """Tell those who start several processes how it is done now.

    A batch script of Slurm has the number of the job's tasks, but runs once: only what srun
    starts is a step with a number of tasks of its own.

    Raises:
        UserError: torchrun or srun started us several times.
    """
    for launcher, name in (('torchrun', 'WORLD_SIZE'), ('srun', 'SLURM_STEP_NUM_TASKS')):
        if int(os.environ.get(name, 1)) > 1:
            raise UserError(
                f'started {os.environ[name]} times by {launcher}, expected once, with --workers '
                f'{os.environ[name]}' + (' --slurm OPTIONS' if launcher == 'srun' else '')
            )


def print_notes(plans: Sequence[planning.Plan]) -> None:
    """Say what is assumed and how files are read, in a line for all of which the same is said."""
    slides_of: dict[str, list[str]] = {}
    for plan in plans:
        if plan.pixel_size.assumed:
            reason = plan.pixel_size.source
            if plan.pixel_size == pixel_size.NOT_SAID:
                reason = f'no microns per pixel in the file, {pixel_size.ASSUMED_MPP} assumed'
            slides_of.setdefault(f'{reason}, see --mpp', []).append(str(plan.path))
    for plan in plans:
        for note in plan.notes:
            slides_of.setdefault(note.removeprefix(f'{plan.path}: '), []).append(str(plan.path))
    for note, paths in slides_of.items():
        more = f' and {len(paths) - 1} more' if paths[1:] else ''
        print(printable(f'{paths[0]}{more}: {note}'), file=sys.stderr)


def make_settings(args: argparse.Namespace) -> planning.Settings:
    """What the options say of reading and writing.

    Raises:
        UserError: a value is not possible, or what a format needs is not installed.
    """
    if not 0 <= args.simplify < math.inf:
        raise UserError(f'--simplify {args.simplify}: expected 0 or more')
    for name in args.format:
        FORMATS[name].check()
    if args.mpp is not None:
        pixel_size.given(args.mpp)  # refuses what is not possible
    return planning.Settings(
        out=args.out,
        formats=tuple(dict.fromkeys(args.format)),
        mpp=args.mpp,
        region=None if args.roi is None else parse_region(args.roi),
        skip_glass=not args.no_tissue_mask,
        simplify=args.simplify,
        compress=args.gzip,
        features=args.features,
        overwrite=args.overwrite,
    )


def model_options(args: argparse.Namespace) -> dict[str, Any]:
    """Keywords of ``Segmenter``; files by their whole path, for workers that start elsewhere."""
    options = dict(
        config=args.model or args.config,
        checkpoint=args.checkpoint,
        device=args.device,
        precision=args.precision,
        score_thr=args.score_thr,
        batch=args.batch,
        tile=args.tile,
        overlap=args.overlap,
        backend=args.backend,
    )
    for name in ('config', 'checkpoint'):
        if options[name] is not None and Path(options[name]).is_file():
            options[name] = Path(options[name]).resolve()
    return options


@contextmanager
def open_engine(args: argparse.Namespace) -> Iterator[Engine]:
    """This process, or workers.

    Raises:
        UserError: options do not go together, the model cannot be loaded, or as
            ``cluster.connect``.
    """
    if args.workers is not None and args.workers < 1:
        raise UserError(f'--workers {args.workers}: expected at least 1')
    if args.scheduler and (args.workers or args.slurm is not None):
        raise UserError('--scheduler has workers of its own, expected no --workers or --slurm')
    if not (args.workers or args.scheduler or args.slurm is not None):
        yield InProcess(segmenter.Segmenter(**model_options(args)))
        return
    from nucseg_mmdet.inference import cluster

    options = model_options(args)
    with cluster.connect(options, args.workers, args.slurm, args.scheduler) as engine:
        print(f'{engine.workers} workers, dashboard: {engine.dashboard}', file=sys.stderr)
        yield engine


@exit_code
def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    refuse_launchers()
    settings = make_settings(args)
    found = inputs.find_inputs(args.inputs)
    for note in found.notes:
        print(printable(note), file=sys.stderr)
    if not found.paths:
        raise UserError(*found.problems)
    with open_engine(args) as engine, owned_folder(args.out):
        return segment(engine, found, settings)


def segment(engine: Engine, found: inputs.Inputs, settings: planning.Settings) -> int:
    """Do all slides; returns the exit code.

    Raises:
        UserError: nothing of all could be done.
    """
    problems = list(found.problems)

    def plans() -> Iterator[planning.Plan]:
        names = inputs.name_outputs(found.paths)
        for plan in engine.plan(found.paths, names, settings):
            if isinstance(plan, UserError):
                problems.append(str(plan))
            else:
                yield plan

    with running.SlideRun(plans(), settings, engine) as run:
        if not run.left and not run.summaries:
            raise UserError(*problems, *run.problems)
        planning.check_space(run.left, settings)
        print_notes(run.left)
        if run.summaries:
            print(f'{len(run.summaries)} of {len(found.paths)} finished before')
        if not work(run):
            print('segment: stopped; the same command goes on', file=sys.stderr)
            return 130
    problems += run.problems
    if problems and not run.summaries:
        raise UserError(*problems)
    if problems:
        print('Problems:', len(problems), file=sys.stderr)
        for problem in problems:
            print(f'  {printable(problem)}', file=sys.stderr)
    return int(bool(problems))


def work(run: running.SlideRun) -> bool:
    """Do the work under a progress bar; False if it was stopped."""
    found = 0
    with tqdm(total=run.num_tiles, unit='tile', smoothing=0.05, dynamic_ncols=True) as bar:

        def progress(num_tiles: int, num_nuclei: int) -> None:
            nonlocal found
            found += num_nuclei
            bar.set_postfix_str(count_nuclei(found), refresh=False)
            bar.update(num_tiles)

        try:
            run.run(progress, lambda line: tqdm.write(printable(line)))
        except KeyboardInterrupt:
            return False
    return True
