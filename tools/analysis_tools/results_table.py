"""Make one table of all runs: python tools/analysis_tools/results_table.py results [--into FILE].

Prints a Markdown table of the original experiments and of every run card in the folder. A card
that is damaged, or whose settings are not those of the config that it names, is left out and told;
one of before cards had settings is a row of its own, not proven.
A table that lacks a run is printed, with exit code 1, but not written to a file.
--into replaces the table between two marked lines of a Markdown file instead, such as
docs/results.md.
"""

from nucseg_mmdet.utils.start import start_script

if __name__ == '__main__':
    start_script()

import argparse
import ast
import csv
import html
import io
import os
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nucseg_mmdet.engine import card_check
from nucseg_mmdet.evaluation import run_cards
from nucseg_mmdet.utils.arguments import ArgumentParser
from nucseg_mmdet.utils.errors import UserError, describe_item, exit_code, few, printable
from nucseg_mmdet.utils.files import check_file_is_writable, write_text
from nucseg_mmdet.utils.reading import read_bytes

CONFIGS = Path(__file__).resolve().parents[2] / 'configs' / 'vrdl'
NUMBER = re.compile(r'_e(\d\d)_')
PUBLISHED = re.compile(r'Published mAP (\d\.\d+)')
BEGIN, END = '<!-- results table -->', '<!-- end of results table -->'
# Column of the CSV file, its head in Markdown.
COLUMNS = {
    'number': 'no.',
    'run': 'run',
    'published_map': 'published mAP',
    'scored_on': 'scored on',
    'ap50_100': 'AP50@100',
    'ceiling_share': 'of its ceiling',
    'ap': 'AP',
    'ap50': 'AP50',
    'aji': 'AJI',
    'pq': 'PQ',
    'recall': 'recall',
    'weights': 'initial weights',
    'iterations': 'iterations',
    'seconds': 'time',
    'gpu_bytes': 'GPU memory',
    'commit': 'commit',
}
LEFT_ALIGNED = ('run', 'scored_on', 'weights', 'commit')
NOT_PROVEN = 'not proven'
# Of a second orientation among the views of a test.
VIEW = re.compile(r'test_dataloader\.dataset\.pipeline\.\d+\.transforms\.1\.1\.')
COMMIT = re.compile(r'[0-9a-f]{40}')

