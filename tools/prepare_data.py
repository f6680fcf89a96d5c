"""Raw data to COCO JSON and images: python tools/prepare_data.py, as ``nucseg prepare``."""

from nucseg_mmdet.cli import run

if __name__ == '__main__':
    raise SystemExit(run('prepare'))
