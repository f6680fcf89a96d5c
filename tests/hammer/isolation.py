"""Run something in a process of its own, with limits, and say how it ended.

A fork takes a hundredth of the time of a new interpreter, so that thousands of inputs can be
tried. What runs may not start threads before: the parent stays at one thread.
"""

import os
import resource
import select
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

SECONDS = 20  # of CPU; an intact input takes below 2
PATIENCE = 20  # s on the clock, for what waits and takes no CPU
MEMORY = 2 << 30  # bytes beyond those of the parent
LINES = 12  # of a message for a person
WIDTH = 600  # characters of a line


class Ended(NamedTuple):
    """How a process ended.

    Attributes:
        code: exit code; negative: the signal that killed it.
        stdout: text.
        stderr: text.
        seconds: on the clock.
        peak: bytes of memory at most.
        timed_out: it was killed for taking too long.
        orphans: it left processes behind, which were killed.
    """

    code: int
    stdout: str
    stderr: str
    seconds: float
    peak: int
    timed_out: bool
    orphans: bool


def run(action: Callable[[], int], folder: Path, patience: float = PATIENCE) -> Ended:
    """Run an action in a fork, in a folder, with bounded time and memory.

    Args:
        action: returns an exit code.
        folder: working folder; the output is kept beside it.
        patience: s on the clock.
    """
    out, err = (folder.with_name(f'{folder.name}.{name}') for name in ('stdout', 'stderr'))
    started = time.monotonic()
    child = os.fork()
    if child == 0:
        _run_and_exit(action, folder, out, err)
    watch = os.pidfd_open(child)
    try:
        timed_out = not select.select([watch], [], [], patience)[0]
    finally:
        os.close(watch)
    if timed_out:
        os.killpg(child, signal.SIGKILL)
    _, status, usage = os.wait4(child, 0)
    return Ended(
        code=os.waitstatus_to_exitcode(status),
        stdout=out.read_text(errors='replace'),
        stderr=err.read_text(errors='replace'),
        seconds=time.monotonic() - started,
        peak=usage.ru_maxrss * 1024,
        timed_out=timed_out,
        orphans=end_group(child),
    )


def _run_and_exit(action: Callable[[], int], folder: Path, out: Path, err: Path) -> None:
    """Be the child: never returns."""
    code = 1
    try:
        os.setsid()
        os.chdir(folder)
        for number, path in enumerate((Path(os.devnull), out, err)):
            os.dup2(os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC), number)
        # pytest's own streams would swallow what is said.
        sys.stdout, sys.stderr = (os.fdopen(number, 'w', 1, closefd=False) for number in (1, 2))
        in_use = int(Path('/proc/self/statm').read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (in_use + MEMORY, in_use + MEMORY))
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS + 1))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        code = action()
    except SystemExit as error:  # argparse
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(code or 0)


def end_group(leader: int, patience: float = 30.0) -> bool:
    """Wait until a process group has no member; kill it and return True if it keeps some."""
    until = time.monotonic() + patience
    while time.monotonic() < until:
        if not _members(leader):
            return False
        time.sleep(0.02)
    os.killpg(leader, signal.SIGKILL)
    return True


def _members(group: int) -> list[int]:
    """Processes of a session that are no zombies."""
    found = []
    for name in filter(str.isdigit, os.listdir('/proc')):
        try:
            text = Path('/proc', name, 'stat').read_text()
            state, _, _, session = text.rpartition(')')[2].split()[:4]
        except (OSError, ValueError):  # it has ended meanwhile
            continue
        if int(session) == group and state != 'Z':
            found.append(int(name))
    return found


def complaint(ended: Ended, codes: tuple[int, ...] = (0, 1, 2)) -> str | None:
    """What is wrong with how a process ended, whatever it did; None if nothing is.

    A program may succeed, or say in a few lines why it did not.
    """
    lines = [line for line in ended.stderr.splitlines() if line.strip()]
    if ended.timed_out or ended.code == -signal.SIGXCPU:
        return f'too slow: {ended.seconds:.0f} s'
    if ended.orphans:
        return 'processes left'
    if 'unforeseen' in ended.stderr or 'more memory' in ended.stderr:
        return f'not foreseen: {lines[-1]:.200}'
    if 'Traceback (most recent call last)' in ended.stderr:
        return f'traceback: {lines[-1]:.200}'
    if ended.code < 0:
        return f'killed by {signal.Signals(-ended.code).name}'
    if ended.code not in codes:
        return f'exit code {ended.code}'
    if ended.code and not lines:
        return f'exit code {ended.code} without a word'
    if ended.code and len(lines) > LINES:
        return f'{len(lines)} lines'
    if any(len(line) > WIDTH for line in lines):
        return f'a line of {max(map(len, lines))} characters'
    if any(not character.isprintable() for line in lines for character in line.expandtabs()):
        return 'control characters on the terminal'
    return None


def leftovers(folder: Path, allowed: tuple[str, ...] = ()) -> str | None:
    """What a run left half-written in a folder."""
    names = [
        str(path.relative_to(folder))
        for path in sorted(folder.rglob('*'))
        if '.partial' in path.name and path.name not in allowed
    ]
    return f'half-written: {names[0]}' if names else None


def fresh(folder: Path) -> Path:
    """An empty folder."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
