"""Test a model: nucseg test CONFIG [CHECKPOINT ...] [--format-only] [--fold N].

Scores the images of the config's test set, or of a fold of the training images. With
--format-only nothing is scored and answer.json and answer.zip are written instead.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config

from nucseg_mmdet.engine import config_edits, fold_colors, folds
from nucseg_mmdet.engine.checkpoint import load_weights_only
from nucseg_mmdet.engine.config_options import ConfigOptions
from nucseg_mmdet.engine.config_parts import as_list, find_data, score_threshold
from nucseg_mmdet.engine.data_edits import (
    TRUTH_OFFSET,
    check_evaluators,
    leave_out_truth_offset,
    notes_on_offset,
    set_test_data,
    test_on_training_images,
    use_views,
)
from nucseg_mmdet.engine.make_runner import make_runner
from nucseg_mmdet.engine.model_zoo import find_config, model_files
from nucseg_mmdet.engine.provenance import digest_dataloader
from nucseg_mmdet.engine.types_of_nuclei import fit_types
from nucseg_mmdet.engine.work_dir import read_card
from nucseg_mmdet.evaluation.run_cards import CARD
from nucseg_mmdet.structures.coco import load_shared_json
from nucseg_mmdet.utils.arguments import ArgumentParser
from nucseg_mmdet.utils.errors import UserError, check_fraction, exit_code
from nucseg_mmdet.utils.files import check_folder_is_writable, check_place_is_writable
from nucseg_mmdet.utils.reading import check_is_not_read


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', type=Path, help='or the name of a model, such as dense-r18')
    parser.add_argument(
        'checkpoints',
        type=Path,
        nargs='*',
        default=[],
        metavar='CHECKPOINT',
        help='may be left out for a model of the project; of several the predictions are averaged',
    )
    parser.add_argument(
        '--with',
        dest='beside',
        nargs='+',
        action='append',
        default=[],
        metavar=('CONFIG', 'CHECKPOINT'),
        help='average with a model of another config too; may be given several times',
    )
    _add_data(parser)
    _add_outputs(parser)
    _add_ways_to_predict(parser)
    parser.add_argument('--cfg-options', nargs='+', action=ConfigOptions, default={})
    parser.add_argument('--launcher', choices=['none', 'pytorch', 'slurm', 'mpi'], default='none')
    parser.add_argument('--local_rank', '--local-rank', type=int, help=argparse.SUPPRESS)
    return parser.parse_args(argv)


def _add_data(parser: argparse.ArgumentParser) -> None:
    """Add the options that say which images are tested, and for which run."""
    parser.add_argument(
        '--work-dir', type=Path, help='default: work_dirs/<name of the config>[_fold<N>]'
    )
    parser.add_argument('--data-root', '--data', type=Path, help='folder that nucseg prepare made')
    parser.add_argument('--fold', type=int, help='test on the images that this fold holds out')
    parser.add_argument(
        '--annotations', type=Path, metavar='FILE', help='test on this COCO truth, with --images'
    )
    parser.add_argument(
        '--images', type=Path, metavar='DIR', help='of --annotations, default: its folder'
    )


def _add_outputs(parser: argparse.ArgumentParser) -> None:
    """Add the options of what is written or shown."""
    parser.add_argument(
        '--format-only', action='store_true', help='write answer.json and answer.zip, no scores'
    )
    parser.add_argument(
        '--answer', type=Path, help='the file of --format-only, default: <work dir>/answer.json'
    )
    parser.add_argument(
        '--out', type=Path, metavar='FILE.pkl', help="keep all predictions, for mmdet's own tools"
    )
    parser.add_argument(
        '--show', action='store_true', help='show each image with its nuclei in a window'
    )
    parser.add_argument(
        '--wait-time', type=float, default=2, help='of --show, seconds; default: %(default)g'
    )
    parser.add_argument(
        '--show-dir', type=Path, help='write the images here, predicted nuclei outlined'
    )
    parser.add_argument(
        '--show-score-thr', type=float, help="outline no less certain nuclei, default: the config's"
    )


def _add_ways_to_predict(parser: argparse.ArgumentParser) -> None:
    """Add the options that say how the network predicts."""
    parser.add_argument(
        '--precision',
        choices=['fp32', 'bf16', 'fp16'],
        help='of the convolutions; norms are folded into them. default: the model as it is',
    )
    parser.add_argument(
        '--tta',
        action='store_true',
        help="average over the views of the config's tta_pipeline: slower, a little better",
    )


def check_inputs(args: argparse.Namespace) -> None:
    """Refuse options that do not go together.

    Raises:
        UserError: as said.
    """
    if args.images and not args.annotations:
        raise UserError(f'--images {args.images}: goes with --annotations')
    if args.annotations and (args.fold is not None or args.data_root):
        raise UserError(f'--annotations {args.annotations}: goes without --fold and --data-root')


def check_outputs(args: argparse.Namespace) -> None:
    """Refuse files that cannot be written before the work.

    Raises:
        UserError: the place of one is a folder or cannot be written to, or its name or another
            option does not fit.
    """
    if args.answer and not args.format_only:
        raise UserError(f'--answer {args.answer}: goes with --format-only')
    if args.out and args.out.suffix not in ('.pkl', '.pickle'):
        raise UserError(
            f'--out {args.out}: expected a .pkl file; --format-only --answer writes answer.json'
        )
    if args.answer and args.answer.suffix == '.zip':
        raise UserError(f'--answer {args.answer}: expected a .json file, the .zip goes beside it')
    for path in find_outputs(args):
        check_place_is_writable(path)
        if args.show_dir and path.resolve() == args.show_dir.resolve():
            raise UserError(
                f'--show-dir {args.show_dir}: is a file that is asked for, expected a folder'
            )
    if args.show_dir:
        check_folder_is_writable(args.show_dir)


def find_outputs(args: argparse.Namespace) -> list[Path]:
    """The files that are asked for by name."""
    packed = [args.answer.with_suffix('.zip')] if args.answer and args.answer.name else []
    return [path for path in (args.answer, *packed, args.out) if path]


def check_keeps_inputs(args: argparse.Namespace, cfg: Config, weights: Sequence[Path]) -> None:
    """Refuse to write over what is read, or where the run card goes.

    Raises:
        UserError: a file or folder that is asked for is one of the data or weights.
    """
    data = find_data(cfg.test_dataloader)
    for path in (*find_outputs(args), args.show_dir):
        if path:
            check_is_not_read(path, *weights, *data, *filter(None, [args.annotations]))
            if path.resolve() == Path(cfg.work_dir, CARD).resolve():
                raise UserError(f'{path}: is where the run card goes, expected another place')


def find_others(cfg: Config, args: argparse.Namespace, first: Path) -> list[tuple[Config, Path]]:
    """The models beside the first: config and checkpoint.

    Raises:
        UserError: a file is missing, or a model sees other images, makes other masks or knows
            other classes.
    """
    found = [(cfg, model_files(args.config, path)[1]) for path in args.checkpoints[1:]]
    for config, *checkpoint in args.beside:
        if len(checkpoint) > 1:
            raise UserError(f'--with {config}: expected a config and at most one checkpoint')
        other = config_edits.load_config(config, {}, None)
        mine = _seen_and_made(cfg)
        for what, its in _seen_and_made(other).items():
            if its != mine[what]:
                raise UserError(f'--with {config}: its {what} is {its}, expected {mine[what]}')
        found.append((other, model_files(config, *checkpoint)[1]))
    classes = _classes(cfg, first) if found else []
    for other, path in found:
        its = _classes(other, path)
        if its != classes:
            raise UserError(f'{path}: classes are {", ".join(its)}, expected {", ".join(classes)}')
    return found


def _classes(cfg: Config, checkpoint: Path) -> list[str]:
    """The names of a model's classes; a config of ``finetune`` is given them, in place."""
    source = str(checkpoint)
    return [one.name for one in fit_types(cfg, load_weights_only(source), source)]


