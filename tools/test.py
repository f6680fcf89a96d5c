"""Test a model: python tools/test.py, as ``nucseg test``."""

from nucseg_mmdet.commands.test import main

if __name__ == '__main__':
    raise SystemExit(main())
