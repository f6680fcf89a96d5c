"""COCO results read back, of a file or of the folder of a run, with the truth that scores them."""

import sys
from pathlib import Path
from typing import Any

from nucseg_mmdet.evaluation.summary import SCORE_THR
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
from nucseg_mmdet.utils.errors import UserError, some


def read_truth_and_results(
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
    if results.is_dir():
        found, knows_types = _load_folder(results, data, truth)
    else:
        found, knows_types = load_json(results), False
    if knows_types or has_types(data, found):
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


def _load_folder(folder: Path, data: Any, truth: Path) -> tuple[list[dict[str, Any]], bool]:
    """Load the results that a run wrote for the images of tidy truth; their ids are all 1 there.

    Each says the least score that the run kept, where its summary does.

    Returns:
        The results, and whether the run knew types of the truth, even if it found only one.
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
    knows_types = True
    for path, image_id in paths.items():
        entries = load_json(path)
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise UserError(f'{path}: found no list of objects, expected COCO results')
        summary = path.with_name(path.name.removesuffix(CocoResults.suffix) + SUMMARY)
        facts = _read_summary(summary)
        if not facts:
            unknown.append(summary)
        ids = _ids_by_name(facts, categories)
        knows_types &= len(set(ids.values())) > 1
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
    return found, knows_types


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
