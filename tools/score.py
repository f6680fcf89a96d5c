"""Score COCO results: python tools/score.py, as ``nucseg score``."""

from nucseg_mmdet.commands.score import main

if __name__ == '__main__':
    raise SystemExit(main())
