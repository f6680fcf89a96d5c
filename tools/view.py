"""Look at slides and their nuclei in a browser: python tools/view.py, as ``nucseg view``."""

from nucseg_mmdet.cli import run

if __name__ == '__main__':
    raise SystemExit(run('view'))
