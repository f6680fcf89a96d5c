"""Train one config: python tools/train.py, as ``nucseg train``."""

from nucseg_mmdet.cli import run

if __name__ == '__main__':
    raise SystemExit(run('train'))
