"""Rooms that work without torch and the mm stack, proved by importing them without."""

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