Row = dict[str, Any]


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = ArgumentParser(
        prog='results_table.py',
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('work_dirs', type=Path, help='folder of the work folders')
    parser.add_argument('--csv', type=Path, metavar='OUT', help='write the table as CSV, too')
    parser.add_argument(
        '--into',
        type=Path,
        metavar='MARKDOWN',
        help=f'put the table between the lines {BEGIN} and {END} of this file',
    )
    return parser.parse_args(argv)


def read_published(folder: Path) -> dict[str, str]:
    """Read the published mAP of each original experiment from its config's docstring.

    Returns:
        From the config's name to the number as published, by ascending name.

    Raises:
        UserError: a config says no number.
    """
    published = {}
    for path in sorted(folder.glob('*.py'), key=lambda path: _number(path.stem) or 0):
        found = PUBLISHED.search(ast.get_docstring(ast.parse(path.read_text('utf-8'))) or '')
        if not found:
            raise UserError(f'{path}: docstring has no published mAP, expected one')
        published[path.stem] = found[1]
    return published


def read_runs(work_dirs: Path) -> tuple[list[Row], list[str]]:
    """Make a row for each scored annotation file of each run, or one for a run without.

    Args:
        work_dirs: holds the work folders, or folders of them.

    Returns:
        Rows with some of the keys of ``COLUMNS``, and a line for each run card that is damaged or
        not of its config.

    Raises:
        UserError: there is no such folder.
    """
    if not work_dirs.is_dir():
        raise UserError(f'{work_dirs}: no such folder, expected the folder of the work folders')
    rows, problems = [], []
    # Not '**', which would leave out linked folders.
    for folder in sorted(folder for depth in ('*', '*/*') for folder in work_dirs.glob(depth)):
        path = folder / run_cards.CARD
        if not os.path.lexists(path):  # there is also a link that leads nowhere, which is told
            continue
        try:
            card = run_cards.read_run_card(path)
            card_check.check_card(card, folder.name, path)
            rows += _rows_of_card(card, str(folder.relative_to(work_dirs)))
        except Exception as error:
            problems.append(describe_item(path, error))
    return rows, problems


def make_rows(runs: Sequence[Row], published: dict[str, str]) -> list[Row]:
    """Put the rows of runs in order, the original experiments first.

    Every original experiment has a row, run or not; they come by number.

    Args:
        runs: as ``read_runs``.
        published: as ``read_published``.
    """
    seen = {row['config'] for row in runs}
    rows = [*runs, *(dict(config=name, run=name) for name in published if name not in seen)]
    for row in rows:
        row['number'] = _number(row['config']) if row['config'] in published else None
        row['published_map'] = published.get(row['config'])
    return sorted(rows, key=lambda row: (row['number'] or 99, row['run']))


def _number(config: str) -> int | None:
    found = NUMBER.search(config)
    return int(found[1]) if found else None


def _rows_of_card(card: dict[str, Any], run: str) -> list[Row]:
    weights = card.get('load_from') or card.get('initial_weights')
    row = dict(
        config=card.get('config') or run,
        run=run,
        weights=weights and re.split(r'[/:]+', weights)[-1],
        iterations=card.get('iteration'),
        seconds=card.get('train_seconds'),
        gpu_bytes=card.get('peak_gpu_bytes'),
        commit=card_check.proof(card, {}) or NOT_PROVEN,
    )
    rows = []
    for name, values in card['scores'].items():
        if 'nuclei/AP50@100' not in values:
            continue  # a submission was written, not scored
        score, ceiling = (values.get(f'nuclei/AP50@100{end}') for end in ('', '_ceiling'))
        rows.append(
            dict(
                row,
                config=card.get('config') or values.get('config') or run,
                scored_on=Path(name).stem + _way_of_test(values),
                ap50_100=score,
                ceiling_share=score / ceiling if ceiling and score is not None else None,
                ap=values.get('nuclei/AP'),
                ap50=values.get('nuclei/AP50'),
                aji=values.get('nuclei/AJI'),
                pq=values.get('nuclei/PQ'),
                recall=values.get('nuclei/recall'),
                commit=card_check.proof(card, values) or NOT_PROVEN,
            )
        )
    return rows or [row]


def _way_of_test(scored: dict[str, Any]) -> str:
    """What a test did besides looking at each image once with one model in float32."""
    settings, others = scored.get('settings') or {}, scored.get('others_sha256') or []
    views = any(VIEW.match(key) for key in settings)
    precision = scored.get('precision') or 'fp32'
    ways = [
        *(['tta'] if views else []),
        *([f'{len(others) + 1} models'] if others else []),
        *([precision] if precision != 'fp32' else []),
    ]
    return ''.join(f', {way}' for way in ways)


def to_markdown(rows: Sequence[Row]) -> str:
    """Lay the rows out as a Markdown table with units, padded to be read as text, too."""
    cells = [list(COLUMNS.values())]
    cells += [[_cell(key, row.get(key)) for key in COLUMNS] for row in rows]
    widths = [max(len(line[index]) for line in cells) for index in range(len(COLUMNS))]
    left = [key in LEFT_ALIGNED for key in COLUMNS]
    lines = [
        [
            text.ljust(width) if is_left else text.rjust(width)
            for text, width, is_left in zip(line, widths, left, strict=True)
        ]
        for line in cells
    ]
    rule = [
        '-' * width if is_left else '-' * (width - 1) + ':'
        for width, is_left in zip(widths, left, strict=True)
    ]
    return ''.join(f'| {" | ".join(line)} |\n' for line in [lines[0], rule, *lines[1:]])


def _cell(key: str, value: Any) -> str:
    if value is None:
        return ''
    if key == 'ceiling_share':
        return f'{value:.0%}'
    if key == 'iterations':
        return f'{value:,}'
    if key == 'seconds':
        minutes = round(value / 60)
        return f'{minutes // 60} h {minutes % 60:02} min' if minutes >= 60 else f'{minutes} min'
    if key == 'gpu_bytes':
        return f'{value / 2**30:.1f} GiB'
    if isinstance(value, float):
        return f'{value:.4f}'
    text = str(value)
    if key == 'commit':
        text = COMMIT.sub(lambda found: found[0][:7], text)
    if key in ('run', 'weights'):  # what every name here has in common
        text = text.removeprefix('mask-rcnn_').replace('_nuclei', '')
    return html.escape(printable(text), quote=False).replace('|', '\\|')


def to_csv(rows: Sequence[Row]) -> str:
    """Write the rows as CSV: plain numbers, seconds, bytes; what is unknown stays empty."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, extrasaction='ignore', lineterminator='\n')
    writer.writeheader()
    writer.writerows({key: _harmless(value) for key, value in row.items()} for row in rows)
    return text.getvalue()


def _harmless(value: Any) -> Any:
    """A name that no spreadsheet takes for a formula."""
    return f"'{value}" if isinstance(value, str) and value.startswith(tuple('=+-@')) else value


def replace_table(text: str, table: str, source: str) -> str:
    """Put a table between the two marked lines of a Markdown text, with the line ends that it has.

    Raises:
        UserError: the lines are not there once each, in this order.
    """
    marks = rf'^({re.escape(BEGIN)}|{re.escape(END)})(?=\r?$)'
    parts = re.split(marks, text, flags=re.MULTILINE)
    if parts[1::2] != [BEGIN, END]:
        raise UserError(f'{source}: expected the lines {BEGIN} and {END}, once each')
    middle = f'{BEGIN}\n\n{table}\n{END}'
    if parts[2].startswith('\r\n'):
        middle = middle.replace('\n', '\r\n')
    return f'{parts[0]}{middle}{parts[4]}'


@exit_code
def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    if args.csv:
        check_file_is_writable(args.csv)
        if args.csv.suffix != '.csv':
            raise UserError(f'--csv {args.csv}: expected a name that ends with .csv')
    runs, problems = read_runs(args.work_dirs)
    if problems and (args.into or args.csv):
        raise UserError(*few(problems), 'nothing written, expected all runs in the table')
    if problems and not runs:
        raise UserError(*few(problems))
    rows = make_rows(runs, read_published(CONFIGS))
    table = to_markdown(rows)
    if args.into:
        if not args.into.is_file():
            raise UserError(f'{args.into}: no such file, expected Markdown')
        try:
            text = read_bytes(args.into).decode()
        except UnicodeDecodeError:
            raise UserError(f'{args.into}: is not in UTF-8, expected Markdown') from None
        write_text(args.into, replace_table(text, table, str(args.into)))
    else:
        print(table, end='')
    if args.csv:
        write_text(args.csv, to_csv(rows))
    for problem in few(problems):
        print(f'left out: {printable(problem)}', file=sys.stderr)
    return int(bool(problems))


if __name__ == '__main__':
    raise SystemExit(main())
