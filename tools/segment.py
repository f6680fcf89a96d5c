"""Segment images and slides of any size: python tools/segment.py, as ``nucseg segment``."""

from nucseg_mmdet.cli import run

if __name__ == '__main__':
    raise SystemExit(run('segment'))
