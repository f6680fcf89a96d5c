"""What a run card says to prove its row: code, settings, data, weights and command.

No path of the machine is in it: paths are relative to the current folder, or names alone.
"""

import hashlib
import math
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config

import nucseg_mmdet
from nucseg_mmdet.engine.checkpoint import cached_download
from nucseg_mmdet.engine.config_parts import find_datasets
from nucseg_mmdet.evaluation.run_cards import digest_data
from nucseg_mmdet.utils.errors import UserError
from nucseg_mmdet.utils.reading import open_file

TRAINING = (
    *('model', 'train_dataloader', 'test_dataloader', 'optim_wrapper', 'param_scheduler'),
    *('train_cfg', 'custom_hooks', 'randomness', 'auto_scale_lr'),
)
TEST = ('model', 'test_dataloader')
# Which data and weights (the card has their digests), how they are read, and when is validated.
WITHOUT_EFFECT = {
    *('data_root', 'ann_file', 'data_prefix', 'init_cfg', 'backend_args'),
    *('num_workers', 'persistent_workers', 'pin_memory', 'prefetch_factor', 'val_interval'),
}
# They watch, or act on what is no part of the result.
WATCHING_HOOKS = {
    *('RunCardHook', 'StopAtNonFiniteLossHook', 'RefuseUnfitCheckpointHook', 'RandomStateHook'),
    *('OutlineHook', 'EnsembleHook', 'InferencePrecisionHook'),
}
# Of ``--amp``, which the card tells as ``precision``.
AMP = ('optim_wrapper.type', 'optim_wrapper.loss_scale')
PRECISIONS = {'OptimWrapper': 'fp32', 'BFloat16OptimWrapper': 'bf16', 'AmpOptimWrapper': 'fp16'}
ROOT = Path(nucseg_mmdet.__file__).resolve().parents[1]
# The code that a result depends on, in a checkout.
CODE = ('nucseg_mmdet', 'configs', 'tools')


def settings(cfg: Config, parts: Sequence[str]) -> dict[str, Any]:
    """List what a config sets, as far as the result depends on it.

    Args:
        cfg: after all options.
        parts: keys of the config, such as ``TRAINING``.

    Returns:
        From dotted keys, such as ``train_cfg.max_iters``, to values that JSON has.
    """
    chosen = {part: cfg[part] for part in parts if cfg.get(part) is not None}
    if 'custom_hooks' in chosen:
        hooks = chosen['custom_hooks']
        chosen['custom_hooks'] = [one for one in hooks if one['type'] not in WATCHING_HOOKS]
    found = {key: value for part, node in chosen.items() for key, value in _leaves(node, part)}
    return {key: found[key] for key in found if key not in AMP}


def differing_keys(found: dict[str, Any], expected: dict[str, Any]) -> list[str]:
    """The keys, in order, under which two results of ``settings`` differ."""
    keys = sorted({*found, *expected})
    return [key for key in keys if found.get(key, ...) != expected.get(key, ...)]


def test_settings(cfg: Config) -> dict[str, Any]:
    """``settings`` that the result of a test depends on; of an ensemble, those of its first model.

    Whether it looks at several views stands in its pipeline.
    """
    plain = Config(dict(model=model_of(cfg), test_dataloader=cfg.test_dataloader))
    return settings(plain, TEST)


def model_of(cfg: Config) -> dict:
    """The model of a config; with several views or models, the one in their midst."""
    return cfg.model.get('module') or cfg.model


def _leaves(node: Any, name: str) -> Iterator[tuple[str, Any]]:
    """The values under a node with their dotted keys; lists of numbers and texts stay whole."""
    if isinstance(node, list | tuple) and any(
        isinstance(item, dict | list | tuple) for item in node
    ):
        node = dict(enumerate(node))
    if isinstance(node, dict) and node:
        for key, value in node.items():
            if key not in WITHOUT_EFFECT:
                yield from _leaves(value, f'{name}.{key}')
    elif isinstance(node, list | tuple):
        yield name, [_plain(item) for item in node]
    else:
        yield name, _plain(node)


def _plain(value: Any) -> Any:
    """A value as JSON gives it back."""
    if isinstance(value, float) and not math.isfinite(value):
        return repr(value)
    return value if isinstance(value, bool | int | float | str | dict | None) else repr(value)


def precision(cfg: Config) -> str:
    """Say in which precision a config trains: 'fp32', 'bf16' or 'fp16'."""
    kind = (cfg.get('optim_wrapper') or {}).get('type', 'OptimWrapper')
    return PRECISIONS.get(kind, str(kind))


def device() -> str:
    """The name of the GPU that a run takes, or 'CPU'."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else 'CPU'


def commit(root: Path = ROOT) -> str:
    """Say which code runs.

    Args:
        root: of the checkout, if it is one.

    Returns:
        The commit of the project, with ``+changes`` where its code is not as committed; of an
        installed package, or where git is missing, its version.
    """
    version = f'version {nucseg_mmdet.__version__}'
    if not (root / 'pyproject.toml').is_file():
        return version  # and whatever repository it may be installed in is none of its own
    git = ['git', '-C', str(root)]
    try:
        found = _output([*git, 'rev-parse', 'HEAD'])
        changed = _output([*git, 'status', '--porcelain', '--', *CODE])
    except (OSError, subprocess.SubprocessError):
        return version
    return f'{found}+changes' if changed else found


def _output(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    return done.stdout.strip()


def command(argv: Sequence[str] | None = None) -> str:
    """The command line of this process, without the machine's folders."""
    return ' '.join(_without_folders(argument) for argument in argv or sys.argv)


def _without_folders(argument: str) -> str:
    key, equals, value = argument.rpartition('=')
    return f'{key}{equals}{short_path(value)}' if os.path.isabs(value) else argument


def short_path(path: str | Path) -> str:
    """A path relative to the current folder where it is inside of it, else its last name.

    Addresses, such as ``open-mmlab://...``, stay as they are.
    """
    text = str(path)
    return text if '://' in text else inner_path(text) or os.path.basename(text)


def inner_path(path: str | Path) -> str | None:
    """A path relative to the current folder, None where it is not inside of it."""
    relative = os.path.relpath(path)
    return None if relative.split(os.sep)[0] == os.pardir else relative


def digest(path: str | Path) -> str | None:
    """SHA-256 of a file of weights, or of one in the cache for an address; None without a file."""
    sha256 = hashlib.sha256()
    try:
        file = cached_download(str(path))[1] if '://' in str(path) else Path(path).expanduser()
        with open_file(file) as opened:
            while block := opened.read(1 << 20):
                sha256.update(block)
    except UserError:
        return None
    return sha256.hexdigest()


def digest_dataloader(dataloader: dict | None) -> str | None:
    """Digest of the annotation files of a dataloader and of the names and sizes of their images.

    The images are not read, so that a large data set costs no time.

    Args:
        dataloader: of a config.

    Returns:
        SHA-256, hexadecimal; None without annotation files.

    Raises:
        UserError: an annotation file cannot be read.
    """
    sets = []
    for dataset in find_datasets(dataloader):
        root = Path(dataset.get('data_root') or '')
        sets.append((root / dataset.ann_file, root / dataset.data_prefix.img))
    return digest_data(sets) if sets else None
