"""Segment images and slides of any size: nucseg segment INPUT... --out DIR.

INPUT is an image (PNG, JPEG, TIFF, OME-TIFF), a slide (svs, ndpi, mrxs, scn, DICOM, ...) or a
folder of them. Stopped in between, the same command goes on. Several GPUs or machines:
torchrun --nproc-per-node N tools/segment.py ..., or srun with one task a GPU.
"""

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from tqdm import tqdm

from nucseg_mmdet.engine import model_zoo
from nucseg_mmdet.export.formats import FORMATS
from nucseg_mmdet.inference import inputs, segmenter
from nucseg_mmdet.inference import plan as planning
from nucseg_mmdet.inference import run as running
from nucseg_mmdet.inference.predictor import BACKENDS
from nucseg_mmdet.slides import pixel_size
from nucseg_mmdet.utils.errors import UserError, exit_code


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
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
        '--roi', metavar='X,Y,W,H', help='a region only, full-resolution px of the slide'
    )
    parser.add_argument('--no-tissue-mask', action='store_true', help='look at empty glass too')
    parser.add_argument(
        '--score-thr', type=float, help="least certain nuclei, default: the config's"
    )
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
        choices=['fp32', 'bf16', 'fp16'],
        help='default: bf16 on a GPU, fp32 on a CPU',
    )
    parser.add_argument(
        '--overwrite',
        action='store_true',
        help='start anew where settings have changed, and replace files of others',
    )
    return parser.parse_args(argv)


def parse_region(text: str) -> tuple[int, int, int, int]:
    try:
        x, y, width, height = (int(part) for part in text.split(','))
    except ValueError:
        raise UserError(f'--roi {text}: expected four whole numbers x,y,w,h') from None
    if width < 1 or height < 1:
        raise UserError(f'--roi {text}: expected a width and a height of at least 1')
    return x, y, width, height


def find_share() -> tuple[running.Share, int]:
    """Which process this is, for torchrun or Slurm, and its number on this machine.

    A batch script of Slurm has the number of the job's tasks, but runs once: only what srun
    starts is a step with a number of tasks of its own.
    """
    for names in (
        ('RANK', 'WORLD_SIZE', 'LOCAL_RANK'),
        ('SLURM_PROCID', 'SLURM_STEP_NUM_TASKS', 'SLURM_LOCALID'),
    ):
        if all(name in os.environ for name in names):
            rank, world, local = (int(os.environ[name]) for name in names)
            return running.Share(rank, world), local
    return running.Share(), 0


def print_notes(plans: Sequence[planning.Plan]) -> None:
    """Say what is assumed and how files are read, in a line for all that lack a pixel size."""
    silent = [plan.path for plan in plans if plan.pixel_size.assumed]
    if silent:
        print(
            f'{silent[0]}{f" and {len(silent) - 1} more" if silent[1:] else ""}: no microns per '
            f'pixel in the file, {pixel_size.ASSUMED_MPP} assumed, see --mpp',
            file=sys.stderr,
        )
    for note in (note for plan in plans for note in plan.notes):
        print(note, file=sys.stderr)


def make_settings(args: argparse.Namespace) -> planning.Settings:
    if args.simplify < 0:
        raise UserError(f'--simplify {args.simplify}: expected 0 or more')
    if args.mpp is not None:
        pixel_size.given(args.mpp)  # refuses what is not possible
    return planning.Settings(
        out=args.out,
        formats=tuple(dict.fromkeys(args.format)),
        mpp=args.mpp,
        region=parse_region(args.roi) if args.roi else None,
        skip_glass=not args.no_tissue_mask,
        simplify=args.simplify,
        compress=args.gzip,
        features=args.features,
        overwrite=args.overwrite,
    )


def make_segmenter(args: argparse.Namespace, local: int) -> segmenter.Segmenter:
    device = args.device
    if device is None and local > 0:
        import torch

        count = torch.cuda.device_count()
        device = f'cuda:{local % count}' if count else None
    return segmenter.Segmenter(
        args.model or args.config,
        args.checkpoint,
        device=device,
        precision=args.precision,
        score_thr=args.score_thr,
        batch=args.batch,
        tile=args.tile,
        overlap=args.overlap,
        backend=args.backend,
    )


@exit_code
def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    share, local = find_share()
    settings = make_settings(args)
    paths = inputs.find_inputs(args.inputs)
    model = make_segmenter(args, local)
    planning.check_out(args.out)

    problems = []

    def plans() -> Iterator[planning.Plan]:
        for path, name in zip(paths, inputs.name_outputs(paths), strict=True):
            try:
                plan = planning.plan_slide(path, name, settings, model, share.rank == 0)
            except UserError as error:
                problems.append(str(error))
            else:
                yield plan

    run = running.SlideRun(plans(), settings, model, share)
    if share.rank == 0:
        planning.check_space(run.left, settings)
        print_notes(run.left)
        if run.summaries:
            print(f'{len(run.summaries)} of {len(paths)} finished before')

    found = 0
    with tqdm(
        total=run.num_tiles, unit='tile', smoothing=0.05, disable=share.rank > 0, dynamic_ncols=True
    ) as bar:

        def progress(num_tiles: int, num_nuclei: int) -> None:
            nonlocal found
            found += num_nuclei
            bar.set_postfix_str(f'{found:,} nuclei', refresh=False)
            bar.update(num_tiles)

        try:
            run.run(progress, tqdm.write)
        except KeyboardInterrupt:
            print('segment: stopped; the same command goes on', file=sys.stderr)
            return 130
    if share.rank > 0:
        return 0  # process 0 reports; a launcher would end it if this one failed
    problems += run.problems
    if problems:
        print('Problems:', len(problems), file=sys.stderr)
        for problem in problems:
            print(f'  {problem}', file=sys.stderr)
    return int(bool(problems))
