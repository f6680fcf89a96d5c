"""Values of a config that its run would meet late, or not as meant: they are refused before."""

import math
from pathlib import Path

from mmengine.config import Config

from nucseg_mmdet.engine.config_parts import LOADERS, find_datasets, inner
from nucseg_mmdet.utils.errors import UserError

MOST_OFFSET = 100  # px, of truth: a nucleus has 5 to 60


def check_values(cfg: Config, path: Path) -> None:
    """Refuse odd numbers and a test of several data sets; a ``truth_offset`` of None is none.

    Args:
        cfg: with the options of the command line.
        path: of the config, for the message.

    Raises:
        UserError: as said.
    """
    _check_test(cfg, path)
    for key in LOADERS:
        loader = inner(cfg, key)
        _check_number(loader, 'batch_size', 1, f'{path}: {key}')
        _check_number(loader, 'num_workers', 0, f'{path}: {key}')
    _check_lengths(cfg, path)


def _check_lengths(cfg: Config, path: Path) -> None:
    """Refuse odd lengths, intervals and rates of a training."""
    for key in ('max_iters', 'max_epochs', 'val_interval'):
        _check_length(inner(cfg, 'train_cfg'), key, 1, f'{path}: train_cfg')
    checkpoints = inner(cfg, 'default_hooks', 'checkpoint')
    if checkpoints.get('interval') != -1:  # mmengine's for none
        _check_length(checkpoints, 'interval', 1, f'{path}: default_hooks.checkpoint')
    schedule = cfg.get('param_scheduler')
    for number, scheduler in enumerate(schedule if isinstance(schedule, list) else []):
        for key in ('begin', 'end') if isinstance(scheduler, dict) else ():
            _check_length(scheduler, key, 0, f'{path}: param_scheduler.{number}')
    rate = inner(cfg, 'optim_wrapper', 'optimizer').get('lr', 1)
    if type(rate) not in (int, float) or not 0 < rate < math.inf:
        raise UserError(
            f'{path}: optim_wrapper.optimizer.lr is {rate!r:.50}, expected a number above 0'
        )


def _check_length(part: dict, key: str, least: int, name: str) -> None:
    """As ``_check_number``, but 2e4 is a number of iterations as well."""
    value = part.get(key)
    whole = {key: int(value)} if type(value) is float and value.is_integer() else part
    _check_number(whole, key, least, name)


def _check_number(part: dict, key: str, least: int, name: str) -> None:
    """Refuse what is no whole number from ``least`` on; a key that is not there is fine."""
    value = part.get(key, least)
    if type(value) is not int or value < least:
        raise UserError(f'{name}.{key} is {value!r:.50}, expected a number from {least} on')


def _check_test(cfg: Config, path: Path) -> None:
    """Refuse a test of several data sets, and an odd ``truth_offset``; None is none.

    Raises:
        UserError: as said.
    """
    dataset = inner(cfg, 'test_dataloader', 'dataset')
    if 'ann_file' not in dataset and find_datasets(dataset):
        raise UserError(
            f'{path}: test_dataloader has a {dataset.get("type")}, expected one data set; '
            'nucseg test --annotations tests on another'
        )
    rcnn = inner(cfg, 'model', 'test_cfg', 'rcnn')
    offset = rcnn.get('truth_offset', (0.0, 0.0))
    if offset is None:
        del rcnn.truth_offset
    elif not isinstance(offset, list | tuple) or [*map(_is_offset, offset)] != [True, True]:
        raise UserError(
            f'{path}: model.test_cfg.rcnn.truth_offset is {offset!r:.60}, expected x,y of at most '
            f'{MOST_OFFSET} px'
        )


def _is_offset(value: object) -> bool:
    return type(value) in (int, float) and math.isfinite(value) and abs(value) <= MOST_OFFSET
