"""Rooms that work without torch and the mm stack, proved by importing them without."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / 'nucseg_mmdet'
ROOMS = ['utils', 'structures', 'imaging', 'slides', 'export', 'viewer']
HEAVY = ('torch', 'mmcv', 'mmengine', 'mmdet')


def modules_of(room):
    paths = sorted((PACKAGE / room).glob('[!_]*.py'))
    assert paths, room
    return [f'nucseg_mmdet.{room}.{path.stem}' for path in paths]


@pytest.mark.parametrize('room', ROOMS)
def test_imports_neither_torch_nor_mm(room):
    modules = ', '.join(modules_of(room))
    code = f'import sys, {modules}; print([name for name in {HEAVY} if name in sys.modules])'
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == '[]'


def test_modules_and_functions_are_short():
    long = []
    for path in sorted(PACKAGE.rglob('*.py')):
        text = path.read_text()
        if text.count('\n') >= 400:
            long.append(path.name)
        for node in ast.walk(ast.parse(text)):
            is_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            if is_function and node.end_lineno - node.lineno >= 60:
                long.append(f'{path.name}: {node.name}')
    assert long == []
