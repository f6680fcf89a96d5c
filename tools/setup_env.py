"""Build or update ``.venv``, the environment of the project: what ``make setup`` runs.

    make setup [PYTHON=python3.11] [WHEELHOUSE=DIR] [TORCH_INDEX=URL] [MAX_JOBS=N]

The settings are environment variables too, so ``python3 tools/setup_env.py`` does the same.

PYTHON       interpreter to use; default: the first of python3, python3.12, ... that fits
WHEELHOUSE   folder of wheels that are taken before those of the package index
TORCH_INDEX  package index for torch alone, such as the one for your CUDA
MAX_JOBS     compilers at a time; default: by cores and memory

A second call does nothing; after an interruption the same call goes on where it stopped. Runs with
the system's Python and its standard library alone. It has to parse under Python 3.8, so that a
Python which is too old gets a message and not a SyntaxError.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import queue
import re
import shlex
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / '.venv'
VENV_PYTHON = VENV / 'bin' / 'python'
BUILD = VENV / 'build'  # sources, object files and the wheel of mmcv
LOG = VENV / 'setup.log'
STATE = VENV / 'setup.json'
LOCK = VENV / 'setup.lock'
OURS = {path.name for path in (BUILD, LOG, STATE, LOCK)}  # outlive a change of interpreter
REQUIREMENTS = (ROOT / 'requirements.txt', ROOT / 'requirements-test.txt')

SUPPORTED = ((3, 10), (3, 11), (3, 12))
SUPPORTED_TEXT = 'Python 3.10, 3.11 or 3.12'
# What building mmcv needs beside torch, numpy and packaging. Later releases of setuptools have no
# pkg_resources; ninja is what lets an interrupted build go on.
BUILD_TOOLS = ['setuptools==80.9.0', 'wheel==0.48.0', 'ninja==1.13.2']
# Installed without their dependencies, which would bring three builds of OpenCV.
WITHOUT_DEPENDENCIES = {'onedl-mmengine', 'onedl-mmdetection', 'imaug'}
STEPS = 6
GB_PER_JOB = 2  # memory of one compiler on the larger files of mmcv

# Why a step failed, by what its output holds; the first that is found counts.
REASONS = (
    ('No space left on device', 'the disk is full'),
    (
        'NewConnectionError|ConnectTimeoutError|ReadTimeoutError|ProxyError|SSLError'
        '|Connection refused|Name or service not known|name resolution|Network is unreachable',
        'the package index cannot be reached: check the network, or give WHEELHOUSE=DIR with '
        'all wheels and PIP_NO_INDEX=1',
    ),
    (
        r'No matching distribution found for (?P<name>\S+)',
        'neither the package index nor WHEELHOUSE has {name} for this Python and machine',
    ),
    (r'Killed signal|\bKilled\b|out of memory', 'out of memory while compiling: try MAX_JOBS=1'),
)

TORCH_FACTS = """
import json, torch
print(json.dumps([torch.__version__, torch.version.cuda]))
"""
# Boxes 0 and 1 share 81 of 119 square px, an IoU of 0.68; box 2 lies apart. So 0 and 2 stay.
OPS_CHECK = """
import json, torch, mmcv._ext
from mmcv.ops import get_compiling_cuda_version, nms
boxes = torch.tensor([[0.0, 0, 10, 10], [1, 1, 11, 11], [20, 20, 30, 30]])
kept = nms(boxes, torch.tensor([0.9, 0.8, 0.7]), iou_threshold=0.5)[1].tolist()
if kept != [0, 2]:
    raise RuntimeError(f'nms keeps boxes {kept} instead of [0, 2]')
