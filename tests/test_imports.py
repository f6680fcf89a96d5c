"""Importing the project's modules says nothing."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
# Each in a Python of its own, as what comes first brings mmdet's parts with it.
FIRST = ['evaluation.metrics', 'inference.mmdet_predictor', 'commands.train']


def run(*arguments):
    env = {**os.environ, 'PYTHONPATH': str(ROOT), 'PYTHONWARNINGS': 'ignore'}
    return subprocess.run(
        [sys.executable, *arguments], capture_output=True, text=True, env=env, cwd=ROOT, check=True
    )


@pytest.mark.parametrize('module', FIRST)
def test_import_is_silent(module):
    done = run('-c', f'import nucseg_mmdet.{module}')
    assert (done.stdout, done.stderr) == ('', '')


def test_help_comes_alone():
    done = run('-m', 'nucseg_mmdet.cli', 'test', '--help')
    assert done.stdout.startswith('usage: nucseg test ')
    assert done.stderr == ''
