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
from nucseg_mmdet.evaluation.truth import load_tidy_truth
from nucseg_mmdet.export.coco_results import CocoResults
from nucseg_mmdet.export.writer import SUMMARY
from nucseg_mmdet.slides.base import name_of
from nucseg_mmdet.structures.coco import (
    Detections,
    TruthImage,
    load_json,
    parse_categories,
    parse_results,
    parse_truth,
)
from nucseg_mmdet.structures.coco_entries import CATEGORY_ID
from nucseg_mmdet.structures.coco_tidy import as_one_class, has_types, tidy_results
from nucseg_mmdet.utils.arguments import ArgumentParser
from nucseg_mmdet.utils.errors import (
    UserError,
    check_fraction,
    count_nuclei,
    counted,
    exit_code,
    printable,
    some,
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
    rows = [
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


def read_both(
    truth: Path, results: Path, score_thr: float | None = None
) -> tuple[list[TruthImage], dict[int, Detections], float, list[str]]:
    """Read truth, results of any category, and the score from which on they show a nucleus.

    What is read in another way than it stands there is said. Last come the names of the classes,
    if results and truth both tell classes apart.

    Args:
        truth: COCO truth.
        results: COCO results, or the folder of a run with a file for each image.
        score_thr: the score; by default what the results say.

    Raises:
        UserError: a file is not as it should be, or the results say several scores.
    """

    data, notes = load_tidy_truth(truth, truth.parent)
    categories: dict[int, str] = {}
    found = _load_folder(results, data, truth) if results.is_dir() else load_json(results)
    if has_types(data, found):
        named = parse_categories(data, str(truth))
        categories = {number: name or f'category {number}' for number, name in named.items()}
        if len(set(categories.values())) < len(categories):
            raise UserError(
                f'{truth}: categories are {", ".join(categories.values())}, expected different '
                'names, for results of several categories'
            )
        found = tidy_results(found, ())
    else:
        data, more, nucleus_ids = as_one_class(data)
        notes += more
        _check_categories(found, nucleus_ids, results)
        found = tidy_results(found, nucleus_ids)
    for note in notes:
        print(f'{truth}: {note}', file=sys.stderr)
    images = parse_truth(data, str(truth))
    detections = parse_results(found, images, str(results), list(categories) or [CATEGORY_ID])
    if score_thr is None:
        score_thr = _threshold(found, results)
    return images, detections, score_thr, list(categories.values())


def _check_categories(found: Any, nucleus_ids: set[int], results: Path) -> None:
    """Refuse a category that the truth has not, where it has several; all others count as one."""
    if len(nucleus_ids) == 1 or not isinstance(found, list):
        return
    for index, entry in enumerate(tidy_results(found, ())):
        number = entry.get('category_id') if isinstance(entry, dict) else None
        if isinstance(number, int) and number not in nucleus_ids:
            raise UserError(
                f'{results}: result {index}: category_id is {number}, expected one of '
                f'{sorted(nucleus_ids)!r:.100}'
            )


def _load_folder(folder: Path, data: Any, truth: Path) -> list[dict[str, Any]]:
    """Load the results that a run wrote for the images of tidy truth; their ids are all 1 there.

    Each says the least score that the run kept, where its summary does.
    """
    found: list[dict[str, Any]] = []
    bare = dict(data, annotations=[]) if isinstance(data, dict) else data
    images = parse_truth(bare, str(truth))
    categories = parse_categories(bare, str(truth))
    paths = {
        folder / f'{name_of(Path(image.file_name))}{CocoResults.suffix}': image.id
        for image in images
    }
    if len(paths) < len(images):
        raise UserError(f'{truth}: images of one name, expected another for each file in {folder}')
    if missing := [path.name for path in paths if not path.is_file()]:
        raise UserError(
            f'{folder}: no {some(missing)}, expected what nucseg segment --format coco makes of '
            'the images'
        )
    unknown: list[Path] = []  # of which run they are
    for path, image_id in paths.items():
        entries = load_json(path)
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise UserError(f'{path}: found no list of objects, expected COCO results')
        summary = path.with_name(path.name.removesuffix(CocoResults.suffix) + SUMMARY)
        facts = _read_summary(summary)
        if not facts:
            unknown.append(summary)
        ids = _ids_by_name(facts, categories)
        said = dict(score_thr=facts['score_thr']) if 'score_thr' in facts else {}
        for entry in entries:
            number = entry.get('category_id')
            if isinstance(number, int):
                entry = dict(entry, category_id=ids.get(number, number))
            found.append(dict(entry, image_id=image_id, **said))
    numbers = [entry.get('category_id') for entry in found]
    if unknown and len(categories) > 1 and any(number != numbers[0] for number in numbers):
        raise UserError(
            f'{unknown[0]}: not there, expected it to say which types the categories of the '
            'results are'
        )
    return found


def _read_summary(path: Path) -> dict[str, Any]:
    """What a run says of an image: ``classes`` and, where it does, ``score_thr``; {} if nothing.

    Tiles that could not be read are told.

    Raises:
        UserError: it is none, or the run looked at a part of the image alone.
    """
    if not path.is_file():
        return {}
    facts = load_json(path)
    classes = facts.get('classes') if isinstance(facts, dict) else None
    if not isinstance(classes, list) or not all(isinstance(one, dict) for one in classes):
        raise UserError(f'{path}: classes are {classes!r:.60}, expected those of the run')
    identity = facts.get('identity')
    identity = identity if isinstance(identity, dict) else {}
    region = identity.get('region')
    if region is not None and region != [0, 0, facts.get('width'), facts.get('height')]:
        raise UserError(
            f'{path}: is of the region {region!r:.60}, expected all of the image, without --roi'
        )
    broken = facts.get('broken_tiles')
    if isinstance(broken, list) and broken:
        tiles = '1 tile' if len(broken) == 1 else f'{len(broken)} tiles'
        print(f'{path}: {tiles} could not be read, the nuclei there are missing', file=sys.stderr)
    said = dict(score_thr=identity['score_thr']) if 'score_thr' in identity else {}
    return dict(classes=classes, **said)


def _ids_by_name(facts: dict[str, Any], categories: dict[int, str]) -> dict[int, int]:
    """The truth's ids of the classes that a run knows, by its own ids, which count from 1.

    Where one of them is none of the truth's, all are one id: nuclei of any type.
    """
    names = [str(one.get('name')) for one in facts.get('classes', [])]
    by_name = {name: category_id for category_id, name in categories.items()}
    first = next(iter(categories))
    fits = set(names) <= set(by_name) and len(by_name) == len(categories)
    ids = [by_name[name] if fits else first for name in names]
    return dict(enumerate(ids, CATEGORY_ID)) if len(names) > 1 else {}


def _threshold(found: list[dict], results: Path) -> float:
    """The score that all results say, or else the usual one."""
    said = [entry['score_thr'] for entry in found if entry.get('score_thr') is not None]
    right = [value for value in said if type(value) in (int, float) and 0 <= value <= 1]
    if right != said or len(set(right)) > 1 or len(said) not in (0, len(found)):
        raise UserError(
            f'{results}: several or odd score_thr, or not in every result, expected one from '
            '0 to 1, or --score-thr'
        )
    return right[0] if right else SCORE_THR


@exit_code
def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    check_fraction('--score-thr', args.score_thr)
    if args.json:
        check_file_is_writable(args.json)
        of_run = args.results.iterdir() if args.results.is_dir() else ()
        check_is_not_read(args.json, args.truth, args.results, *of_run)
    images, found, score_thr, names = read_both(args.truth, args.results, args.score_thr)
    if note := note_on_hidden(images):
        print(f'{args.truth}: {note}', file=sys.stderr)
    report = make_report(images, found, score_thr, names)
    if args.json:
        write_json(args.json, without_nan(report))
    print(format_report(report))
    return 0
