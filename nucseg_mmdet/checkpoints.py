"""Reading checkpoints without running what is in them.

mmengine falls back to a full unpickling where ``weights_only`` refuses a file, and on
``--resume`` runs ``meta['config']`` as Python. The loader here is registered for plain
paths in mmengine's own table of loaders, so that ``load_from``, ``init_cfg`` and
``--resume`` all go through it; it refuses instead.
"""

import pickle
from pathlib import Path

import torch
from mmengine.runner.checkpoint import CheckpointLoader, get_torch_safe_globals

from nucseg_mmdet.errors import UserError


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
        with torch.serialization.safe_globals(get_torch_safe_globals()):
            checkpoint = torch.load(path, map_location=map_location, weights_only=True)
    except pickle.UnpicklingError as error:
        reason = str(error).splitlines()[0]
        raise UserError(f'{path}: not a file of weights alone ({reason})') from None
    except (RuntimeError, EOFError, OSError, ValueError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f'{path}: not readable as a checkpoint ({reason})') from None
    if not isinstance(checkpoint, dict):
        raise UserError(f'{path}: {type(checkpoint).__name__}, expected a checkpoint dictionary')
    if isinstance(checkpoint.get('meta'), dict):
        checkpoint['meta'].pop('config', None)
    return checkpoint
