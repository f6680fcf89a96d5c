import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from nucseg_mmdet import __version__, cli
from nucseg_mmdet.commands import check, prepare
from nucseg_mmdet.converters import export
from nucseg_mmdet.engine.provenance import command

ROOT = Path(__file__).parents[1]
EXPORT = 'model_converters/export_openvino.py --out a.openvino.zip'
TOOLS = ['prepare_data', 'score', 'segment', 'test', 'train', 'analysis_tools/report']


def run_fresh(code):
    """Run code in a Python of its own, and return what it prints."""
    return subprocess.check_output([sys.executable, '-c', code], text=True)


@pytest.mark.parametrize('argument', ['--help', '--version'])
def test_help_imports_nothing_that_is_slow(argument):
    heavy = run_fresh(
        'import sys; from nucseg_mmdet import cli\n'
        f"cli.main(['{argument}'])\n"
        "print(sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    loaded = set(heavy.splitlines()[-1].strip('[]').replace("'", '').split(', '))
    assert 'nucseg_mmdet' in loaded  # the list does show what is imported
    assert not loaded & {'torch', 'mmcv', 'mmdet', 'mmengine', 'numpy', 'cv2', 'openvino'}


@pytest.mark.parametrize('name', ['check', 'prepare'])
def test_help_does_without_docstrings(name, monkeypatch):
    for module in (check, prepare, export, *prepare.READERS.values()):
        monkeypatch.setattr(module, '__doc__', None)  # as python -OO leaves them
    with pytest.raises(SystemExit, match=r'^0$'):
        cli.main([name, '--help'])


def test_help_names_every_command(capsys):
    assert cli.main(['--help']) == 0
    text = capsys.readouterr().out
    for name in (
        'segment',
        'view',
        'score',
        'train',
        'test',
        'prepare',
        'report',
        'models',
        'check',
    ):
        assert f'\n  {name} ' in text


def test_without_a_command_help_is_shown_and_nothing_claimed(capsys):
    assert cli.main([]) == 2
    assert capsys.readouterr().out.startswith('usage: nucseg COMMAND')


def test_version(capsys):
    assert cli.main(['--version']) == 0
    assert capsys.readouterr().out == f'nucseg-mmdet {__version__}\n'


def test_the_command_line_has_its_name_once(monkeypatch):
    """As run cards tell it."""
    monkeypatch.setattr(sys, 'argv', ['/usr/bin/nucseg', 'score', 'truth.json', 'none.json'])
    assert cli.main() == 2
    assert command() == 'nucseg score truth.json none.json'


def test_unknown_command_is_one_line(capsys):
    assert cli.main(['segmnt', 'slide.svs']) == 2
    error = capsys.readouterr().err
    assert error.startswith('nucseg: segmnt: expected one of segment, view, score, ')
    assert error.count('\n') == 1


@pytest.mark.parametrize(
    ('missing', 'message'),
    [
        ('torch', "pip install 'nucseg-mmdet[train]'"),
        ('mmdet.apis', "pip install 'nucseg-mmdet[train]'"),
        ('starlette', "pip install 'nucseg-mmdet[view]'"),
        ('uvicorn', "pip install 'nucseg-mmdet[view]'"),
        ('nucseg_mmdet.commands.nothing', 'unforeseen ModuleNotFoundError'),
    ],
)
def test_missing_extra_is_named_and_a_broken_module_is_not_hidden(missing, message):
    code = (
        'import sys; from nucseg_mmdet import cli\n'
        'def fail(name): raise ModuleNotFoundError(name=sys.argv[1])\n'
        'cli.importlib.import_module = fail\n'
        "sys.exit(cli.main(['train']))"
    )
    done = subprocess.run(
        [sys.executable, '-c', code, missing], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert message in done.stderr
    assert done.stderr.count('\n') == 1


@pytest.mark.parametrize('name', list(cli.COMMANDS))
def test_each_command_shows_its_own_help(name, capsys):
    with pytest.raises(SystemExit) as end:
        cli.main([name, '--help'])
    assert end.value.code == 0
    assert capsys.readouterr().out.startswith(f'usage: nucseg {name} ')


def interrupt_import(library, call, tmp_path):
    """Run a command whose import of a large library takes so long that the user gives up."""
    (tmp_path / f'{library}.py').write_text(
        'import os, signal, time\nos.kill(os.getpid(), signal.SIGINT)\ntime.sleep(60)\n'
    )
    ended = subprocess.run(
        [sys.executable, *call],
        env={**os.environ, 'PYTHONPATH': f'{tmp_path}:{ROOT}'},
        # A shell lets what it starts in the background ignore Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        capture_output=True,
        text=True,
    )
    return ended.returncode, ended.stdout, ended.stderr


@pytest.mark.parametrize('start', [*TOOLS, 'nucseg segment', 'nucseg train'])
def test_ctrl_c_while_a_command_is_imported_is_one_line(start, tmp_path):
    name = start.removeprefix('nucseg ')
    call = [ROOT / f'tools/{name}.py'] if name == start else ['-m', 'nucseg_mmdet.cli', name]
    assert interrupt_import('numpy', call, tmp_path) == (130, '', 'nucseg: stopped\n')


@pytest.mark.parametrize(
    ('start', 'library'),
    [
        ('analysis_tools/benchmark.py', 'torch'),
        ('analysis_tools/browse_data.py', 'numpy'),
        ('analysis_tools/reproduce.py', 'mmengine'),
        ('analysis_tools/resizing.py', 'cv2'),
        ('analysis_tools/results_table.py', 'mmengine'),
        ('analysis_tools/truth_offset.py', 'numpy'),
        ('model_converters/detectron2_to_mmdet.py', 'torch'),
        ('model_converters/export_openvino.py', 'numpy'),
        ('model_converters/publish_model.py', 'torch'),
        ('benchmarks.slides', 'cv2'),
        ('benchmarks.tiles', 'cv2'),
        ('benchmarks.viewer', 'numpy'),
        ('evaluation.submission', 'numpy'),
        ('synthetic.fields', 'cv2'),
        ('synthetic.slides', 'cv2'),
    ],
)
def test_ctrl_c_while_another_tool_is_imported_ends_it_in_silence(start, library, tmp_path):
    is_file = start.endswith('.py')
    call = [ROOT / 'tools' / start] if is_file else ['-m', f'nucseg_mmdet.{start}']
    assert interrupt_import(library, call, tmp_path) == (-signal.SIGINT, '', '')


@pytest.mark.parametrize(
    ('start', 'name', 'library', 'extra'),
    [
        ('train.py', 'nucseg', 'torch', 'train'),
        ('analysis_tools/benchmark.py', 'benchmark', 'torch', 'train'),
        ('analysis_tools/browse_data.py', 'browse_data', 'mmdet', 'train'),
        ('analysis_tools/reproduce.py', 'reproduce', 'mmengine', 'train'),
        ('analysis_tools/results_table.py', 'results_table', 'mmengine', 'train'),
        ('model_converters/detectron2_to_mmdet.py', 'detectron2_to_mmdet', 'torch', 'train'),
        (EXPORT, 'export_openvino', 'torch', 'train'),
        (EXPORT, 'export_openvino', 'openvino', 'slides'),
        ('model_converters/publish_model.py', 'publish_model', 'torch', 'train'),
        ('benchmarks.slides', 'slides', 'openvino', 'slides'),
        ('benchmarks.stock', 'stock', 'torch', 'train'),
    ],
)
def test_a_library_that_is_not_installed_is_one_line(start, name, library, extra, tmp_path):
    (tmp_path / f'{library}.py').write_text(
        f'raise ModuleNotFoundError("No module named \'{library}\'", name="{library}")'
    )
    path, *options = start.split()
    is_file = path.endswith('.py')
    call = [ROOT / 'tools' / path] if is_file else ['-m', f'nucseg_mmdet.{path}']
    ended = subprocess.run(
        [sys.executable, *call, *options],
        cwd=tmp_path,
        env={**os.environ, 'PYTHONPATH': f'{tmp_path}:{ROOT}'},
        capture_output=True,
        text=True,
    )
    assert (ended.returncode, ended.stdout) == (2, '')
    assert ended.stderr == (
        f"{name}: {library} is not installed, expected it: pip install 'nucseg-mmdet[{extra}]', "
        'see docs/install.md\n'
    )
