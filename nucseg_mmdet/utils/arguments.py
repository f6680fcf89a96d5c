"""The command lines of all commands and tools: what is wrong with one is told in one line."""

import argparse
import sys
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import NoReturn

from nucseg_mmdet.utils.errors import UserError


class ArgumentParser(argparse.ArgumentParser):
    """argparse's, which raises ``UserError`` and not ``SystemExit``, without the usage.

    Call it in a ``main`` that has ``exit_code``. An empty value, as of a shell's variable that is
    not set, is refused: ``Path('')`` is the current folder. An option that may be empty has the
    type ``str``.

    Attributes:
        dashed: options whose value may begin with a dash, such as ``--slurm --partition=gpu``,
            which argparse takes for another option.
    """

    dashed: tuple[str, ...] = ()

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.register('type', None, _text)
        self.register('type', Path, _path)
        self.register('type', int, partial(_number, int, 'whole number', '4'))
        self.register('type', float, partial(_number, float, 'number', '0.25'))

    # argparse's own takes any object as the namespace.
    def parse_known_args(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, args: Iterable[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        known = {'--', *self._option_string_actions}
        words: list[str] = []
        for word in sys.argv[1:] if args is None else args:
            is_value = word.startswith('-') and word.partition('=')[0] not in known
            if is_value and '--' not in words and words and words[-1] in self.dashed:
                words[-1] += f'={word}'
            else:
                words.append(word)
        if namespace is None:
            namespace = argparse.Namespace()
        return super().parse_known_args(words, namespace)

    def error(self, message: str) -> NoReturn:
        raise UserError(message.removeprefix('argument '))


def summary_of(docstring: str | None) -> str:
    """The first line of a docstring; empty where Python keeps none, as with ``-OO``."""
    return (docstring or '').partition('\n')[0]


def _text(text: str) -> str:
    if not text:
        raise argparse.ArgumentTypeError('is empty, expected a value')
    return text


def _path(text: str) -> Path:
    if not text:
        raise argparse.ArgumentTypeError('is empty, expected a file or a folder')
    return Path(text)


def _number(kind: type[int] | type[float], name: str, example: str, text: str) -> float:
    try:
        return kind(text)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f'{text or "nothing"} is no {name}, expected one such as {example}'
        ) from None
