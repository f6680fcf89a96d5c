"""Reading checkpoints without running what is in them.

mmengine falls back to a full unpickling where ``weights_only`` refuses a file, and on
``--resume`` runs ``meta['config']`` as Python. The loader here is registered for plain
paths in mmengine's own table of loaders, so that ``load_from``, ``init_cfg`` and
``--resume`` all go through it; it refuses instead.
"""

import pickle
import re
from pathlib import Path

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from mmengine.runner.checkpoint import CheckpointLoader

from nucseg_mmdet.errors import UserError


def _history_method(owner: object, name: str) -> object:
    """Stand in for ``getattr``, which mmengine's curves of the log are pickled with."""
    if owner is not HistoryBuffer:
        raise pickle.UnpicklingError(f'getattr of {owner!r}')
    return getattr(HistoryBuffer, name)


# What mmengine's checkpoints hold beside tensors: the curves of the log. mmengine's own
# list admits all of ``getattr``, which reaches much further.
SAFE_GLOBALS = [
    HistoryBuffer,
    (_history_method, 'builtins.getattr'),
    np.ndarray,
    np.dtype,
    np._core.multiarray._reconstruct,
    np._core.multiarray.scalar,
    np.dtypes.Float64DType,
    np.dtypes.Int64DType,
    np.dtypes.UInt32DType,
]


@CheckpointLoader.register_scheme(prefixes='', force=True)
def load_weights_only(filename: str, map_location: str | torch.device | None = None) -> dict:
    """Load a checkpoint file, tensors and plain containers only.

    Args:
        filename: path of a ``.pth`` that torch or mmengine wrote.
        map_location: as for ``torch.load``.

    Raises:
        UserError: no such file, no checkpoint, or it holds more than weights.
    """
    path = Path(filename).expanduser()
    if not path.is_file():
        raise UserError(f'{path}: no such checkpoint')
    try:
        with torch.serialization.safe_globals(SAFE_GLOBALS):
            checkpoint = torch.load(path, map_location=map_location, weights_only=True)
    except pickle.UnpicklingError as error:
        named = re.search(r'GLOBAL (\S+)', str(error))
        found = f'holds {named[1]}' if named else 'no checkpoint'
        raise UserError(f'{path}: {found}, expected weights and plain values alone') from None
    except (RuntimeError, EOFError, OSError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f'{path}: not readable as a checkpoint ({reason})') from None
    if not isinstance(checkpoint, dict):
        raise UserError(f'{path}: {type(checkpoint).__name__}, expected a checkpoint dictionary')
    if isinstance(checkpoint.get('meta'), dict):
        checkpoint['meta'].pop('config', None)
    return checkpoint
