"""Show a run on one page: nucseg report WORK_DIR [--out report.html].

The page has the scores, precision-recall, the score threshold against PQ, the training
curves, and every tested image with its nuclei. It is one file, for any browser, offline.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from nucseg_mmdet.evaluation.html_report import write_report
from nucseg_mmdet.utils.arguments import ArgumentParser
from nucseg_mmdet.utils.errors import UserError, check_fraction, exit_code
from nucseg_mmdet.utils.files import check_file_is_writable


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = ArgumentParser(
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('work_dir', type=Path, help='folder of a run that nucseg test tested')
    parser.add_argument('--out', type=Path, help='default: WORK_DIR/report.html')
    parser.add_argument(
        '--score-thr',
        type=float,
        help="show detections from this score on; default: that of the run's label maps",
    )
    parser.add_argument(
        '--annotations',
        metavar='NAME',
        help='which scored annotation file, such as fold1_val.json; default: the last tested',
    )
    return parser.parse_args(argv)


@exit_code
def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    check_fraction('--score-thr', args.score_thr)
    out = args.out or args.work_dir / 'report.html'
    if args.out:
        check_file_is_writable(out)
        if out.suffix not in ('.html', '.htm'):
            raise UserError(f'--out {out}: expected a name that ends with .html')
    write_report(args.work_dir, out, args.score_thr, args.annotations)
    print(f'{out} written, {out.stat().st_size / 1e6:.1f} MB')
    return 0
