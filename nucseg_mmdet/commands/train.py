"""Train a model: nucseg train CONFIG [--fold N] [--resume] [--amp].

nucseg train finetune --data DIR trains the default model on, on fields of your own.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from mmengine.config import Config
from mmengine.runner.checkpoint import CheckpointLoader

from nucseg_mmdet.engine import config_edits, finetune, fold_colors, folds, provenance
from nucseg_mmdet.engine.config_options import ConfigOptions
from nucseg_mmdet.engine.data_edits import check_evaluators, notes_on_offset
from nucseg_mmdet.engine.make_runner import make_runner
from nucseg_mmdet.engine.work_dir import (
    check_resumed,
    find_resumed,
    owned_by_this_run,
    refuse_to_replace,
)
from nucseg_mmdet.utils.arguments import ArgumentParser
from nucseg_mmdet.utils.errors import UserError, exit_code


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', type=Path, help='a file, the name of one in configs/, finetune')
    parser.add_argument(
        '--work-dir', type=Path, help='default: work_dirs/<name of the config>[_fold<N>]'
    )
    parser.add_argument('--data-root', '--data', type=Path, help='folder that nucseg prepare made')
    parser.add_argument(
        '--fold', type=int, help='hold out this fold of the training images and validate on it'
    )
    parser.add_argument(
        '--initial-weights',
        metavar='FILE|none|fetch',
        help="the backbone's: a file, none (from scratch), or fetch what the config names",
    )
    parser.add_argument(
        '--keep-empty',
        action='store_true',
        help='train on images and crops without nuclei too; by default they are left out',
    )
    parser.add_argument(
        '--amp', action='store_true', help='mixed precision: float16 on a GPU, bfloat16 on a CPU'
    )
    parser.add_argument(
        '--auto-scale-lr', action='store_true', help='scale the rate with the batch over all GPUs'
    )
    begin = parser.add_mutually_exclusive_group()
    begin.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='CHECKPOINT',
        help='go on from a checkpoint, by default the last one of the work folder',
    )
    begin.add_argument(
        '--overwrite', action='store_true', help='begin anew where an earlier training has been'
    )
    parser.add_argument('--cfg-options', nargs='+', action=ConfigOptions, default={})
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')
    parser.add_argument('--local_rank', '--local-rank', type=int, help=argparse.SUPPRESS)
    return parser.parse_args(argv)


@exit_code
def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    cfg = config_edits.load_config(args.config, args.cfg_options, args.work_dir, args.fold)
    if args.fold is not None:
        for note in notes_on_offset(cfg, args.data_root, args.cfg_options):
            print(note)
    if args.data_root:
        config_edits.set_data_root(cfg, args.data_root)
    if args.fold is not None:
        folds.hold_out_fold(cfg, args.fold)
    recipe = None
    if 'finetune' in cfg:
        finetune.check_options(args.cfg_options, args.fold)
        recipe = finetune.fit_to_data(cfg, args.fold, args.cfg_options)
    if args.keep_empty:
        config_edits.keep_empty_images(cfg)
    config_edits.check_files(cfg, 'train_dataloader', 'val_dataloader')
    check_evaluators(cfg, 'val_evaluator')
    if args.fold is not None or recipe:
        folds.check_held_out(cfg)
    if recipe:
        print(finetune.describe(recipe))
    if cfg.load_from and not args.resume:
        CheckpointLoader.load_checkpoint(cfg.load_from, 'cpu')  # or refuse, with nothing made yet
    if args.fold is not None and cfg.get('fold_colors'):
        fold_colors.use_training_colors(cfg)
    if args.amp:
        config_edits.set_mixed_precision(cfg)
    if args.auto_scale_lr:
        if 'auto_scale_lr' not in cfg:
            raise UserError(f'{args.config}: has no auto_scale_lr, expected its base_batch_size')
        cfg.auto_scale_lr.enable = True
    with owned_by_this_run(Path(cfg.work_dir), args.launcher):
        train(cfg, args)
    return 0


def check_start(cfg: Config, choice: str | None) -> None:
    """Refuse weights of a backbone for a model that starts from a checkpoint.

    ``none`` goes with one: it says that the whole backbone is trained.

    Raises:
        UserError: as said.
    """
    if cfg.load_from and choice not in (None, 'none'):
        raise UserError(
            f'--initial-weights {choice}: the whole model starts from {cfg.load_from}, expected '
            'one of both'
        )


def train(cfg: Config, args: argparse.Namespace) -> None:
    """Train from the start, or from where the work folder's run stopped."""
    resumed = args.resume
    if resumed == 'auto' or (cfg.resume and not resumed and not cfg.load_from):
        last = find_resumed(cfg.work_dir)
        resumed = last and str(last)  # None: a new run, though an earlier one may have left a file
    if resumed:
        data = provenance.digest_dataloader(cfg.train_dataloader)
        check_resumed(resumed, cfg.work_dir, data)
        cfg.load_from = resumed
    else:
        if not (args.overwrite or args.resume or (cfg.resume and not cfg.load_from)):
            refuse_to_replace(cfg.work_dir)
        check_start(cfg, args.initial_weights)
    cfg.resume = bool(resumed)
    choice = args.initial_weights
    if resumed and choice is None:
        choice = config_edits.earlier_choice(cfg.work_dir)
    config_edits.set_initial_weights(cfg, choice, complete=bool(resumed or cfg.get('load_from')))
    config_edits.set_distributed(cfg, args.launcher)
    make_runner(cfg, args.config, 'train').train()
    config_edits.close_distributed()
