"""The parts of tools/setup_env.py that need no network."""

import ast
import sys
from pathlib import Path

import pytest

from tools import setup_env


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


def test_split_requirements():
    text = '# pins\n\ntorch==2.13.0\nOneDL_mmcv==2.3.6  # the ops\npyyaml==6.0.3+local\n'
    assert setup_env.split_requirements(text) == [
        ('torch', 'torch==2.13.0'),
        ('onedl-mmcv', 'OneDL_mmcv==2.3.6'),
        ('pyyaml', 'pyyaml==6.0.3+local'),
    ]


@pytest.mark.parametrize('line', ['numpy>=2', 'numpy', '-r other.txt', '--index-url x', 'a==1; b'])
def test_split_requirements_refuses(line):
    with pytest.raises(setup_env.SetupError, match='line 2'):
        setup_env.split_requirements(f'torch==2.13.0\n{line}\n')


def test_requirements_of_the_project_are_split_as_meant():
    installer = setup_env.Installer(None, None, lock=-1)
    names = {requirement.split('==')[0] for requirement in installer.others}
    assert installer.torch.startswith('torch==')
    assert installer.mmcv.startswith('onedl-mmcv==')
    assert len(installer.bare) == 3
    assert {'numpy', 'packaging', 'pytest', 'ruff', 'opencv-python-headless'} <= names
    assert not names & {'torch', 'onedl-mmcv', 'onedl-mmengine', 'onedl-mmdetection', 'imaug'}


def test_hash_follows_names_contents_and_place():
    base = setup_env.hash_inputs({'a': b'1', 'b': b'2'}, Path('/x'))
    assert base == setup_env.hash_inputs({'b': b'2', 'a': b'1'}, Path('/x'))
    changed = [
        setup_env.hash_inputs({'a': b'1', 'b': b'3'}, Path('/x')),
        setup_env.hash_inputs({'a': b'2', 'b': b'1'}, Path('/x')),
        setup_env.hash_inputs({'a': b'1'}, Path('/x')),
        setup_env.hash_inputs({'a': b'1', 'b': b'2'}, Path('/y')),
    ]
    assert len({base, *changed}) == 5


def test_up_to_date():
    index = 'somewhere/cuda'
    state = {
        'inputs': 'abc',
        'python': '3.11',
        'torch_index': setup_env.index_digest(index),
    }
    assert setup_env.is_up_to_date(state, 'abc', None, None)
    assert setup_env.is_up_to_date(state, 'abc', index, '3.11')
    assert not setup_env.is_up_to_date(state, 'abd', None, None)
    assert not setup_env.is_up_to_date(state, 'abc', 'somewhere/cpu', None)
    assert not setup_env.is_up_to_date(state, 'abc', None, '3.12')
    assert not setup_env.is_up_to_date({}, 'abc', None, None)
    # Stopped after torch: nothing but the index is known, so it is not whole.
    assert not setup_env.is_up_to_date({'torch_index': state['torch_index']}, 'abc', None, None)


def test_state_is_read_back_and_a_broken_one_is_none(tmp_path, monkeypatch):
    monkeypatch.setattr(setup_env, 'STATE', tmp_path / 'setup.json')
    assert setup_env.read_state() == {}
    setup_env.write_state({'inputs': 'abc'})
    assert setup_env.read_state() == {'inputs': 'abc'}
    assert [path.name for path in tmp_path.iterdir()] == ['setup.json']
    for text in ('{"inputs": "ab', '[]', ''):
        (tmp_path / 'setup.json').write_text(text)
        assert setup_env.read_state() == {}


@pytest.mark.parametrize('version', [(3, 10), (3, 11), (3, 12)])
def test_supported_versions(version):
    assert setup_env.version_problem('python3', version) is None


@pytest.mark.parametrize('version', [(2, 7), (3, 9), (3, 13)])
def test_wrong_version_is_one_line(version):
    problem = setup_env.version_problem('python3', version)
    assert problem.startswith(f'python3 is Python {version[0]}.{version[1]}, ')
    assert '3.10, 3.11 or 3.12' in problem
    assert '\n' not in problem


def fake_python(folder, name, answer):
    path = folder / name
    path.write_text(f'#!/bin/sh\n{answer}\n')
    path.chmod(0o755)
    return str(path)


