"""Show a run on one page: python tools/analysis_tools/report.py, as ``nucseg report``."""

from nucseg_mmdet.commands.report import main

if __name__ == '__main__':
    raise SystemExit(main())
