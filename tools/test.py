"""Test a model: python tools/test.py, as ``nucseg test``."""

from nucseg_mmdet.cli import run

if __name__ == '__main__':
    raise SystemExit(run('test'))
