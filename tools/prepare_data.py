"""Raw data to COCO JSON and images: python tools/prepare_data.py, as ``nucseg prepare``."""

from nucseg_mmdet.commands.prepare import main

if __name__ == '__main__':
    raise SystemExit(main())
