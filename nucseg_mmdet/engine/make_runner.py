"""A run of MMEngine, or what is wrong with its config."""

import contextlib
import copy
import itertools
from collections.abc import Iterator
from pathlib import Path

from mmengine.config import Config
from mmengine.runner import Runner

from nucseg_mmdet.utils.errors import UserError, first_line

_numbers = itertools.count()


def make_runner(cfg: Config, path: Path, loop: str) -> Runner:
    """Build all that a config names for a run, before the run.

    Args:
        cfg: of the run.
        path: of the config, for the message.
        loop: 'train' or 'test'.

    Raises:
        UserError: something cannot be built, such as a class that there is none of.
    """
    with telling_of_config(path):
        runner = Runner.from_cfg(_named(cfg, next(_numbers)))
        getattr(runner, f'{loop}_loop')  # builds the data as well
    return runner


@contextlib.contextmanager
def telling_of_config(path: Path) -> Iterator[None]:
    """Name the config whose parts are built in a block, if one cannot be.

    Raises:
        UserError: as said.
    """
    try:
        yield
    except (UserError, OSError, MemoryError):
        raise
    except Exception as error:  # of any library whose classes the config names
        raise UserError(
            f'{path}: no run can be made of it, {type(error).__name__}: {first_line(error)} '
            '(NUCSEG_DEBUG=1 shows where)'
        ) from error


def _named(cfg: Config, number: int) -> Config:
    """The config with a name that no other run of this process has.

    MMEngine names a run by its config and the second it starts in. A second run of that name would
    get the log, the counts and the default scope of the first.
    """
    if number == 0:
        return cfg
    cfg = copy.deepcopy(cfg)
    cfg.experiment_name = f'{cfg.get("experiment_name") or Path(cfg.filename).stem}_{number}'
    return cfg
