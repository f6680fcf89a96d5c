"""Score COCO results: nucseg score TRUTH.json RESULTS.json [--json OUT].

RESULTS may also be a .json.gz file, an answer.zip, or the folder that nucseg segment --format coco
wrote for the images of the truth. Prints three tables: COCO's average precisions, the scores of
label maps, and what became of the true nuclei by image and size; and one of each class, where truth
and results have several. --json writes them, and more, to a file.
"""

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nucseg_mmdet.evaluation.coco_ap import BANDS, LARGE, SMALL
from nucseg_mmdet.evaluation.label_scores import FATES, TOUCHED
from nucseg_mmdet.evaluation.summary import SCORE_THR, make_report, note_on_hidden, tell_apart
from nucseg_mmdet.export.coco_reader import read_truth_and_results
from nucseg_mmdet.utils.arguments import ArgumentParser
from nucseg_mmdet.utils.errors import (
    check_fraction,
    count_nuclei,
    counted,
    exit_code,
    printable,
)
from nucseg_mmdet.utils.files import check_file_is_writable, without_nan, write_json
from nucseg_mmdet.utils.reading import check_is_not_read

COCO_KEYS = (
    'AP50@100', 'AP50@100_ceiling', 'AP', 'AP50', 'AP75', 'AP_small', 'AP_medium', 'AP_large',
)  # fmt: skip
TYPE_KEYS = ('PQ', 'DQ', 'SQ', 'precision', 'recall', 'F_c')
LABEL_KEYS = ('AJI', 'AJI+', 'DQ', 'SQ', 'PQ', 'Dice', 'F1', 'precision', 'recall', 'F1@75')


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('truth', type=Path, help='COCO truth; all its categories are nuclei')
    parser.add_argument(
        'results',
        type=Path,
        help='COCO results: .json, .json.gz, answer.zip; or a folder of nucseg segment',
    )
    parser.add_argument(
        '--score-thr',
        type=float,
        help='label maps leave out results below this score, default: what the results of nucseg '
        f'test or the summaries of nucseg segment say, or else {SCORE_THR}',
    )
    parser.add_argument('--json', type=Path, metavar='OUT', help='write all scores to this file')
    return parser.parse_args(argv)


def format_report(report: dict[str, Any]) -> str:
    """Lay a report of ``make_report`` out as aligned tables."""
    rows = report['per_image']
    paths = [row['file_name'] for row in rows]
    names = [printable(name) for name in tell_apart([Path(path).stem for path in paths], paths)]
    coco = [*zip(names, rows, strict=True), ('all images', report['scores'])]
    labels = [
        *zip(names, rows, strict=True),
        ('mean of images', report['scores']),
        ('pooled', report['pooled']),
    ]
    return '\n'.join(
        [
            f'{counted(report["images"], "image")}, {count_nuclei(report["nuclei"])}, '
            f'{counted(report["results"], "result")}',
            '',
            *_table('COCO, masks', coco, COCO_KEYS),
            f'small, large: AP of masks up to {SMALL} px, from {LARGE} px',
            '',
            f'{counted(report["results_kept"], "result")} with a score of {report["score_thr"]} '
            'or more',
            '',
            *_table('label maps', labels, LABEL_KEYS),
            '',
            *_fate_table(names, [row['fates'] for row in rows], [row['offset'] for row in rows]),
            'found: at an IoU above 0.5; merged: with another nucleus; split: into parts; '
            f'cut: at an IoU of {TOUCHED} to 0.5; else missed',
            'right, below: px by which found nuclei lie there of their truth, by the centroids',
            *(_type_tables(report['types']) if 'types' in report else []),
        ]
    )


