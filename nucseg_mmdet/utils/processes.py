"""Processes that this program starts: they end with it, and leave Ctrl-C to it."""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # of Linux's prctl


def become_worker() -> None:
    """Make the calling process one that ends with its parent, whatever ends that.

    Ctrl-C goes to all processes of a terminal; the parent decides what becomes of the workers.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if sys.platform == 'linux':
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def workers_end_with_us() -> None:
    """Let every process that is forked from now on become a worker, such as torch's loaders."""
    if not _registered:
        _registered.append(True)
        os.register_at_fork(after_in_child=become_worker)


_registered: list[bool] = []