print(json.dumps(get_compiling_cuda_version()))
"""
NO_CUDA = 'not available'  # what get_compiling_cuda_version() says of ops for the CPU
FINAL_CHECK = """
import json, re
from importlib.metadata import distributions
import cv2, mmdet, nucseg_mmdet, torch
names = {re.sub('[-_.]+', '-', d.metadata['Name'] or '').lower() for d in distributions()}
builds = sorted(name for name in names if re.match('opencv-(contrib-)?python', name))
print(json.dumps([torch.__version__, builds]))
"""
COMPILER_FACTS = """
import json, sysconfig as s
print(json.dumps([s.get_path('include'), s.get_config_var('CC'), s.get_python_version()]))
"""
BUILD_WHEEL = 'import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])'


class SetupError(Exception):
    """Something the user has to put right; the message is one line."""


def split_requirements(text: str) -> list[tuple[str, str]]:
    """Read a requirements file.

    Returns:
        pairs of normalised name and full requirement, in the order of the file.

    Raises:
        SetupError: a line is not a plain ``name==version``.
    """
    found = []
    for number, line in enumerate(text.splitlines(), start=1):
        requirement = re.sub(r'(^|\s)#.*', '', line).strip()
        if not requirement:
            continue
        name = re.match(r'([A-Za-z0-9][\w.-]*)==[\w.+!]+$', requirement)
        if not name:
            raise SetupError(f'requirements, line {number}: "{requirement}" is not name==version')
        found.append((re.sub(r'[-_.]+', '-', name[1]).lower(), requirement))
    return found


def hash_inputs(files: dict[str, bytes], root: Path) -> str:
    """Hash what an environment is made from; the editable install ties it to the place as well."""
    digest = hashlib.sha256(str(root).encode())
    for name in sorted(files):
        digest.update(f'\n{name} {len(files[name])}\n'.encode() + files[name])
    return digest.hexdigest()


def version_problem(name: str, version: tuple[int, int]) -> str | None:
    """Say in one line why a Python version does not do, or None where it does."""
    if tuple(version) in SUPPORTED:
        return None
    found = '.'.join(str(part) for part in version)
    return f'{name} is Python {found}, but {SUPPORTED_TEXT} is needed: install one, then make setup'


def parse_ninja(line: str) -> tuple[int, int] | None:
    """Read the count of finished and of all steps from a line of ninja's output."""
    match = re.match(r'\[(\d+)/(\d+)\] ', line)
    return (int(match[1]), int(match[2])) if match else None


