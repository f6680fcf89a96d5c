"""What the tools do to a config before they hand it to mmengine's ``Runner``."""

import re
import tempfile
from pathlib import Path

import torch
from mmengine.config import Config
from mmengine.runner.checkpoint import CheckpointLoader

from nucseg_mmdet.converters.folds import NUM_FOLDS
from nucseg_mmdet.engine.checkpoint import cached_download
from nucseg_mmdet.engine.config_checks import check_values
from nucseg_mmdet.engine.config_options import check_names
from nucseg_mmdet.engine.config_parts import EVALUATORS, LOADERS, find_datasets, find_steps, inner
from nucseg_mmdet.engine.model_zoo import find_config
from nucseg_mmdet.engine.work_dir import read_card
from nucseg_mmdet.structures.coco import check_truth, load_shared_json
from nucseg_mmdet.utils.errors import NO_SPACE, UserError, first_line
from nucseg_mmdet.utils.reading import check_file

MOST_CONFIG = 1 << 24  # bytes
FIRST_WEIGHT = {'ResNet': 'conv1.weight', 'EfficientNetLite': '_conv_stem.weight'}


def load_config(
    path: str | Path, options: dict, work_dir: Path | None, fold: int | None = None
) -> Config:
    """Read a config; the work folder is named like it and the fold, unless given.

    Args:
        path: or a name, as for ``model_zoo.find_config``.
        options: of ``--cfg-options``.
        work_dir: the work folder, if given.
        fold: likewise.

    Raises:
        UserError: there is none or it is none of a model, or an option does not fit it.
    """
    path = find_config(path)
    if path.suffix != '.py':  # mmengine's loader of YAML runs what is in it without a word
        raise UserError(f'{path}: expected a config, a .py file')
    check_file(path, MOST_CONFIG)
    try:
        cfg = Config.fromfile(path)
    # A config is Python, and any mistake may be in it.
    except (Exception, SystemExit) as error:
        # mmengine reads a copy.
        full = getattr(error, 'errno', None) in NO_SPACE
        way = f' by way of {tempfile.gettempdir()}' if full else ''
        raise UserError(f'{path}: not readable as a config{way} ({first_line(error)})') from None
    check_names(cfg, options, path)
    try:
        cfg.merge_from_dict(options)
    except (KeyError, IndexError, TypeError, ValueError) as error:
        given = ' '.join(options)
        raise UserError(
            f'--cfg-options {given}: does not fit {path} ({first_line(error)})'
        ) from None
    if not isinstance(cfg.get('model'), dict):
        raise UserError(f'{path}: has no model, expected an experiment and not a part of one')
    check_values(cfg, path)
    for key in LOADERS:
        loader = inner(cfg, key)
        if loader.get('num_workers') == 0:  # these want some
            loader.update(persistent_workers=False)
            loader.pop('prefetch_factor', None)
    if cfg.get('custom_hooks') is None:
        cfg.custom_hooks = []
    name = path.stem if fold is None else f'{path.stem}_fold{fold}'
    cfg.work_dir = str(work_dir or cfg.get('work_dir') or Path('work_dirs', name))
    return cfg


def set_data_root(cfg: Config, data_root: Path) -> None:
    """Move every data set and evaluator of a config to another folder, in place.

    Raises:
        UserError: the config does not say from which.
    """
    if not isinstance(cfg.get('data_root'), str):
        raise UserError(
            f'{cfg.filename}: has no data_root, expected one, below which its data sets are'
        )
    old, new = str(cfg.data_root).rstrip('/') + '/', f'{data_root}/'
    cfg.data_root = new
    for key in (*LOADERS, *EVALUATORS):
        _replace_prefix(cfg.get(key), old, new)


def _replace_prefix(node: object, old: str, new: str) -> None:
    for item in node if isinstance(node, list | tuple) else [node]:
        if not isinstance(item, dict):
            continue
        for key, value in item.items():
            if key in ('data_root', 'ann_file') and isinstance(value, str):
                if f'{value.rstrip("/")}/'.startswith(old):
                    item[key] = new + value[len(old) :]
            else:
                _replace_prefix(value, old, new)


def keep_empty_images(cfg: Config) -> None:
    """Train on images and crops without any nucleus as well, in place."""
    for dataset in find_datasets(cfg.get('train_dataloader')):
        dataset.filter_cfg = dict(dataset.get('filter_cfg') or {}, filter_empty_gt=False)
    for step in find_steps(cfg.get('train_dataloader')):
        if step['type'] == 'RandomCrop':
            step['allow_negative_crop'] = True
        elif step['type'] == 'FilterAnnotations':
            step['keep_empty'] = False  # which in mmdet keeps an image that becomes empty


