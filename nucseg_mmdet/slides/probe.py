"""Which slides OpenSlide can open without breaking down, found out in a process of its own.

A damaged slide can make OpenSlide end its process, which no exception tells of. ``vendor_of``
asks another process, which is started once and ends with this one.
"""

import atexit
import json
import os
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import openslide

from nucseg_mmdet.utils.errors import UserError

PATIENCE = 60  # s for the opening of a slide
# Modules of the folder that is worked in, which may be anyone's, have no part in it.
SERVE = f'import sys; sys.path[:] = filter(None, sys.path); import {__name__} as it; it.serve()'


class _Child:
    """A process that opens slides, one after the other."""

    def __init__(self) -> None:
        self.parent = os.getpid()
        self._process = subprocess.Popen(
            [sys.executable, '-c', SERVE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**os.environ, 'PYTHONPATH': os.pathsep.join(filter(None, sys.path))},
        )
        if self._process.stdin is None or self._process.stdout is None:
            raise RuntimeError('the process was started without pipes')
        self._paths, self._answers = self._process.stdin, self._process.stdout
        atexit.register(self.end)

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        with suppress(BrokenPipeError):
            self._paths.close()
        self._answers.close()

    def ask(self, path: Path) -> dict | None:
        """The answer for a path; None if the process broke down or took too long.

        The process stays in the folder that it began in, this one may be in another by now.
        """
        watch = threading.Timer(PATIENCE, self._process.kill)
        watch.start()
        try:
            self._paths.write(json.dumps(os.path.abspath(path)).encode() + b'\n')
            self._paths.flush()
            answer = self._answers.readline()
        except BrokenPipeError:
            answer = b''
        finally:
            watch.cancel()
        if not answer:
            self.end()
        return json.loads(answer) if answer else None


_lock = threading.Lock()
_child: _Child | None = None


def vendor_of(path: Path) -> str | None:
    """The vendor of a slide that OpenSlide can open, None for what is no slide to it.

    Raises:
        UserError: it is one but damaged, so that OpenSlide cannot open it or breaks down.
    """
    global _child
    with _lock:
        if _child is None or _child.parent != os.getpid():
            _child = _Child()
        answer = _child.ask(path)
        if answer is None:
            _child = None
            raise UserError(
                f'{path}: damaged, OpenSlide breaks down when it opens it, expected a whole slide'
            )
    if 'error' in answer:
        raise UserError(
            f'{path}: OpenSlide cannot open it ({answer["error"]}), expected a whole slide'
        )
    return answer['vendor']


def _answer(path: str) -> dict:
    try:
        vendor = openslide.OpenSlide.detect_format(path)
        if vendor and vendor != 'generic-tiff':
            with openslide.OpenSlide(path) as slide:
                for level in range(slide.level_count):
                    with suppress(openslide.OpenSlideError):  # told where it is read for good
                        slide.read_region((0, 0), level, (1, 1))
    except openslide.OpenSlideError as error:
        return dict(error=str(error))
    return dict(vendor=vendor)


def serve() -> None:
    """Answer each path of the standard input, a line of JSON for a line of JSON."""
    for line in sys.stdin:
        print(json.dumps(_answer(json.loads(line))), flush=True)
