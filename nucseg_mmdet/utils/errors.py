"""What goes wrong in a command: one line on the terminal and an exit code.

0 done, 1 done but for some of the inputs, 2 not done, 130 stopped by Ctrl-C or SIGTERM. With
NUCSEG_DEBUG=1 in the environment the place in the code is shown as well.
"""

import errno
import functools
import io
import logging
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from nucseg_mmdet.utils.processes import workers_end_with_us

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer

WIDEST = 500  # characters of a line
FEW = 10  # of many lines that say the like
FEW_NAMES = 5  # of many names in a line
DEBUG = 'NUCSEG_DEBUG'
# What a command needs beyond the plain installation, and the extra that brings it.
EXTRAS: dict[str, str] = dict.fromkeys(('torch', 'mmengine', 'mmcv', 'mmdet'), 'train')
EXTRAS |= dict.fromkeys(('starlette', 'uvicorn'), 'view') | {'openvino': 'slides'}
NO_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}


class UserError(Exception):
    """Wrong input: the message names the file, what was found and what was expected.

    Args:
        *lines: of several problems found together one each. A line feed within, as of a file's
            name, is shown as ``\\n``.
    """

    def __str__(self) -> str:
        return '\n'.join(str(line) for line in self.args)


def check_fraction(option: str, value: float | None) -> None:
    """Check the value of a command's option, if it is given.

    Raises:
        UserError: it is not from 0 to 1.
    """
    if value is not None and not 0 <= value <= 1:
        raise UserError(f'{option} {value}: expected 0 to 1')


def few(lines: Sequence[str]) -> Sequence[str]:
    """The first of many lines, and how many more there are."""
    more = len(lines) - FEW
    return lines if more <= 1 else [*lines[:FEW], f'... and {more:,} more']


def some(names: Sequence[str]) -> str:
    """The first of many names in a line, and how many more there are."""
    more = f' and {len(names) - FEW_NAMES:,} more' if len(names) > FEW_NAMES else ''
    return ', '.join(names[:FEW_NAMES]) + more


def counted(number: int, one: str, several: str | None = None) -> str:
    """A number of things, such as ``1 image`` and ``1,200 images``.

    Args:
        number: of them.
        one: name of one.
        several: name of more, or of none, by default with an s at the end.
    """
    return f'{number:,} {one if number == 1 else several or f"{one}s"}'


def count_nuclei(number: int) -> str:
    """A number of nuclei, as people are told it."""
    return counted(number, 'nucleus', 'nuclei')


def printable(text: str) -> str:
    """Escape what a terminal would act on, as file names may hold it."""
    return ''.join(
        letter if letter.isprintable() else letter.encode('unicode_escape').decode()
        for letter in text
    )


def first_line(error: BaseException) -> str:
    """The first line of what an error says, cut to 300 letters, or else the name of its kind."""
    return (str(error).splitlines() or [''])[0][:300] or type(error).__name__


def say_missing(error: BaseException) -> str | None:
    """Tell of a library that one of the extras brings; None for any other error."""
    library = (getattr(error, 'name', None) or '').partition('.')[0]
    if not isinstance(error, ModuleNotFoundError) or library not in EXTRAS:
        return None
    extra = f"pip install 'nucseg-mmdet[{EXTRAS[library]}]'"
    return f'{library} is not installed, expected it: {extra}, see docs/install.md'


def say_unforeseen(error: BaseException) -> str:
    """Tell of an error that nobody foresaw, in one line."""
    if isinstance(error, MemoryError):
        return 'needs more memory than there is'
    if isinstance(error, OSError) and error.strerror:
        name = error.filename2 or error.filename  # of two the one that is written
        if error.errno in NO_SPACE:
            return f'{name or "a file"}: cannot be written ({error.strerror})'
        return f'{name}: {error.strerror}' if name else error.strerror
    if missing := say_missing(error):
        return missing
    return f'unforeseen {type(error).__name__}: {first_line(error)} ({DEBUG}=1 shows where)'


def describe(error: Exception) -> str:
    """Tell in a line what is wrong, foreseen or not."""
    if os.environ.get(DEBUG) == '1':
        traceback.print_exception(error)
    return str(error) if isinstance(error, UserError) else say_unforeseen(error)


def _lines(error: Exception) -> list[str]:
    text = describe(error)
    return [str(line) for line in error.args] if isinstance(error, UserError) else [text]


def describe_item(name: object, error: Exception) -> str:
    """Tell in a line what is wrong with one of many inputs; the message of a UserError names it."""
    text = describe(error)
    return text if isinstance(error, UserError) else f'{name}: {text}'


def exit_code(main: Callable[..., int]) -> Callable[..., int]:
    """Let the ``main`` of a command end with an exit code and a plain message, whatever happens."""

    @functools.wraps(main)
    def wrapped(*args, **kwargs) -> int:
        _open_outputs()
        workers_end_with_us()
        logging.raiseExceptions = False  # a log that finds no space is cut, without tracebacks
        tool = Path(sys.modules[main.__module__].__file__ or '').stem
        tool = 'nucseg' if tool == 'cli' else tool
        with _Stop() as stop:
            try:
                try:
                    return main(*args, **kwargs)
                finally:
                    sys.stdout.flush()
            except KeyboardInterrupt:
                lines, code = ['stopped'], 130
            except Exception as error:
                # A library, or who called it, may have made another error of our KeyboardInterrupt.
                lines, code = (['stopped'], 130) if stop.asked else (_lines(error), 2)
        for line in lines:
            print(f'{tool}: {printable(line)[:WIDEST]}', file=sys.stderr)
        return code

    return wrapped


class _Stop:
    """While this lasts, Ctrl-C and SIGTERM raise KeyboardInterrupt, which is remembered.

    Attributes:
        asked: whether one of them came.
    """

    asked = False

    def __enter__(self) -> '_Stop':
        self._before = {}
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                # As it was: one that is ignored, as of a command in the background, stays so.
                if signal.getsignal(number) not in (signal.SIG_IGN, None):
                    self._before[number] = signal.signal(number, self._stop)
        return self

    def __exit__(self, *_: object) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        raise KeyboardInterrupt


class _Heedless(io.FileIO):
    """An output that may be closed at its other end, as by ``| head -1``: the work goes on.

    Any other failure, such as a full disk, is told once, and what follows is lost.
    """

    _failed = False

    def write(self, data: 'ReadableBuffer') -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            return memoryview(data).nbytes
        except OSError:
            if self._failed:
                return memoryview(data).nbytes
            self._failed = True
            raise


def _open_outputs() -> None:
    """Let no name that is printed and no closed output end the work."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:  # closed, so that the next file would get its number
            os.open(os.devnull, os.O_RDWR)
    for name, number in (('stdout', 1), ('stderr', 2)):
        stream = getattr(sys, name)
        if stream is None or (stream is getattr(sys, f'__{name}__') and hasattr(stream, 'fileno')):
            if stream is not None:
                stream.flush()
            raw = _Heedless(number, 'w', closefd=False)
            text = io.TextIOWrapper(
                io.BufferedWriter(raw),
                encoding=getattr(stream, 'encoding', None) or 'utf-8',
                errors='backslashreplace',
                line_buffering=number == 2 or os.isatty(number),
            )
            setattr(sys, name, text)
