"""Train one config: python tools/train.py, as ``nucseg train``."""

from nucseg_mmdet.commands.train import main

if __name__ == '__main__':
    raise SystemExit(main())