def test_find_python_takes_the_first_that_fits(tmp_path, monkeypatch):
    fake_python(tmp_path, 'python3', 'echo "[[3, 13], true]"')
    fake_python(tmp_path, 'python3.12', 'echo "no such version" >&2; exit 127')  # a pyenv shim
    fake_python(tmp_path, 'python3.11', 'echo "[[3, 11], true]"')
    fake_python(tmp_path, 'python3.10', 'echo "[[3, 10], true]"')
    monkeypatch.setenv('PATH', str(tmp_path))
    assert setup_env.find_python(None) == ('python3.11', (3, 11))


@pytest.mark.parametrize(
    ('answer', 'message'),
    [
        ('echo "[[3, 9], true]"', 'is Python 3.9, but'),
        ('echo "[[3, 11], false]"', 'apt install python3.11-venv'),
        ('exit 127', 'does not run'),
    ],
)
def test_named_python_that_does_not_do(tmp_path, answer, message):
    python = fake_python(tmp_path, 'some-python', answer)
    with pytest.raises(setup_env.SetupError, match=message) as error:
        setup_env.find_python(python)
    assert python in str(error.value)
    assert '\n' not in str(error.value)


@pytest.mark.parametrize(
    ('line', 'count'),
    [
        ('[3/78] c++ -MMD -MF nms.o.d -c nms.cpp', (3, 78)),
        ('[78/78] c++ -o last.o', (78, 78)),
        ('running build_ext', None),
        ('  [3/78] quoted', None),
        ('nms.cpp:[3/78] note', None),
    ],
)
def test_parse_ninja(line, count):
    assert setup_env.parse_ninja(line) == count


@pytest.mark.parametrize(
    ('done', 'total', 'seconds', 'text'),
    [
        (2, 78, 60, 'compiled 2 of 78 files'),  # too early to tell
        (10, 78, 100, 'compiled 10 of 78 files, about 11 min left'),  # 68 x 10 s = 11.3 min
        (77, 78, 770, 'compiled 77 of 78 files, about 1 min left'),
        (78, 78, 780, 'compiled 78 of 78 files'),
    ],
)
def test_describe_compile(done, total, seconds, text):
    assert setup_env.describe_compile(done, total, seconds) == text


@pytest.mark.parametrize(
    ('seconds', 'text'), [(0, '0:00'), (59.9, '0:59'), (61, '1:01'), (3_725, '1:02:05')]
)
def test_format_time(seconds, text):
    assert setup_env.format_time(seconds) == text


@pytest.mark.parametrize(
    ('cores', 'memory_gb', 'jobs'), [(2, 23, 2), (16, 9, 4), (8, 1.5, 1), (1, 64, 1)]
)
def test_choose_jobs(cores, memory_gb, jobs):
    assert setup_env.choose_jobs(cores, memory_gb) == jobs


@pytest.mark.parametrize(
    ('torch_cuda', 'nvcc', 'for_gpu', 'warning'),
    [
        ('13.0', '13.0', True, None),
        ('13.0', '13.1', True, None),  # the same major version is enough for torch
        (None, '13.0', False, None),  # nvcc beside a CPU torch
        (None, None, False, None),
        ('13.0', None, False, 'there is no nvcc'),
        ('13.0', '12.4', False, 'nvcc is that of CUDA 12.4'),
    ],
)
def test_choose_ops(torch_cuda, nvcc, for_gpu, warning):
    chosen, text = setup_env.choose_ops(torch_cuda, nvcc)
    assert chosen is for_gpu
    assert (text is None) == (warning is None)
    if warning:
        assert warning in text
        assert '\n' not in text


@pytest.mark.parametrize(
    ('output', 'reason'),
    [
        ('OSError: [Errno 28] No space left on device', 'the disk is full'),
        (
            # pip ends with the second line when it could not connect: the first one counts.
            'NewConnectionError: [Errno 111] Connection refused\n'
            'ERROR: No matching distribution found for torch==2.13.0',
            'cannot be reached',
        ),
        ('ERROR: No matching distribution found for torch==9.9', 'has torch==9.9 for'),
        ('c++: fatal error: Killed signal terminated program cc1plus', 'MAX_JOBS=1'),
    ],
)
def test_explain_failure(output, reason):
    text = setup_env.explain_failure(f'some line\n{output}\nlast line')
    assert reason in text
    assert '\n' not in text


def test_explain_failure_admits_ignorance():
    assert setup_env.explain_failure('error: something else') is None


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
