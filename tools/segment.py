"""Segment images and slides of any size: python tools/segment.py, as ``nucseg segment``."""

from nucseg_mmdet.commands.segment import main

if __name__ == '__main__':
    raise SystemExit(main())
