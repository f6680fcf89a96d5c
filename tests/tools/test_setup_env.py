"""The parts of tools/setup_env.py that need no network."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from tools import setup_env

ROOT = Path(setup_env.__file__).parents[1]


def test_parses_under_python_3_8():
    source = Path(setup_env.__file__).read_text(encoding='utf-8')
    ast.parse(source, feature_version=(3, 8))


def test_imports_the_standard_library_only():
    tree = ast.parse(Path(setup_env.__file__).read_text(encoding='utf-8'))
    names = [
        alias.name for node in tree.body if isinstance(node, ast.Import) for alias in node.names
    ]
    names += [node.module for node in tree.body if isinstance(node, ast.ImportFrom)]
    assert 'subprocess' in names  # the walk does find imports
    assert {name.split('.')[0] for name in names} <= sys.stdlib_module_names


PINS = """# pins

onedl-mmengine==1  # no dependencies
torch==2.13.0
numpy==2.2.6
onedl-mmdetection==2
onedl-mmcv==2.3.6
imaug==3
pyyaml==6.0.3+local
zarr==3.1.6 ; python_version >= "3.11"  # none for 3.10
"""


def test_group_requirements():
    torch, libraries, bare, mmcv = setup_env.group_requirements(PINS)
    assert torch == 'torch==2.13.0'
    assert libraries == [
        'numpy==2.2.6',
        'pyyaml==6.0.3+local',
        'zarr==3.1.6 ; python_version >= "3.11"',
    ]
    assert bare == ['onedl-mmengine==1', 'onedl-mmdetection==2', 'imaug==3']
    assert mmcv == 'onedl-mmcv==2.3.6'


@pytest.mark.parametrize('line', ['numpy>=2', 'numpy', '-r other.txt', '--index-url x', 'a==1; b'])
def test_group_requirements_refuses(line):
    with pytest.raises(setup_env.SetupError, match='is not name==version'):
        setup_env.group_requirements(f'{PINS}{line}\n')


def test_requirements_of_the_project_can_be_grouped():
    text = ''.join(path.read_text() for path in setup_env.REQUIREMENTS)
    names = {pin.split('==')[0] for pin in setup_env.group_requirements(text)[1]}
    assert {'numpy', 'packaging', 'pytest', 'ruff', 'opencv-python-headless'} <= names


def test_hash_follows_contents_and_place():
    hashes = {
        setup_env.hash_inputs(Path('/x'), b'1', b'2'),
        setup_env.hash_inputs(Path('/x'), b'1', b'3'),
        setup_env.hash_inputs(Path('/x'), b'12'),
        setup_env.hash_inputs(Path('/y'), b'1', b'2'),
    }
    assert len(hashes) == 4
    assert setup_env.hash_inputs(Path('/x'), b'1', b'2') in hashes


@pytest.mark.parametrize('version', [(3, 8), (3, 9), (3, 13)])
def test_wrong_python_is_refused_before_anything_is_touched(version, tmp_path, monkeypatch):
    (tmp_path / 'kept').touch()
    monkeypatch.setattr(setup_env, 'VENV', tmp_path)
    monkeypatch.setattr(sys, 'version_info', (*version, 0))
    with pytest.raises(
        setup_env.SetupError, match=r'Python 3\.10, 3\.11 or 3\.12 is needed'
    ) as error:
        setup_env.make_venv()
    assert f'this is {version[0]}.{version[1]}:' in str(error.value)
    assert (tmp_path / 'kept').exists()


def test_python_without_ensurepip_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(setup_env, 'VENV', tmp_path)
    monkeypatch.setattr(setup_env, 'find_spec', lambda name: name != 'ensurepip' or None)
    version = f'{sys.version_info[0]}.{sys.version_info[1]}'
    with pytest.raises(setup_env.SetupError, match=f'install python{version}-venv'):
        setup_env.make_venv()


def fake_python(folder, name, version):
    """Make a command that runs ``-c CODE`` as a Python of another version would."""
    path = folder / name
    path.write_text(
        f'#!/bin/sh\nexec {sys.executable} -c "import sys\nsys.version_info = {version}\n$2"\n'
    )
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(
    ('version', 'fits'), [((3, 9), False), ((3, 10), True), ((3, 12, 4), True), ((3, 13), False)]
)
def test_make_names_a_python_that_does_not_fit(tmp_path, version, fits):
    python = fake_python(tmp_path, 'some-python', version)
    command = subprocess.check_output(
        ['make', '--dry-run', '--no-print-directory', 'setup', f'PYTHON={python}'],
        cwd=ROOT,
        text=True,
    )
    if fits:
        assert command == f'{python} tools/setup_env.py\n'
    else:
        assert command.startswith(f"echo 'setup: no Python 3.10, 3.11 or 3.12 among: {python}. ")
        assert command.endswith('exit 2\n')


def test_missing_wheelhouse_is_one_line_and_exit_code_2(monkeypatch, capsys, tmp_path):
    monkeypatch.setenv('WHEELHOUSE', str(tmp_path / 'none'))
    assert setup_env.main() == 2
    assert capsys.readouterr().err == f'setup: WHEELHOUSE={tmp_path}/none is not a folder\n'


@pytest.mark.parametrize(
    ('line', 'text'),
    [
        ('[10/78] c++ -MMD -MF nms.o.d -c nms.cpp', '[10/78] about 11 min left'),  # 68 x 10 s
        ('[77/78] c++ -c last.cpp', '[77/78] about 1 min left'),
        ('[0/78] c++ -c first.cpp', '[0/78] about 130 min left'),
        ('  Downloading numpy-2.2.6.whl (16.8 MB)\n', 'Downloading numpy-2.2.6.whl (16.8 MB)'),
        ('running build_ext', None),
        ('  [3/78] quoted', None),
        ('nms.cpp:[3/78] note', None),
    ],
)
def test_describe_line(line, text):
    assert setup_env.describe_line(line, seconds=100) == text


@pytest.mark.parametrize(
    ('cores', 'memory_gb', 'jobs'), [(2, 23, 2), (16, 9, 4), (8, 1.5, 1), (1, 64, 1)]
)
def test_choose_jobs(cores, memory_gb, jobs):
    assert setup_env.choose_jobs(cores, memory_gb) == jobs


@pytest.mark.parametrize(
    ('output', 'reason'),
    [
        ('OSError: [Errno 28] No space left on device', 'the disk is full'),
        (
            # pip ends with the second line when it could not connect: the first one counts.
            'NewConnectionError: [Errno 111] Connection refused\n'
            'ERROR: No matching distribution found for torch==2.13.0',
            'the package index cannot be reached',
        ),
        (
            'ERROR: No matching distribution found for torch==9.9',
            'there is no torch==9.9 for this Python and machine',
        ),
        ('c++ failed\nerror: something else\n\n', 'error: something else'),
        ('\n', 'no output'),
    ],
)
def test_explain_failure(output, reason):
    assert setup_env.explain_failure(f'some line\n{output}' if output.strip() else output) == reason


@pytest.fixture
def log(tmp_path, monkeypatch):
    monkeypatch.setattr(setup_env, 'ROOT', tmp_path)
    monkeypatch.setattr(setup_env, 'LOG', tmp_path / 'setup.log')
    return tmp_path / 'setup.log'


def test_failed_command_names_the_log(log):
    code = 'import sys; print("on the way"); sys.exit("the reason")'
    with pytest.raises(setup_env.SetupError) as error:
        setup_env.must_run([sys.executable, '-c', code], cwd=log.parent)
    assert str(error.value) == 'the reason (full output: setup.log)'
    assert {'on the way', 'the reason'} <= set(log.read_text().splitlines())


def test_interrupted_command_is_ended(log, monkeypatch):
    def interrupt(line, seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr(setup_env, 'describe_line', interrupt)
    code = 'import time; print("begun", flush=True); time.sleep(5); open("ended", "w")'
    with pytest.raises(KeyboardInterrupt):
        setup_env.run([sys.executable, '-c', code], cwd=log.parent)
    assert log.read_text().endswith('begun\n')
    assert not (log.parent / 'ended').exists()  # run() has waited for its child


def test_half_installed_packages_are_removed(tmp_path):
    packages = tmp_path / 'lib/python3.11/site-packages'
    for name in ('whole-1.dist-info', 'half-1.dist-info', 'half', '~orch'):
        (packages / name).mkdir(parents=True)
    (packages / 'whole-1.dist-info/RECORD').touch()
    setup_env.remove_half_installed(tmp_path)
    assert sorted(path.name for path in packages.iterdir()) == ['half', 'whole-1.dist-info']


def test_children_see_this_environment_alone(monkeypatch):
    monkeypatch.setenv('PYTHONPATH', '/somewhere/else')
    monkeypatch.setenv('PATH', '/usr/bin')
    env = setup_env.child_environment(MAX_JOBS='3')
    assert 'PYTHONPATH' not in env
    assert env['PATH'] == f'{setup_env.VENV / "bin"}:/usr/bin'
    assert env['MAX_JOBS'] == '3'


@pytest.mark.parametrize(('torch_cuda', 'found'), [('13.0', True), ('13.2', True), ('12.8', False)])
def test_find_cuda_wants_the_major_version_of_torch(tmp_path, monkeypatch, torch_cuda, found):
    toolkit, script = tmp_path / 'cuda-13', tmp_path / 'local'
    for home in (toolkit, script):
        (home / 'bin').mkdir(parents=True)
        nvcc = home / 'bin/nvcc'
        nvcc.write_text('#!/bin/sh\necho Cuda compilation tools, release 13.0, V13.0.48\n')
        nvcc.chmod(0o755)
    (toolkit / 'include').mkdir()
    (toolkit / 'include/cuda_runtime.h').touch()
    monkeypatch.setenv('PATH', str(script / 'bin'))  # an nvcc without headers beside it
    monkeypatch.setenv('CUDA_HOME', str(toolkit))
    assert (setup_env.find_cuda(torch_cuda) == str(toolkit)) is found
    monkeypatch.delenv('CUDA_HOME')
    assert setup_env.find_cuda(torch_cuda) != str(script)
