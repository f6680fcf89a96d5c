"""Show a run on one page: python tools/analysis_tools/report.py, as ``nucseg report``."""

from nucseg_mmdet.cli import run

if __name__ == '__main__':
    raise SystemExit(run('report'))
