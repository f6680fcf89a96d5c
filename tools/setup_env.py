"""Build or update ``.venv``, the environment of the project: what ``make setup`` runs.

    make setup [PYTHON=python3.11] [WHEELHOUSE=DIR] [TORCH_INDEX=URL] [MAX_JOBS=N]

PYTHON       interpreter for .venv; default: the first of python3, python3.12, ... that fits
WHEELHOUSE   folder of wheels that are taken before those of the package index
TORCH_INDEX  package index for torch alone, such as the one for your CUDA
MAX_JOBS     compilers at a time; default: by cores and memory

A second call does nothing; after an interruption the same call goes on where it stopped. What is
installed and works is kept: for torch from another TORCH_INDEX, ``rm -rf .venv`` first.

Make runs this with the Python that .venv gets, the settings in environment variables. It has to
parse under Python 3.8, so that a Python which is too old gets a message and not a SyntaxError.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / '.venv'
PYTHON = str(VENV / 'bin/python')
LOG = VENV / 'setup.log'
STAMP = VENV / 'setup.stamp'  # hash of what the finished environment was made from
REQUIREMENTS = (ROOT / 'requirements.txt', ROOT / 'requirements-test.txt')

SUPPORTED = ((3, 10), (3, 11), (3, 12))
# What building mmcv needs beside torch, numpy and packaging, and hatchling for the project itself.
# Later releases of setuptools have no pkg_resources; ninja lets an interrupted build go on.
BUILD_TOOLS = [
    'setuptools==80.9.0',
    'wheel==0.48.0',
    'ninja==1.13.2',
    'hatchling==1.33.0',
    'editables==0.5',
]
# Installed without their dependencies, which would bring three builds of OpenCV.
BARE = ('onedl-mmengine', 'onedl-mmdetection', 'imaug')

# Why a command failed, by what its output holds. The first that is found counts: where pip cannot
# reach the index, it ends with "No matching distribution" all the same.
REASONS = (
    ('No space left on device', 'the disk is full'),
    ('ConnectionError|TimeoutError|ProxyError|SSLError', 'the package index cannot be reached'),
    (r'No matching distribution found for (\S+)', 'there is no {} for this Python and machine'),
)

TORCH_FACTS = 'import json, torch; print(json.dumps([torch.__version__, torch.version.cuda]))'
# Boxes 0 and 1 share 81 of 119 square px, an IoU of 0.68; box 2 lies apart. So 0 and 2 stay.
OPS_CHECK = """
import sys, importlib.metadata, torch, mmcv._ext
from mmcv.ops import get_compiling_cuda_version, nms
pin, gpu = sys.argv[1:]
if pin != 'onedl-mmcv==' + importlib.metadata.version('onedl-mmcv'):
    sys.exit('it is another version')
if gpu and get_compiling_cuda_version() == 'not available':
    sys.exit('its ops are for the CPU only')
boxes = torch.tensor([[0.0, 0, 10, 10], [1, 1, 11, 11], [20, 20, 30, 30]])
kept = nms(boxes, torch.tensor([0.9, 0.8, 0.7]), iou_threshold=0.5)[1].tolist()
if kept != [0, 2]:
    sys.exit(f'nms keeps boxes {kept} instead of [0, 2]')
"""
FINAL_CHECK = """
import re, cv2, mmdet, nucseg_mmdet
names = {d.metadata['Name'] for d in importlib.metadata.distributions()}
builds = [name for name in names if re.match('opencv[-_](contrib[-_])?python', name or '')]
if len(builds) != 1:
    sys.exit(f'{len(builds)} builds of OpenCV instead of one: rm -rf .venv, then make setup')