def _seen_and_made(cfg: Config) -> dict[str, Any]:
    """What models whose predictions are averaged must have in common."""
    return {
        'pipeline': cfg.test_dataloader.dataset.pipeline,
        'size of masks': cfg.model.roi_head.mask_roi_extractor.roi_layer.output_size,
    }


def keep_predictions(cfg: Config, path: Path) -> None:
    """Let a test also write its predictions as mmdet's tools read them, in place."""
    evaluators = as_list(cfg.test_evaluator)
    cfg.test_evaluator = [*evaluators, dict(type='PredictionsMetric', out_file_path=str(path))]


def show_in_window(cfg: Config, score_thr: float, wait_time: float) -> None:
    """Let a test show every image with mmdet's own visualizer, in place."""
    cfg.default_hooks.visualization = dict(
        type='DetVisualizationHook', draw=True, show=True, wait_time=wait_time, score_thr=score_thr
    )
    cfg.visualizer = dict(type='DetLocalVisualizer', name='visualizer')


def choose_data(cfg: Config, args: argparse.Namespace) -> None:
    """Test on the data that is asked for, in place; says what is not as the config has it.

    Raises:
        UserError: a file or a folder is missing, or the truth is none.
    """
    notes: list[str | None] = []
    if args.fold is not None:
        notes += notes_on_offset(cfg, args.data_root, args.cfg_options)
    if args.data_root:
        config_edits.set_data_root(cfg, args.data_root)
    if args.fold is not None:
        folds.hold_out_fold(cfg, args.fold)
    if args.annotations:
        notes += set_test_data(cfg, args.annotations, args.images or args.annotations.parent)
    elif args.data_root and args.fold is None and not args.format_only:
        notes.append(test_on_training_images(cfg))
    is_other = bool(args.annotations or args.data_root) and args.fold is None
    if is_other and not args.format_only and TRUTH_OFFSET not in args.cfg_options:
        notes.append(leave_out_truth_offset(cfg))
    for note in filter(None, notes):
        print(note)


