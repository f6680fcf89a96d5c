"""Score COCO results: python tools/score.py, as ``nucseg score``."""

from nucseg_mmdet.cli import run

if __name__ == '__main__':
    raise SystemExit(run('score'))
