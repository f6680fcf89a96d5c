"""The options of ``--cfg-options``: those that would change nothing are refused."""

import argparse
import difflib
import inspect
from collections.abc import Iterator
from pathlib import Path

from mmengine.config import Config, DictAction
from mmengine.runner import Runner

from nucseg_mmdet.utils.errors import UserError, some

# What a config may have besides the arguments of a Runner.
READ_AS_WELL = ('fold_colors', 'from_scratch', 'tta_model', 'tta_pipeline', 'model_wrapper_cfg')
READ_AS_WELL += ('compile', 'sync_bn', 'activation_checkpointing', 'efficient_conv_bn_eval')
READ_AS_WELL += ('find_unused_parameters',)
READ = (*inspect.signature(Runner).parameters, *READ_AS_WELL)
COPIED = dict(val_dataloader='test_dataloader', val_evaluator='test_evaluator')


class ConfigOptions(DictAction):
    """mmengine's ``--cfg-options``, with a line for one that is no ``KEY=VALUE``."""

    def __call__(
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: list, *rest
    ) -> None:
        odd = [value for value in values if '=' not in value]
        if odd:
            parser.error(f'--cfg-options {odd[0]}: expected KEY=VALUE')
        super().__call__(parser, namespace, values, *rest)


def check_names(cfg: Config, options: dict, path: Path) -> None:
    """Refuse options under a name that nothing reads: mmengine would take any.

    Args:
        cfg: before the options.
        options: of ``--cfg-options``.
        path: of the config, for the message.

    Raises:
        UserError: as said.
    """
    for option in options:
        name, *inner = option.split('.')
        if name == 'data_root':  # a config has it in each of its data sets as well
            raise UserError(
                f'--cfg-options {option}={options[option]}: would move no data set, expected '
                f'--data-root {options[option]}'
            )
        if name in COPIED and cfg.get(name) is None and inner:
            raise UserError(
                f'--cfg-options {option}: with a fold {name} is that of the test, expected '
                f'{COPIED[name]}{option.removeprefix(name)}'
            )
        if name == 'finetune' in cfg:
            if option not in (names := [f'finetune.{key}' for key in cfg.finetune]):
                raise UserError(f'--cfg-options {option}: expected {", ".join(names)}')
        elif name in cfg and name not in READ:
            _check_is_read(cfg, path, name, inner)
        elif name not in READ:
            near = difflib.get_close_matches(name, [*cfg, *READ], 1)
            meant = near[0] if near else 'one of its names'
            raise UserError(f'--cfg-options {option}: {path} has no {name}, expected {meant}')


def _check_is_read(cfg: Config, path: Path, name: str, inner: list[str]) -> None:
    """Refuse a part that the config has put elsewhere; what is nowhere, a user's hook may read."""
    found = [f'{key}.{place}' for key in READ for place in _places(cfg.get(key), cfg[name])]
    if found:
        places = ['.'.join([place, *inner]) for place in found]
        raise UserError(
            f'--cfg-options {".".join([name, *inner])}: {path} has made use of {name} before it is '
            f'changed, expected {some(places)}'
        )


def _places(node: object, part: object) -> Iterator[str]:
    """Where in a part of a config another is: a list, or a dictionary, perhaps with more in it."""
    if not isinstance(part, dict | list) or not part:
        return
    for key in (
        node if isinstance(node, dict) else range(len(node)) if isinstance(node, list) else ()
    ):
        if _holds(node[key], part):
            yield str(key)
        else:
            yield from (f'{key}.{place}' for place in _places(node[key], part))


def _holds(node: object, part: object) -> bool:
    if not (isinstance(node, dict) and isinstance(part, dict)):
        return node == part
    if 'type' in part:  # as in dict(part, end=50): what was replaced is still made from it
        return node.get('type') == part['type'] and part.keys() <= node.keys()
    return all(key in node and _holds(node[key], value) for key, value in part.items())
