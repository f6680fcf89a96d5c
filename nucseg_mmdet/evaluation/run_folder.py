"""A tested run, as the tools leave it in its work folder: card, results, logs."""

import os
from pathlib import Path
from typing import Any, NamedTuple

from nucseg_mmdet.evaluation.run_cards import read_run_card
from nucseg_mmdet.evaluation.training_log import read_log
from nucseg_mmdet.structures.coco import (
    Detections,
    TruthImage,
    read_categories,
    read_results,
    read_truth,
)
from nucseg_mmdet.utils.errors import UserError


class Run(NamedTuple):
    """A tested run, as its work folder has it.

    Attributes:
        card: what ``RunCardHook`` wrote.
        tested: the part of the card about the scored annotation file.
        images: the truth.
        detections: of each image.
        names: of the classes.
        image_paths: file of each image.
        log: as ``read_log``.
    """

    card: dict[str, Any]
    tested: dict[str, Any]
    images: list[TruthImage]
    detections: dict[int, Detections]
    names: list[str]
    image_paths: list[Path]
    log: dict[str, list[dict[str, float]]]


def read_run(work_dir: Path, annotations: str | None = None) -> Run:
    """Read what the page needs from a work folder and the data set that it was tested on.

    Args:
        work_dir: folder of the run.
        annotations: name of the scored annotation file, such as ``fold1_val.json``; without
            it the one that was tested last.

    Raises:
        UserError: the folder has no run card or no results, or a file is not as expected.
    """
    if not work_dir.is_dir():
        raise UserError(f'{work_dir}: no such folder, expected the work folder of a run')
    path = work_dir / 'run_card.json'
    if not os.path.lexists(path):
        raise UserError(f'{path}: not there, expected one; nucseg train CONFIG makes it')
    card = read_run_card(path)
    scores = card['scores']
    tested = [name for name, entry in scores.items() if {'annotations', 'images'} <= set(entry)]
    results = {name: work_dir / f'{Path(name).stem}_results.json' for name in tested}
    made = {name: file for name, file in results.items() if file.is_file()}
    if not made:
        raise UserError(
            f'{work_dir}: found no results of a test, expected some; '
            'nucseg test CONFIG CHECKPOINT makes them, --fold N for a fold of the training images'
        )
    name = annotations or max(made, key=lambda name: made[name].stat().st_mtime)
    if name not in made:
        raise UserError(f'{work_dir}: found no results of {name}, expected one of {sorted(made)}')
    entry = scores[name]
    images = read_truth(Path(entry['annotations']))
    categories = read_categories(Path(entry['annotations']))
    detections = read_results(made[name], images, list(categories))
    paths = [Path(entry['images'], image.file_name) for image in images]
    names = list(categories.values())
    return Run(card, entry, images, detections, names, paths, read_log(work_dir))