def check_files(cfg: Config, needed: str, *others: str) -> None:
    """Check that the data of some dataloaders is there, and its annotations right.

    Args:
        cfg: the config.
        needed: a dataloader that must be there, such as ``train_dataloader``.
        others: those that may be there.

    Raises:
        UserError: an annotation file or an image folder is missing, or the file is no COCO truth.
    """
    if not find_datasets(cfg.get(needed)):
        raise UserError(
            f'{cfg.filename}: {needed} has no data set with ann_file and data_prefix, expected one'
        )
    for key in (needed, *others):
        for dataset in find_datasets(cfg.get(key)):
            try:
                root = Path(dataset.get('data_root') or '')
                paths = root / dataset.ann_file, root / dataset.data_prefix.img
            except (AttributeError, TypeError):
                raise UserError(
                    f'{cfg.filename}: data_root {dataset.get("data_root")!r:.50}, ann_file '
                    f'{dataset.ann_file!r:.50} and data_prefix {dataset.data_prefix!r:.50} of '
                    f'{key}, expected paths and dict(img=PATH)'
                ) from None
            for path in paths:
                if not path.exists():
                    raise UserError(_say_missing(path))
            check_truth(load_shared_json(paths[0]), str(paths[0]))


def _say_missing(path: Path) -> str:
    """Say that data is not there; of a fold, which folds there are."""
    fold = re.fullmatch(r'fold(\d+)_(train|val)\.json', path.name)
    if not fold or not path.with_name('train.json').is_file():
        return f'{path}: not there; nucseg prepare makes the data, --data names another folder'
    root, last = path.parent.parent, len(list(path.parent.glob('fold*_val.json')))
    if last:
        return f'--fold {fold[1]}: expected 1 to {last}, the folds of {root}'
    return (
        f'--fold {fold[1]}: {root} has no folds, which nucseg prepare makes of {NUM_FOLDS} images '
        'or more'
    )


def set_initial_weights(cfg: Config, choice: str | None, complete: bool = False) -> None:
    """Settle where the backbone starts from, in place.

    Args:
        cfg: whose backbone may want pretrained weights by one of mmdet's names.
        choice: path of a local file; 'none' for from scratch; 'fetch' to let mmengine
            download; by default the file must be in mmengine's cache already.
        complete: whether a checkpoint of the whole model follows, which leaves nothing of
            the initial weights.

    Raises:
        UserError: the weights are not on this machine and nobody asked to fetch them.
    """
    backbone = cfg.model.backbone
    wanted = (backbone.get('init_cfg') or {}).get('checkpoint')
    if choice == 'none':
        backbone.init_cfg = None
        # Frozen layers and statistics make sense with trained weights only.
        backbone.frozen_stages = -1
        backbone.norm_eval = False
        cfg.from_scratch = True
        if backbone.get('norm_cfg'):
            backbone.norm_cfg.requires_grad = True
    elif complete:
        backbone.init_cfg = None
    elif choice not in (None, 'fetch'):
        checkpoint = CheckpointLoader.load_checkpoint(choice, 'cpu')
        names = checkpoint.get('state_dict', checkpoint).keys()
        # The file of a whole detector with a ResNet serves too: its backbone is taken.
        kind = 'EfficientNetLite' if backbone.get('type') == 'EfficientNetLite' else 'ResNet'
        first = FIRST_WEIGHT[kind]
        prefix = 'backbone.' if f'backbone.{first}' in names else ''
        if f'{prefix}{first}' not in names:
            raise UserError(f'{choice}: no weights of {kind}, expected {first} and others')
        backbone.init_cfg = dict(type='Pretrained', checkpoint=choice, prefix=prefix or None)
    elif wanted and choice is None and not _is_local(wanted):
        raise UserError(
            f'initial weights {wanted} are not on this machine: --initial-weights FILE takes a '
            'local file, --initial-weights none trains from scratch, fetch downloads them'
        )


def earlier_choice(work_dir: str) -> str | None:
    """What the run in a work folder started with: 'none' if from scratch, else None."""
    return 'none' if read_card(work_dir).get('from_scratch') else None


def _is_local(checkpoint: str) -> bool:
    """Whether mmengine finds weights without network: a file, or in torch hub's cache."""
    path = checkpoint.removeprefix('detectron2://')
    if '://' not in path:
        return Path(path).expanduser().is_file()
    return cached_download(checkpoint)[1].is_file()


def set_mixed_precision(cfg: Config) -> None:
    """Train in float16 with scaled gradients on a GPU, in bfloat16 on a CPU, in place."""
    if torch.cuda.is_available():
        cfg.optim_wrapper.type = 'AmpOptimWrapper'
        cfg.optim_wrapper.loss_scale = 'dynamic'
    else:
        cfg.optim_wrapper.type = 'BFloat16OptimWrapper'


def set_distributed(cfg: Config, launcher: str) -> None:
    """Let several processes run on a machine without a GPU too, in place.

    mmengine sets a CUDA device for every process; on a CPU the process group is opened here
    and the model is wrapped without one.
    """
    cfg.launcher = launcher
    if launcher == 'none' or torch.cuda.is_available():
        return
    if launcher != 'pytorch':
        raise UserError(f'--launcher {launcher}: needs a GPU, expected pytorch on a CPU')
    torch.distributed.init_process_group('gloo')
    cfg.model_wrapper_cfg.device_ids = None


def close_distributed() -> None:
    """Let the processes end together: one that is gone early makes gloo abort the others."""
    if torch.distributed.is_initialized():
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()