def _type_tables(types: dict[str, Any]) -> list[str]:
    """Lay out the scores of each class, and what nuclei of one were taken for."""
    names = [printable(one['name']) for one in types['classes']]
    first = max(len(name) for name in ['% taken for', *names])
    heads = ['nuclei', 'results', *(key.rjust(6) for key in TYPE_KEYS)]
    lines = ['', '  '.join(['classes'.ljust(first), *heads])]
    for one in types['classes']:
        cells = [f'{one["nuclei"]:6}', f'{one["results"]:7}']
        scores = ['-' if math.isnan(one[key]) else f'{one[key]:.4f}' for key in TYPE_KEYS]
        cells += [cell.rjust(len(head)) for cell, head in zip(scores, heads[2:], strict=True)]
        lines.append('  '.join([printable(one['name']).ljust(first), *cells]))
    lines += [
        f'mPQ+ {types["mPQ+"]:.4f}, mPQ {types["mPQ"]:.4f}, F_d {types["F_d"]:.4f}',
        '',
        '  '.join(['% taken for'.ljust(first), *(name.rjust(6) for name in names), ' missed']),
    ]
    for one, row in zip(types['classes'], types['pairs'], strict=True):
        cells = [*row, one['nuclei'] - sum(row)]
        shares = [f'{100 * cell / one["nuclei"]:.1f}' if one['nuclei'] else '-' for cell in cells]
        widths = [*(max(6, len(name)) for name in names), 7]
        cells = [share.rjust(width) for share, width in zip(shares, widths, strict=True)]
        lines.append('  '.join([printable(one['name']).ljust(first), *cells]))
    return lines


def _table(
    title: str, rows: Sequence[tuple[str, dict[str, float]]], keys: Sequence[str]
) -> list[str]:
    first = max(len(name) for name in [title, *(name for name, _ in rows)])
    heads = [key.removeprefix('AP50@100_').removeprefix('AP_').rjust(6) for key in keys]
    lines = ['  '.join([title.ljust(first), *heads])]
    for name, scores in rows:
        cells = ['-' if math.isnan(scores[key]) else f'{scores[key]:.4f}' for key in keys]
        cells = [cell.rjust(len(head)) for cell, head in zip(cells, heads, strict=True)]
        lines.append('  '.join([name.ljust(first), *cells]))
    return lines


def _fate_table(
    names: Sequence[str],
    fates: Sequence[dict[str, dict[str, int]]],
    offsets: Sequence[tuple[float, float]],
) -> list[str]:
    """Lay out how many nuclei in a hundred were found or lost, by image and by size."""
    rows: list[tuple[str, dict[str, int], Sequence[float]]] = [
        (name, counts['all'], offset)
        for name, counts, offset in zip(names, fates, offsets, strict=True)
    ]
    found = [
        (counts['all']['found'], offset) for counts, offset in zip(fates, offsets, strict=True)
    ]
    pooled = [
        sum(number * offset[axis] for number, offset in found if number)
        / (sum(number for number, _ in found) or math.nan)
        for axis in (0, 1)
    ]
    for band in ('all', *BANDS):
        total = {fate: sum(counts[band][fate] for counts in fates) for fate in FATES}
        rows.append((f'{band} nuclei', total, pooled if band == 'all' else ()))
    first = max(len(name) for name, _, _ in rows)
    heads = [*(fate.rjust(6) for fate in FATES), ' right', ' below']
    lines = ['  '.join(['%'.ljust(first), 'nuclei', *heads])]
    for name, counts, offset in rows:
        nuclei = sum(counts.values())
        cells = [f'{100 * counts[fate] / nuclei:6.1f}' if nuclei else '     -' for fate in FATES]
        shifts = ['     -' if math.isnan(axis) else f'{axis:+6.2f}' for axis in offset]
        lines.append('  '.join([name.ljust(first), f'{nuclei:6}', *cells, *shifts]))
    return lines


@exit_code
def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    check_fraction('--score-thr', args.score_thr)
    if args.json:
        check_file_is_writable(args.json)
        of_run = args.results.iterdir() if args.results.is_dir() else ()
        check_is_not_read(args.json, args.truth, args.results, *of_run)
    images, found, score_thr, names = read_truth_and_results(
        args.truth, args.results, args.score_thr
    )
    if note := note_on_hidden(images):
        print(f'{args.truth}: {note}', file=sys.stderr)
    report = make_report(images, found, score_thr, names)
    if args.json:
        write_json(args.json, without_nan(report))
    print(format_report(report))
    return 0