# Writes its grammar now: of two trainings that are the first at once, one would read half of it.
from yapf.yapflib import yapf_api
"""
BUILD_WHEEL = 'import sys; from setuptools import build_meta; build_meta.build_wheel(sys.argv[1])'

START = time.monotonic()
TERMINAL = sys.stdout.isatty()


class SetupError(Exception):
    """What the user has to put right, in one line. Whatever runs a command may raise it."""


def group_requirements(text: str) -> tuple[str, list[str], list[str], str]:
    """Group the lines of requirements files by how they are installed.

    Returns:
        torch, the libraries, those without their dependencies, mmcv; as ``name==version``, and
        ``; python_version >= "3.11"`` behind one that older Pythons do without.

    Raises:
        SetupError: a line is not a plain ``name==version``.
    """
    pins = {}
    for line in text.splitlines():
        pin = line.split('#')[0].strip()
        match = re.match(r'([\w.-]+)==[\w.+!]+( ; python_version >= "3\.\d+")?$', pin)
        if pin and not match:
            raise SetupError(f'requirements: "{pin}" is not name==version')
        if match:
            pins[match[1]] = pin
    torch, mmcv, *bare = [pins.pop(name) for name in ('torch', 'onedl-mmcv', *BARE)]
    return torch, list(pins.values()), bare, mmcv


def hash_inputs(root: Path, *contents: bytes) -> str:
    """Hash what an environment is made from; the editable install ties it to the place as well."""
    return hashlib.sha256(repr((str(root), contents)).encode()).hexdigest()


def describe_line(line: str, seconds: float) -> str | None:
    """Say what a line of pip's or ninja's output means to the user; None: nothing.

    The rate in the ``seconds`` so far gives the time left; files differ in size, hence "about".
    """
    count = re.match(r'\[(\d+)/(\d+)\] ', line)
    if count:
        done, total = int(count[1]), int(count[2])
        minutes = seconds / max(done, 1) * (total - done) / 60
        return f'[{done}/{total}] about {max(1, round(minutes))} min left'
    return line.strip() if re.match(r'\s*(Collecting|Downloading|Installing) ', line) else None


def explain_failure(output: str) -> str:
    """Give the reason of a failed command: a known one, else the last line of its output."""
    for pattern, reason in REASONS:
        match = re.search(pattern, output)
        if match:
            return reason.format(*match.groups())
    return (output.strip() or 'no output').splitlines()[-1]


def choose_jobs(cores: int, memory_gb: float) -> int:
    """Choose the number of compilers that run at a time; one may take 2 GB."""
    return max(1, min(cores, int(memory_gb / 2)))


def say(text: str, live: bool = False) -> None:
    """Print a line with the time so far; on a terminal a live line gives way to the next one."""
    minutes, seconds = divmod(int(time.monotonic() - START), 60)
    line = f'{minutes:3}:{seconds:02}  {text}'
    if TERMINAL:
        line = f'\r\x1b[K{line[:79] if live else line}'  # a wrapped line could not be taken back
    print(line, end='' if TERMINAL and live else '\n', flush=True)


def child_environment(**extra: str) -> dict[str, str]:
    """Make the environment of child processes: this ``.venv`` and nothing of other ones."""
    dropped = {'PYTHONPATH', 'PYTHONHOME', 'PIP_TARGET', 'PIP_PREFIX', 'PIP_CONSTRAINT'}
    env = {name: value for name, value in os.environ.items() if name not in dropped}
    env.update(PYTHONNOUSERSITE='1', PIP_USER='0', PIP_NO_INPUT='1', PIP_REQUIRE_VIRTUALENV='1')
    env.update(PIP_DISABLE_PIP_VERSION_CHECK='1', NINJA_STATUS='[%f/%t] ')
    env['PATH'] = f'{VENV / "bin"}{os.pathsep}{env.get("PATH", os.defpath)}'
    return {**env, **extra}


def run(command: list[str], cwd: Path = ROOT, **env: str) -> tuple[int, str]:
    """Run a command with its output in the log; return its exit code and output.

    It shares our process group, so that Ctrl-C in a terminal reaches the compilers as well.
    """
    start = shown = time.monotonic()
    lines = []
    streams = dict(stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    with LOG.open('a', encoding='utf-8') as log:
        print(f'\n$ {" ".join(command)}', file=log, flush=True)
        child = subprocess.Popen(
            command, cwd=str(cwd), env=child_environment(**env), errors='replace', **streams
        )
        try:
            for line in child.stdout:
                lines.append(line)
                print(line, end='', file=log, flush=True)
                now = time.monotonic()
                text = describe_line(line, now - start)
                if text and (TERMINAL or now - shown >= 30):
                    say(text, live=True)
                    shown = now
            return child.wait(), ''.join(lines)
        finally:
            child.terminate()  # does nothing, unless we are interrupted
            child.wait()
            child.stdout.close()
            print('\r\x1b[K' if TERMINAL else '', end='', flush=True)


def must_run(command: list[str], cwd: Path = ROOT, **env: str) -> str:
    """Run a command that has to succeed, and return its output.

    Raises:
        SetupError: it failed; with the reason where it is a known one.
    """
    code, output = run(command, cwd, **env)
    if code:
        raise SetupError(f'{explain_failure(output)} (full output: {LOG.relative_to(ROOT)})')
    return output


def pip(verb: str, *arguments: str) -> list[str]:
    """Make a pip command that knows the wheelhouse."""
    wheelhouse = os.environ.get('WHEELHOUSE')
    links = ['--find-links', str(Path(wheelhouse).resolve())] if wheelhouse else []
    return [PYTHON, '-m', 'pip', verb, '--progress-bar', 'off', *links, *arguments]


def remove_half_installed(venv: Path) -> None:
    """Remove the traces of an interrupted pip, which it would take for installed packages.

    pip writes RECORD last, and renames what it replaces to a name that starts with ``~``.
    """
    for packages in venv.glob('lib/python*/site-packages'):
        broken = [path for path in packages.glob('*.dist-info') if not (path / 'RECORD').exists()]
        for path in [*broken, *packages.glob('~*')]:
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def is_venv_usable() -> bool:
    """Whether ``.venv`` has a whole Python, of the version of the one that the user named.

    An interrupted start leaves a Python without pip or half of it, an interrupted removal one
    without pyvenv.cfg, for which the packages of the system's Python are its own.
    """
    versions = [sys.version_info[:2]] if os.environ.get('PYTHON') else SUPPORTED
    fits = f'sys.version_info[:2] in {versions}'
    code = f'import importlib.metadata as m, pip, sys; sys.exit(not (m.files("pip") and {fits}))'
    whole = Path(PYTHON).exists() and (VENV / 'pyvenv.cfg').is_file()
    return whole and subprocess.call([PYTHON, '-c', code], stderr=subprocess.DEVNULL) == 0


def make_venv() -> None:
    """Make the virtual environment anew.

    Raises:
        SetupError: the version of this Python does not fit, or it lacks a module for it.
    """
    version = '.'.join(str(part) for part in sys.version_info[:2])
    if sys.version_info[:2] not in SUPPORTED:
        raise SetupError(f'Python 3.10, 3.11 or 3.12 is needed, this is {version}: give PYTHON=')
    if not (find_spec('venv') and find_spec('ensurepip')):
        raise SetupError(f'Python {version} has no ensurepip: install python{version}-venv')
    # Where .venv is active, this runs with its Python, which will be gone: take what that is from.
    base = sys.executable if sys.prefix == sys.base_prefix else os.path.realpath(sys.executable)
    shutil.rmtree(VENV)
    VENV.mkdir()
    must_run([base, '-m', 'venv', str(VENV)])


def check_compiler() -> None:
    """Check for a compiler by giving it nothing but the headers of C++17 and of Python.

    Raises:
        SetupError: a compiler or the headers are missing.
    """
    code = 'import sysconfig as s; print(s.get_path("include"), s.get_config_var("CC"), sep="\\n")'
    include, cc = must_run([PYTHON, '-c', code]).splitlines()
    cc, cxx = ((os.environ.get(n) or d).split() for n, d in (('CC', cc), ('CXX', 'c++')))
    probe = ['-std=c++17', '-fsyntax-only', '-include', 'vector', '-include', 'Python.h']
    probe = [*cxx, *probe, '-I', include, '-x', 'c++', os.devnull]
    if not (shutil.which(cc[0]) and shutil.which(cxx[0])) or run(probe)[0]:
        raise SetupError(
            f'mmcv has to be built from source, but {cc[0]}, {cxx[0]} or the headers of Python '
            'are missing: install them (Debian, Ubuntu: apt install g++ python3-dev), or give '
            'WHEELHOUSE=DIR with a wheel of mmcv'
        )


def find_cuda(torch_cuda: str) -> str | None:
    """Find the CUDA toolkit; torch refuses another major version than its own, ``torch_cuda``.

    The headers are asked for because the nvcc on PATH may be a script that calls another one, and
    torch would look for them next to the script.
    """
    on_path = Path(shutil.which('nvcc') or '/none').resolve()
    homes = [Path(os.environ.get('CUDA_HOME') or '/none'), on_path.parent.parent]
    for home in [*homes, Path('/usr/local/cuda')]:
        nvcc = home / 'bin/nvcc'
        if nvcc.exists() and (home / 'include/cuda_runtime.h').exists():
            answer = subprocess.check_output([str(nvcc), '--version']).decode()
            if f'release {torch_cuda.split(".")[0]}.' in answer:
                return str(home)
    return None


def ops_problem(mmcv: str, cuda_home: str | None) -> str | None:
    """Say why the installed mmcv does not do; None where it has the pinned version and works."""
    code, output = run([PYTHON, '-c', OPS_CHECK, mmcv, cuda_home or ''], cwd=VENV)
    return explain_failure(output) if code else None


def install_mmcv(mmcv: str, torch_version: str, torch_cuda: str | None) -> None:
    """Install mmcv with ops that work: what is there, else the wheelhouse, else from source.

    Raises:
        SetupError: it was built, but its ops do not work.
    """
    cuda_home = find_cuda(torch_cuda) if torch_cuda else None
    force = ['--no-deps', '--no-index', '--force-reinstall', '--only-binary', ':all:']
    problem = ops_problem(mmcv, cuda_home)
    if problem and os.environ.get('WHEELHOUSE'):
        run(pip('install', *force, mmcv))
        problem = ops_problem(mmcv, cuda_home)
        if problem:
            say(f'no wheel of mmcv in WHEELHOUSE that works here ({problem}), so from source')
    if problem:
        if torch_cuda and not cuda_home:
            say(f'no nvcc of CUDA {torch_cuda}, that of torch: mmcv is built for the CPU only')
        must_run(pip('install', *force, str(build_mmcv(mmcv, torch_version, cuda_home))))
        problem = ops_problem(mmcv, cuda_home)
    if problem:
        raise SetupError(f'the ops of mmcv were built but do not work: {problem}')


def build_mmcv(mmcv: str, torch_version: str, cuda_home: str | None) -> Path:
    """Build the wheel of mmcv in a folder that stays, so that ninja goes on after a stop."""
    kind = 'cuda' if cuda_home else 'cpu'
    folder = VENV / 'build' / f'{mmcv.replace("==", "-")}-torch{torch_version}-{kind}'
    source, part, wheels = folder / 'source', folder / 'part', folder / 'wheel'
    if not any(wheels.glob('*.whl')):
        check_compiler()
        if not source.exists():  # whole or not at all
            shutil.rmtree(part, ignore_errors=True)
            # Its metadata come from its setup.py, which needs the build tools of .venv.
            options = ['--no-deps', '--no-build-isolation', '--no-binary', mmcv.split('==')[0]]
            must_run(pip('download', *options, '--dest', str(part), mmcv))
            archive = next(part.glob('*.tar.gz'))
            shutil.unpack_archive(str(archive), str(part))
            (part / archive.name[: -len('.tar.gz')]).rename(source)
            shutil.rmtree(part)
        memory_gb = os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 1e9
        jobs = os.environ.get('MAX_JOBS') or choose_jobs(len(os.sched_getaffinity(0)), memory_gb)
        say(f'compiling for {kind.upper()} with MAX_JOBS={jobs}')
        cuda = {'CUDA_HOME': cuda_home} if cuda_home else {'CUDA_VISIBLE_DEVICES': ''}
        cuda['FORCE_CUDA'] = '1' if cuda_home else '0'
        must_run([PYTHON, '-c', BUILD_WHEEL, str(wheels)], cwd=source, MAX_JOBS=str(jobs), **cuda)
    return next(wheels.glob('*.whl'))


def install() -> None:
    """Run all steps; each leaves alone what is as it should be."""
    texts = [path.read_text(encoding='utf-8') for path in REQUIREMENTS]
    torch, libraries, bare, mmcv = group_requirements('\n'.join(texts))
    say('[1/6] .venv')
    if is_venv_usable():
        remove_half_installed(VENV)
    else:
        make_venv()
    if not any([*VENV.glob('lib/python*/site-packages/mmcv'), os.environ.get('WHEELHOUSE')]):
        check_compiler()  # before minutes of download
    say(f'[2/6] {torch}')
    must_run(pip('install', *BUILD_TOOLS))
    # Not as an option, which would go to the log: the address may hold a password.
    index = os.environ.get('TORCH_INDEX')
    must_run(pip('install', torch), **({'PIP_INDEX_URL': index} if index else {}))
    torch_version, torch_cuda = json.loads(must_run([PYTHON, '-c', TORCH_FACTS]).splitlines()[-1])
    say(f'[3/6] {len(libraries)} libraries')
    must_run(pip('install', torch, *libraries))  # torch again, so that none of them replaces it
    say(f'[4/6] {", ".join(bare)}')
    must_run(pip('install', '--no-deps', *bare))
    say(f'[5/6] {mmcv} with its compiled ops')
    install_mmcv(mmcv, torch_version, torch_cuda)
    say('[6/6] the project itself, last checks')
    must_run(pip('install', '--no-deps', '--no-build-isolation', '--editable', str(ROOT)))
    must_run([PYTHON, '-c', OPS_CHECK + FINAL_CHECK, mmcv, ''], cwd=VENV)


def set_up() -> None:
    """Bring ``.venv`` up to date.

    Raises:
        SetupError: there is no folder WHEELHOUSE.
    """
    wheelhouse = os.environ.get('WHEELHOUSE')
    if wheelhouse and not Path(wheelhouse).is_dir():
        raise SetupError(f'WHEELHOUSE={wheelhouse} is not a folder')
    inputs = hash_inputs(ROOT, *(p.read_bytes() for p in (*REQUIREMENTS, Path(__file__))))
    if STAMP.is_file() and STAMP.read_text() == inputs and is_venv_usable():
        print('setup: .venv is up to date')
        return
    VENV.mkdir(exist_ok=True)
    LOG.write_text('')
    STAMP.write_text('')  # from here to the end .venv is not whole
    install()
    STAMP.write_text(inputs)
    say('.venv is ready')


def main() -> int:
    try:
        set_up()
    except (SetupError, OSError) as error:  # OSError: no right to write, disk full
        print(f'setup: {error}', file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print('\nsetup: stopped; the same command goes on from here', file=sys.stderr)
        return 130
    return 0


if __name__ == '__main__':
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends the children as Ctrl-C does
    raise SystemExit(main())
