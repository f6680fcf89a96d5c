"""The first lines of a script, before its imports, which take seconds and may fail."""

import os
import signal
import sys
from pathlib import Path
from types import TracebackType

from nucseg_mmdet.utils.errors import DEBUG, say_missing


def start_script() -> None:
    """Let Ctrl-C and a library that is not installed end a script without a traceback.

    Called before its imports; ``errors.exit_code`` minds both itself from the start of ``main`` on.
    """
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    sys.excepthook = _end


def _end(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """End the script where nothing has caught an error."""
    line = say_missing(error)
    if line is None or os.environ.get(DEBUG) == '1':
        sys.__excepthook__(kind, error, trace)
    if line is not None:
        print(f'{Path(sys.argv[0]).stem}: {line}', file=sys.stderr)
        raise SystemExit(2)
