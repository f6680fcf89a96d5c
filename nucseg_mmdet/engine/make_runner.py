"""A run of MMEngine, or what is wrong with its config."""

from pathlib import Path

from mmengine.config import Config
from mmengine.runner import Runner

from nucseg_mmdet.utils.errors import UserError


def make_runner(cfg: Config, path: Path, loop: str) -> Runner:
    """Build all that a config names for a run, before the run.

    Args:
        cfg: of the run.
        path: of the config, for the message.
        loop: 'train' or 'test'.

    Raises:
        UserError: something cannot be built, such as a class that there is none of, or a length is
            no length.
    """
    lengths = cfg.train_cfg or {}
    for key in ('max_iters', 'max_epochs'):
        if lengths.get(key, 1) < 1:
            raise UserError(f'{path}: train_cfg.{key} is {lengths[key]}, expected 1 or more')
    try:
        runner = Runner.from_cfg(cfg)
        getattr(runner, f'{loop}_loop')  # builds the data as well
    except (UserError, OSError, MemoryError):
        raise
    except Exception as error:  # of any library whose classes the config names
        first = (str(error).splitlines() or [''])[0]
        raise UserError(
            f'{path}: no run can be made of it, {type(error).__name__}: {first:.300} '
            '(NUCSEG_DEBUG=1 shows where)'
        ) from error
    return runner