def format_time(seconds: float) -> str:
    """Format a duration as m:ss or h:mm:ss."""
    minutes, second = divmod(int(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f'{hours}:{minute:02}:{second:02}' if hours else f'{minute}:{second:02}'


def describe_compile(done: int, total: int, seconds: float) -> str:
    """Describe the state of a compile that finished ``done`` files in ``seconds``.

    The time left follows from the rate so far. Files differ in size, hence "about", and nothing
    is said before three of them are done.
    """
    text = f'compiled {done} of {total} files'
    if not 3 <= done < total:
        return text
    minutes = seconds / done * (total - done) / 60
    return f'{text}, about {max(1, round(minutes))} min left'


def explain_failure(output: str) -> str | None:
    """Find the reason of a failed step in its output; None where it is none of the known ones."""
    for pattern, reason in REASONS:
        match = re.search(pattern, output)
        if match:
            return reason.format(**match.groupdict())
    return None


def choose_jobs(cores: int, memory_gb: float) -> int:
    """Choose the number of compilers that run at a time."""
    return max(1, min(cores, int(memory_gb // GB_PER_JOB)))


def choose_ops(torch_cuda: str | None, nvcc: str | None) -> tuple[bool, str | None]:
    """Choose between ops for the GPU and for the CPU alone.

    Args:
        torch_cuda: CUDA version that torch was built for, such as '13.0'; None: a CPU torch.
        nvcc: version of the CUDA compiler; None: there is none.

    Returns:
        whether to build for the GPU, and a warning or None.
    """
    if torch_cuda is None:
        return False, None
    if nvcc is None:
        lack = 'there is no nvcc'
    elif nvcc.split('.')[0] != torch_cuda.split('.')[0]:  # torch refuses another major version
        lack = f'nvcc is that of CUDA {nvcc}'
    else:
        return True, None
    return False, (
        f'torch is for CUDA {torch_cuda} but {lack}: the ops of mmcv are built for the CPU only; '
        'for the GPU install the CUDA toolkit of that version and run make setup again'
    )


class Progress:
    """Numbered steps with the time so far, and a live line inside a step.

    On a terminal the live line is redrawn; elsewhere it is printed every 30 s.
    """

    def __init__(self) -> None:
        self.start = time.monotonic()
        self.step = 0
        self.title = ''
        self.terminal = sys.stdout.isatty()
        self.shown = self.start

    def begin(self, title: str) -> None:
        """Start the next step."""
        self.step += 1
        self.title = title
        self.shown = time.monotonic()
        self.note(title)

    def note(self, text: str) -> None:
        """Print a line that stays."""
        clear = '\r\x1b[K' if self.terminal else ''
        print(f'{clear}{self._line(text)}', flush=True)

    def live(self, text: str) -> None:
        """Show the state of the step, no more often than is of use."""
        now = time.monotonic()
        if now - self.shown < (0.5 if self.terminal else 30):
            return
        self.shown = now
        if self.terminal:
            width = shutil.get_terminal_size().columns - 1
            print(f'\r\x1b[K{self._line(text)[:width]}', end='', flush=True)
        else:
            print(self._line(text), flush=True)

    def _line(self, text: str) -> str:
        elapsed = format_time(time.monotonic() - self.start)
        return f'[{self.step}/{STEPS}] {elapsed:>6}  {text}'


def child_environment(**extra: str) -> dict[str, str]:
    """Make the environment of child processes: this ``.venv`` and nothing of other ones."""
    dropped = {'PYTHONPATH', 'PYTHONHOME', 'PIP_TARGET', 'PIP_PREFIX', 'PIP_CONSTRAINT'}
    env = {name: value for name, value in os.environ.items() if name not in dropped}
    env.update(PYTHONNOUSERSITE='1', PIP_USER='0', PIP_NO_INPUT='1')
    env.update(PIP_DISABLE_PIP_VERSION_CHECK='1', PIP_REQUIRE_VIRTUALENV='1')
    env['PATH'] = f'{VENV_PYTHON.parent}{os.pathsep}{env.get("PATH", os.defpath)}'
    env.update(extra)
    return env


def find_cuda_home() -> Path | None:
    """Find the CUDA toolkit: a folder with nvcc and the headers.

    The headers are asked for because the nvcc on PATH may be a script that calls another one, and
    torch would look for them next to the script.
    """
    nvcc = shutil.which('nvcc')
    places = [os.environ.get('CUDA_HOME'), os.environ.get('CUDA_PATH')]
    places += [Path(nvcc).resolve().parents[1] if nvcc else None, '/usr/local/cuda']
    for place in (Path(place) for place in places if place):
        folders = [place / 'include', *place.glob('targets/*/include')]
        headers = [folder / 'cuda_runtime.h' for folder in folders]
        if (place / 'bin/nvcc').exists() and any(header.exists() for header in headers):
            return place
    return None


def nvcc_version(cuda_home: Path | None) -> str | None:
    """Ask nvcc for its version, such as '13.0'."""
    if cuda_home is None:
        return None
    answer = subprocess.run(
        [str(cuda_home / 'bin/nvcc'), '--version'], stdout=subprocess.PIPE, encoding='utf-8'
    )
    match = re.search(r'release (\d+\.\d+)', answer.stdout)
    return match[1] if match else None


def probe_python(command: str) -> tuple[tuple[int, int], bool] | None:
    """Ask an interpreter for its version and whether it can make a virtual environment.

    Returns:
        None where the command does not run at all, as a pyenv shim without its version.
    """
    code = (
        'import json, sys, importlib.util as u; print(json.dumps([list(sys.version_info[:2]),'
        'all(map(u.find_spec, ("venv", "ensurepip")))]))'
    )
    try:
        answer = subprocess.run(
            [command, '-c', code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True
        )
        version, makes_venv = json.loads(answer.stdout)
    except (OSError, subprocess.CalledProcessError, ValueError):
        return None
    return tuple(version), makes_venv


def find_python(chosen: str | None) -> tuple[str, tuple[int, int]]:
    """Find the interpreter to make the environment with, and its version.

    Args:
        chosen: the one the user named; None: the first that fits.

    Raises:
        SetupError: there is none that fits.
    """
    newest_first = [f'python{major}.{minor}' for major, minor in reversed(SUPPORTED)]
    problem = None
    for command in [chosen] if chosen else ['python3', *newest_first, sys.executable]:
        path = shutil.which(command)
        if path and Path(path).parent == VENV_PYTHON.parent:
            command = os.path.realpath(path)  # .venv is active: take what it was made from
        facts = probe_python(command)
        if facts is None:
            continue
        version, makes_venv = facts
        name = '.'.join(str(part) for part in version)
        wrong = version_problem(command, version)
        if wrong is None and makes_venv:
            return command, version
        # A fitting Python that lacks a package is nearer to what is needed than a wrong one.
        if wrong is None:
            problem = (
                f'{command} (Python {name}) cannot make a virtual environment, as it has no '
                f'ensurepip: install python{name}-venv (Debian, Ubuntu: apt install '
                f'python{name}-venv) or name another with PYTHON='
            )
            break
        problem = problem or wrong
    if problem is None:
        problem = f'{chosen or "python3"} does not run: {SUPPORTED_TEXT} is needed'
    raise SetupError(problem)


def read_state() -> dict:
    """Read what is known of ``.venv``; empty where there is nothing or it cannot be read."""
    try:
        state = json.loads(STATE.read_text(encoding='utf-8'))
    except (OSError, ValueError):
        return {}
    return state if isinstance(state, dict) else {}


def write_state(state: dict) -> None:
    """Write what is known of ``.venv``, whole or not at all."""
    beside = STATE.with_suffix('.part')
    beside.write_text(json.dumps(state, indent=2) + '\n', encoding='utf-8')
    beside.replace(STATE)


def free_memory_gb() -> float:
    """Memory that processes can still take, GB; all of it where the system does not say."""
    try:
        text = Path('/proc/meminfo').read_text()
        return int(re.search(r'MemAvailable:\s+(\d+) kB', text)[1]) / 1e6
    except (OSError, TypeError):
        return os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 1e9


def index_digest(index: str | None) -> str | None:
    """Stand for an index in the state file; its address may hold a password."""
    return hashlib.sha256(index.encode()).hexdigest() if index else None


def remove(path: Path) -> None:
    """Remove a file, a link or a folder."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()


def remove_half_installed(venv: Path) -> None:
    """Remove the traces of an interrupted pip, which it would take for installed packages.

    pip writes RECORD last, and renames what it replaces to a name that starts with ``~``.
    """
    for packages in venv.glob('lib/python*/site-packages'):
        broken = [path for path in packages.glob('*.dist-info') if not (path / 'RECORD').exists()]
        for path in [*broken, *packages.glob('~*')]:
            remove(path)


class Installer:
    """One run of the set-up, step by step. Each step leaves alone what is as it should be.

    Args:
        wheelhouse: folder of wheels, or None.
        torch_index: package index for torch alone, or None.
        lock: descriptor of the held lock file. The children hold it as well: should this process
            be killed, the next one waits until what it left behind has ended, too.
    """

    def __init__(self, wheelhouse: Path | None, torch_index: str | None, lock: int) -> None:
        self.wheelhouse = wheelhouse
        self.torch_index = torch_index
        self.lock = lock
        self.progress = Progress()
        pairs = [pair for path in REQUIREMENTS for pair in split_requirements(path.read_text())]
        pinned = dict(pairs)
        self.torch = pinned.pop('torch')
        self.mmcv = pinned.pop('onedl-mmcv')
        self.bare = [pinned.pop(name) for name in list(pinned) if name in WITHOUT_DEPENDENCIES]
        self.others = list(pinned.values())

    def run(self, command: list[str], cwd: Path = ROOT, **extra_env: str) -> tuple[int, str]:
        """Run a command, its output in the log and its state in the live line.

        Returns:
            exit code and output.
        """
        lines: queue.Queue[str | None] = queue.Queue()
        output = []
        with LOG.open('a', encoding='utf-8') as log:
            # The address of an index may hold a password.
            shown = ('TORCH_INDEX' if part == self.torch_index else part for part in command)
            log.write(f'\n$ {" ".join(shown)}\n')
            child = subprocess.Popen(
                command,
                cwd=cwd,
                env=child_environment(**extra_env),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                encoding='utf-8',
                errors='replace',
                pass_fds=(self.lock,),
            )

            def read() -> None:
                for line in child.stdout:
                    lines.put(line)
                lines.put(None)

            threading.Thread(target=read, daemon=True).start()
            state, compiling, since = self.progress.title, False, time.monotonic()
            try:
                while True:
                    try:
                        line = lines.get(timeout=1)
                    except queue.Empty:
                        self.progress.live(state)
                        continue
                    if line is None:
                        break
                    output.append(line)
                    log.write(line)
                    log.flush()
                    count = parse_ninja(line)
                    if count:
                        compiling = True
                        state = describe_compile(*count, time.monotonic() - since)
                    elif not compiling:
                        state, since = line.strip() or state, time.monotonic()
                    self.progress.live(state)
            except BaseException:
                child.terminate()
                raise
            return child.wait(), ''.join(output)

    def must_run(self, command: list[str], cwd: Path = ROOT, **extra_env: str) -> None:
        """Run a command that has to succeed.

        Raises:
            SetupError: it failed; with the reason where it is a known one.
        """
        code, output = self.run(command, cwd, **extra_env)
        if code:
            reason = explain_failure(output) or f'{self.progress.title}: exit code {code}'
            raise SetupError(f'{reason} (full output: {LOG.relative_to(ROOT)})')

    def pip(self, verb: str, *arguments: str) -> list[str]:
        """Make a ``pip install`` or ``pip download`` command that knows the wheelhouse."""
        command = [str(VENV_PYTHON), '-m', 'pip', verb, '--progress-bar', 'off']
        if self.wheelhouse:
            command += ['--find-links', str(self.wheelhouse)]
        return [*command, *arguments]

    def ask(self, code: str) -> tuple[object, str]:
        """Run code in the environment.

        Returns:
            the last line that is JSON, decoded, or None where the code failed; the last line.
        """
        exit_code, output = self.run([str(VENV_PYTHON), '-c', code], cwd=VENV)
        lines = output.strip().splitlines() or ['no output']
        if exit_code == 0:
            for line in reversed(lines):  # a library may have a last word
                try:
                    return json.loads(line), line
                except ValueError:
                    continue
        return None, lines[-1]

    def make_venv(self, chosen: str | None) -> str:
        """Make the virtual environment, unless there is one that works and has the Python wanted.

        Returns:
            the version of its Python, such as '3.11'.

        Raises:
            SetupError: no interpreter fits, or it cannot make one.
        """
        facts = probe_python(str(VENV_PYTHON))
        # An interrupted start leaves a Python without pip, an interrupted removal one without
        # pyvenv.cfg, for which the packages of the system's Python are its own.
        usable = facts is not None and facts[0] in SUPPORTED and (VENV / 'pyvenv.cfg').is_file()
        if usable:
            usable = self.run([str(VENV_PYTHON), '-m', 'pip', '--version'])[0] == 0
        wanted = find_python(chosen) if chosen or not usable else None
        if wanted is None or (usable and wanted[1] == facts[0]):
            version = '.'.join(str(part) for part in facts[0])
            self.progress.begin(f'.venv with Python {version} is there')
            remove_half_installed(VENV)
            return version
        command, numbers = wanted
        version = '.'.join(str(part) for part in numbers)
        self.progress.begin(f'making .venv with Python {version}')
        for path in VENV.iterdir():
            if path.name not in OURS:
                remove(path)
        self.must_run([command, '-m', 'venv', str(VENV)])
        return version

    def install_torch(self, state: dict) -> tuple[str, str | None]:
        """Install the build tools and torch.

        Returns:
            the version of torch; the CUDA version that it was built for, or None.

        Raises:
            SetupError: pip failed or torch does not import.
        """
        self.progress.begin(self.torch)
        self.must_run(self.pip('install', *BUILD_TOOLS))
        source = index_digest(self.torch_index)
        if self.torch_index and state.get('torch_index') != source:
            # The same version from another index may be for another CUDA; pip would keep the old.
            self.must_run([str(VENV_PYTHON), '-m', 'pip', 'uninstall', '--yes', 'torch'])
        index = ['--index-url', self.torch_index] if self.torch_index else []
        self.must_run(self.pip('install', *index, self.torch))
        if self.torch_index:
            state['torch_index'] = source
            write_state(state)
        facts, last = self.ask(TORCH_FACTS)
        if facts is None:
            raise SetupError(f'torch does not import: {last}')
        return tuple(facts)

    def install_libraries(self, torch_version: str) -> None:
        """Install everything else but mmcv; the torch that is there has to stay.

        Raises:
            SetupError: pip failed.
        """
        self.progress.begin(f'{len(self.others)} libraries')
        constraints = BUILD / 'constraints.txt'
        constraints.write_text(f'torch=={torch_version}\n')
        self.must_run(self.pip('install', '--constraint', str(constraints), *self.others))
        self.progress.begin(', '.join(self.bare))
        self.must_run(self.pip('install', '--no-deps', *self.bare))

    def has_mmcv(self) -> bool:
        """Whether the pinned mmcv is installed, working or not."""
        folder = self.mmcv.replace('-', '_').replace('==', '-') + '.dist-info'
        return any(VENV.glob(f'lib/python*/site-packages/{folder}'))

    def ops_problem(self, with_cuda: bool) -> str | None:
        """Say why the ops of the installed mmcv do not do; None where they do."""
        built_for, last = self.ask(OPS_CHECK)
        if built_for is None:
            return last
        return 'its ops are for the CPU only' if with_cuda and built_for == NO_CUDA else None

    def install_mmcv(self, torch_version: str, torch_cuda: str | None) -> None:
        """Install mmcv with ops that work: what is there, else the wheelhouse, else from source.

        Raises:
            SetupError: there is no compiler, the build failed or its ops do not work.
        """
        self.progress.begin(f'{self.mmcv} with its compiled ops')
        cuda_home = find_cuda_home()
        with_cuda, warning = choose_ops(torch_cuda, nvcc_version(cuda_home))
        if self.has_mmcv() and self.ops_problem(with_cuda) is None:
            return
        if self.wheelhouse:
            only = ['--no-deps', '--no-index', '--force-reinstall', '--only-binary', ':all:']
            if self.run(self.pip('install', *only, self.mmcv))[0]:
                problem = 'does not fit this Python and machine, or is not there'
            else:
                problem = self.ops_problem(with_cuda)
            if problem is None:
                return
            self.progress.note(f'mmcv wheel of WHEELHOUSE: {problem}; building from source')
        if warning:
            self.progress.note(warning)
        wheel = self.build_mmcv(torch_version, cuda_home if with_cuda else None)
        python = [str(VENV_PYTHON), '-m', 'pip']
        self.must_run(
            [*python, 'install', '--no-deps', '--no-index', '--force-reinstall', str(wheel)]
        )
        problem = self.ops_problem(with_cuda)
        if problem:
            raise SetupError(f'the ops of mmcv were built but do not work: {problem}')

    def build_mmcv(self, torch_version: str, cuda_home: Path | None) -> Path:
        """Build the wheel of mmcv in a folder that stays, so that ninja goes on after a stop.

        Returns:
            the wheel.

        Raises:
            SetupError: there is no compiler or the build failed.
        """
        kind = 'cuda' if cuda_home else 'cpu'
        python = VENV_PYTHON.resolve().name
        folder = BUILD / f'{self.mmcv.replace("==", "-")}-torch{torch_version}-{kind}-{python}'
        source, wheels = folder / 'source', folder / 'wheel'
        if not any(wheels.glob('*.whl')):
            self.check_compiler()
            if not source.exists():
                self.fetch_source(source)
            cores = len(os.sched_getaffinity(0)) if hasattr(os, 'sched_getaffinity') else 1
            jobs = os.environ.get('MAX_JOBS') or str(choose_jobs(cores, free_memory_gb()))
            cuda = {'CUDA_HOME': str(cuda_home)} if cuda_home else {'CUDA_VISIBLE_DEVICES': ''}
            self.progress.note(f'compiling for {kind.upper()} with MAX_JOBS={jobs}')
            self.must_run(
                [str(VENV_PYTHON), '-c', BUILD_WHEEL, str(wheels)],
                cwd=source,
                FORCE_CUDA=str(int(cuda_home is not None)),
                MAX_JOBS=jobs,
                NINJA_STATUS='[%f/%t] ',
                **cuda,
            )
        return next(wheels.glob('*.whl'))

    def fetch_source(self, source: Path) -> None:
        """Download and unpack mmcv to ``source``, whole or not at all.

        Raises:
            SetupError: pip failed.
        """
        part = source.with_name('part')
        shutil.rmtree(part, ignore_errors=True)
        name = self.mmcv.split('==')[0]
        # Its metadata come from its setup.py, which needs the build tools of this environment.
        options = ['--no-deps', '--no-build-isolation', '--no-binary', name, '--dest', str(part)]
        self.must_run(self.pip('download', *options, self.mmcv))
        archive = next(part.glob('*.tar.gz'))
        shutil.unpack_archive(str(archive), str(part))
        (part / archive.name[: -len('.tar.gz')]).rename(source)
        shutil.rmtree(part)

    def check_compiler(self) -> None:
        """Compile a line that needs the C++ library and the headers of Python.

        Raises:
            SetupError: a compiler or the headers are missing.
        """
        (include, c_compiler, version), _ = self.ask(COMPILER_FACTS)
        commands = [os.environ.get('CC') or c_compiler, os.environ.get('CXX') or 'c++']
        for command in commands:
            if shutil.which(shlex.split(command)[0]) is None:
                raise SetupError(
                    f'no compiler: {command} is not there, and mmcv has to be built from source: '
                    'install one (Debian, Ubuntu: apt install g++), set CC and CXX, or give '
                    'WHEELHOUSE=DIR with a wheel of mmcv'
                )
        probe = BUILD / 'probe.cpp'
        probe.write_text('#include <vector>\n#include <Python.h>\n')
        options = ['-std=c++17', '-fsyntax-only', '-I', include, str(probe)]
        code, output = self.run([*shlex.split(commands[1]), *options])
        if 'Python.h' in output:
            raise SetupError(
                f'the headers of Python {version} are missing, and mmcv has to be built from '
                f'source: install them (Debian, Ubuntu: apt install python{version}-dev)'
            )
        if code:
            raise SetupError(
                f'{commands[1]} cannot compile C++17: install another (Debian, Ubuntu: apt '
                f'install g++) or set CXX (full output: {LOG.relative_to(ROOT)})'
            )

    def install_project(self, torch_version: str) -> None:
        """Install the project itself, in place, and check the whole.

        Raises:
            SetupError: pip failed, something does not import, torch was replaced, or there is
                not exactly one OpenCV.
        """
        self.progress.begin('the project itself, last checks')
        options = ['--no-deps', '--no-build-isolation', '--editable', str(ROOT)]
        self.must_run(self.pip('install', *options))
        facts, last = self.ask(FINAL_CHECK)
        if facts is None:
            raise SetupError(f'the environment does not work: {last}')
        found, opencv = facts
        if found != torch_version:
            raise SetupError(f'torch {torch_version} was replaced by {found} while installing')
        if len(opencv) != 1:
            raise SetupError(
                f'{len(opencv)} builds of OpenCV in .venv, one is expected: run .venv/bin/python '
                f'-m pip uninstall -y {" ".join(opencv)}, then make setup'
            )

    def install(self, state: dict, chosen: str | None) -> dict:
        """Run all steps.

        Returns:
            what is known of the finished environment.

        Raises:
            SetupError: a step failed.
        """
        python = self.make_venv(chosen)
        BUILD.mkdir(exist_ok=True)
        tag = python.replace('.', '')
        stem = self.mmcv.replace('-', '_').replace('==', '-')
        ready = self.wheelhouse and any(self.wheelhouse.glob(f'{stem}-cp{tag}-*.whl'))
        if not ready and not self.has_mmcv():
            self.check_compiler()  # before minutes of download
        torch_version, torch_cuda = self.install_torch(state)
        self.install_libraries(torch_version)
        self.install_mmcv(torch_version, torch_cuda)
        self.install_project(torch_version)
        lacks_gpu_ops = torch_cuda is not None and self.ask(OPS_CHECK)[0] == NO_CUDA
        return {**state, 'python': python, 'gpu_ops_missing': torch_cuda if lacks_gpu_ops else None}


def is_up_to_date(state: dict, inputs: str, torch_index: str | None, python: str | None) -> bool:
    """Whether ``.venv`` is whole and made from what is asked for now.

    Args:
        state: what was written after the last run.
        inputs: from ``hash_inputs``.
        torch_index: the one asked for; None: any.
        python: version asked for, such as '3.11'; None: any.
    """
    return (
        state.get('inputs') == inputs
        and (torch_index is None or state.get('torch_index') == index_digest(torch_index))
        and (python is None or state.get('python') == python)
    )


def take_lock() -> int:
    """Wait until no other set-up works on ``.venv``; the lock goes with the process."""
    lock = os.open(LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print('setup: another one works on .venv: waiting for it to end', flush=True)
        fcntl.flock(lock, fcntl.LOCK_EX)
    except OSError:
        pass  # a file system without locks, as on some clusters
    return lock


def set_up() -> None:
    """Bring ``.venv`` up to date.

    Raises:
        SetupError: something that the user has to put right.
    """
    chosen = os.environ.get('PYTHON') or None
    torch_index = os.environ.get('TORCH_INDEX') or None
    wheelhouse = Path(os.environ['WHEELHOUSE']).resolve() if os.environ.get('WHEELHOUSE') else None
    if wheelhouse and not wheelhouse.is_dir():
        raise SetupError(f'WHEELHOUSE={os.environ["WHEELHOUSE"]} is not a folder')
    python = '.'.join(str(part) for part in find_python(chosen)[1]) if chosen else None
    inputs = hash_inputs({p.name: p.read_bytes() for p in (*REQUIREMENTS, Path(__file__))}, ROOT)
    VENV.mkdir(exist_ok=True)
    installer = Installer(wheelhouse, torch_index, take_lock())
    state = read_state()
    if VENV_PYTHON.exists() and is_up_to_date(state, inputs, torch_index, python):
        missing = state.get('gpu_ops_missing')
        if not (missing and choose_ops(missing, nvcc_version(find_cuda_home()))[0]):
            print('setup: .venv is up to date')
            return
    if state.pop('inputs', None):
        write_state(state)  # from here to the end .venv is not whole
    LOG.write_text('')
    write_state({**installer.install(state, chosen), 'inputs': inputs})
    installer.progress.note('.venv is ready')


def main() -> int:
    try:
        set_up()
    except SetupError as error:
        print(f'setup: {error}', file=sys.stderr)
        return 2
    except OSError as error:  # no right to write, disk full
        print(f'setup: {error}', file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print('\nsetup: stopped; the same command goes on from here', file=sys.stderr)
        return 130
    return 0


if __name__ == '__main__':
    raise SystemExit(main())
