"""Which names ``--cfg-options`` may set: a misspelt one would change nothing, without a word."""

import difflib
import inspect
from pathlib import Path

from mmengine.config import Config
from mmengine.runner import Runner

from nucseg_mmdet.utils.errors import UserError

# What MMEngine's Runner reads of a config beside its own arguments, and what this project reads.
READ_BY_RUNNER = {
    'activation_checkpointing',
    'compile',
    'efficient_conv_bn_eval',
    'find_unused_parameters',
    'model_wrapper_cfg',
    'sync_bn',
}
READ_HERE = {'fold_colors', 'tta_model', 'tta_pipeline'}
# By ``folds.hold_out_fold``.
COPIED = {'val_dataloader': 'test_dataloader', 'val_evaluator': 'test_evaluator'}


def check_names(cfg: Config, options: dict, path: Path) -> None:
    """Refuse what nothing reads: new top-level names, and new ones under ``finetune``.

    What a fold is validated with is a copy of what the test has, so that there is nothing to set.

    Deeper names are arguments of registered classes, which refuse what they do not know.

    Args:
        cfg: as it is in its file.
        options: of ``--cfg-options``.
        path: of the config, for the message.

    Raises:
        UserError: as said.
    """
    arguments = set(inspect.signature(Runner).parameters) - {'cfg'}
    known = {*cfg, *arguments, *READ_BY_RUNNER, *READ_HERE}
    for option in options:
        name, _, inner = option.partition('.')
        if name not in known:
            close = difflib.get_close_matches(name, known, 1)
            raise UserError(
                f'--cfg-options {option}: {path} has no {name}, expected a name that it has'
                + (f', such as {close[0]}' if close else '')
            )
        if inner and name in COPIED and cfg.get(name) is None:
            raise UserError(
                f'--cfg-options {option}: {path} has no {name}, it is a copy of {COPIED[name]} '
                f'where a fold is held out; expected {COPIED[name]}.{inner}'
            )
        if name == 'finetune':
            names = [f'finetune.{one}' for one in cfg.finetune]
            if option not in names:
                raise UserError(f'--cfg-options {option}: expected one of {", ".join(names)}')
