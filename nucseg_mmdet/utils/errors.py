"""What a user did wrong: one line on the terminal and exit code 2."""

import functools
import sys
from collections.abc import Callable
from pathlib import Path


class UserError(Exception):
    """Wrong input: the message names the file, what was found and what was expected.

    Several problems found together are several lines.
    """


def check_fraction(option: str, value: float | None) -> None:
    """Refuse the value of a command's option that is given and not from 0 to 1."""
    if value is not None and not 0 <= value <= 1:
        raise UserError(f'{option} {value}: expected 0 to 1')


def exit_code(main: Callable[..., int]) -> Callable[..., int]:
    """Let a tool's ``main`` end with exit code 2 and a plain message at a ``UserError``."""

    @functools.wraps(main)
    def wrapped(*args, **kwargs) -> int:
        try:
            return main(*args, **kwargs)
        except UserError as error:
            tool = Path(sys.modules[main.__module__].__file__).stem
            for line in str(error).splitlines():
                print(f'{tool}: {line}', file=sys.stderr)
            return 2

    return wrapped