def write_answer(cfg: Config, ann_file: Path, out: Path) -> None:
    """Let a test write the competition's file instead of scores, in place.

    Raises:
        UserError: the model has several classes.
    """
    classes = (cfg.test_dataloader.dataset.get('metainfo') or {}).get('classes') or ('nucleus',)
    if len(classes) > 1:
        raise UserError(
            f'{cfg.filename}: has {len(classes)} classes, expected one: answer.json has '
            'category 1 for all nuclei'
        )
    cfg.test_evaluator = dict(type='SubmissionMetric', ann_file=str(ann_file), out=str(out))


def tell_of_other_data(cfg: Config, name: str) -> None:
    """Say if the work folder has scores by this name of images or truth unlike these."""
    scores = read_card(cfg.work_dir).get('scores')
    scored = scores.get(name) if isinstance(scores, dict) else None
    before = scored.get('data_sha256') if isinstance(scored, dict) else None
    if before is not None and before != digest_dataloader(cfg.test_dataloader):
        print(
            f'{cfg.work_dir}: the results of other data called {name} are replaced, '
            '--work-dir takes another folder'
        )


def leave_out_training(cfg: Config) -> None:
    """Leave out what a test does not need and whose data need not be there, in place."""
    # A checkpoint holds the averaged weights, and the hook would swap those of changed layers.
    cfg.custom_hooks = [hook for hook in cfg.custom_hooks if hook['type'] != 'EMAHook']
    for key in ('train_dataloader', 'val_dataloader', 'val_evaluator', 'train_cfg', 'val_cfg'):
        cfg[key] = None
    cfg.optim_wrapper = cfg.param_scheduler = None


def choose_outputs(cfg: Config, args: argparse.Namespace, ann_file: Path) -> Path | None:
    """Let a test write what is asked for, in place; the competition's file, if it is.

    Raises:
        UserError: the truth has no nuclei to score against, or no file can be written.
    """
    answer = None
    if args.format_only:
        answer = args.answer or Path(cfg.work_dir, 'answer.json')
        write_answer(cfg, ann_file, answer)
    elif not load_shared_json(ann_file)['annotations']:
        raise UserError(
            f'{ann_file}: has no nuclei to score against; --format-only writes answer.json, '
            '--fold N scores held-out training images'
        )
    check_evaluators(cfg)
    check_folder_is_writable(Path(cfg.work_dir))
    for evaluator in as_list(cfg.test_evaluator):
        if evaluator.type == 'NucleiMetric':
            evaluator.out = str(Path(cfg.work_dir, f'{ann_file.stem}_results.json'))
    return answer


def choose_pictures(cfg: Config, args: argparse.Namespace) -> None:
    """Let a test draw the nuclei or keep its predictions, where asked to, in place."""
    show_from = args.show_score_thr
    if show_from is None:
        show_from = score_threshold(cfg)
    if args.show_dir:
        cfg.custom_hooks.append(
            dict(type='OutlineHook', out_dir=str(args.show_dir), score_thr=show_from)
        )
    if args.show:
        show_in_window(cfg, show_from, args.wait_time)
    if args.out:
        keep_predictions(cfg, args.out)


@exit_code
def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    check_inputs(args)
    check_outputs(args)
    check_fraction('--show-score-thr', args.show_score_thr)
    config = find_config(args.config)
    cfg = config_edits.load_config(config, args.cfg_options, args.work_dir, args.fold)
    checkpoint = model_files(config, *args.checkpoints[:1])[1]
    if 'finetune' in cfg:  # before the data, whose truth is read by the model's classes
        fit_types(cfg, load_weights_only(str(checkpoint)), str(checkpoint))
    others = find_others(cfg, args, checkpoint)
    choose_data(cfg, args)  # last, as what it reads may leave a file
    config_edits.check_files(cfg, 'test_dataloader')
    check_keeps_inputs(args, cfg, [checkpoint, *(path for _, path in others)])
    if args.fold is not None and cfg.get('fold_colors'):
        fold_colors.use_training_colors(cfg)
    ann_file = Path(cfg.test_dataloader.dataset.data_root, cfg.test_dataloader.dataset.ann_file)
    answer = choose_outputs(cfg, args, ann_file)
    tell_of_other_data(cfg, ann_file.name)
    choose_pictures(cfg, args)
    if args.tta or others:
        use_views(cfg, args.config, args.tta, [(other.model, path) for other, path in others])
    if args.precision:
        cfg.custom_hooks.append(dict(type='InferencePrecisionHook', precision=args.precision))
    leave_out_training(cfg)
    cfg.load_from = str(checkpoint)
    config_edits.set_distributed(cfg, args.launcher)
    make_runner(cfg, args.config, 'test').test()
    config_edits.close_distributed()
    if answer:
        print(f'{answer} and {answer.with_suffix(".zip").name} written')
    return 0
