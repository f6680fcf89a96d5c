"""Processes that this program starts: they end with it, and leave Ctrl-C to it. Cores for them."""

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1  # of Linux's prctl


def available_cores() -> int:
    """Cores that this process may use, at least 1; in a cluster's job not all of the machine."""
    if hasattr(os, 'sched_getaffinity'):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def become_worker(parent: int) -> None:
    """Make the calling process one that ends with its parent, whatever ends that.

    Ctrl-C goes to all processes of a terminal; the parent decides what becomes of the workers.

    Args:
        parent: its process id, since the parent may have ended already.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if sys.platform == 'linux':
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)


def workers_end_with_us() -> None:
    """Let every process that is forked from now on become a worker, such as torch's loaders."""
    if not _forking:
        _forking.append(os.getpid())
        os.register_at_fork(
            before=lambda: _forking.__setitem__(0, os.getpid()),
            after_in_child=lambda: become_worker(_forking[0]),
        )


_forking: list[int] = []  # the process that forks, empty while nothing is registered
