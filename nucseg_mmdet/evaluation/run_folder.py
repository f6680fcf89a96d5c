"""A tested run, as the tools leave it in its work folder: card, results, logs."""

import os
from pathlib import Path
from typing import Any, NamedTuple

from nucseg_mmdet.evaluation.run_cards import CARD, digest_data, read_run_card
from nucseg_mmdet.evaluation.training_log import read_log
from nucseg_mmdet.imaging.image_files import read_size
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
        note: why facts and curves of the training are left out of card and log, '' if they are not.
    """

    card: dict[str, Any]
    tested: dict[str, Any]
    images: list[TruthImage]
    detections: dict[int, Detections]
    names: list[str]
    image_paths: list[Path]
    log: dict[str, list[dict[str, float]]]
    note: str = ''


def read_run(work_dir: Path, annotations: str | None = None) -> Run:
    """Read what the page needs from a work folder and the data set that it was tested on.

    Args:
        work_dir: folder of the run.
        annotations: name of the scored annotation file, such as ``fold1_val.json``; without
            it the one that was tested last.

    Raises:
        UserError: the folder has no run card or no results, a file is not as expected, or the data
            is not what was tested.
    """
    if not work_dir.is_dir():
        raise UserError(f'{work_dir}: no such folder, expected the work folder of a run')
    path = work_dir / CARD
    if not os.path.lexists(path):
        raise UserError(f'{path}: not there, expected one; nucseg train and nucseg test make it')
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
    truth, folder = _find_data(work_dir, Path(entry['annotations']), Path(entry['images']))
    images = read_truth(truth)
    categories = read_categories(truth)
    detections = read_results(made[name], images, list(categories))
    paths = [folder / image.file_name for image in images]
    for image, file in zip(images, paths, strict=True):
        check_size(file, read_size(file), image)
    tested_on = entry.get('data_sha256')
    if tested_on and tested_on != digest_data([(truth, folder)]):
        raise UserError(
            f'{truth}: not as it was tested, or images in {folder} are not, expected the '
            'same data; nucseg test CONFIG CHECKPOINT tests it anew'
        )
    note, log = '', read_log(work_dir)
    if card.get('run') and entry.get('run', card['run']) != card['run']:
        note = 'not shown: the checkpoint does not say that it is of the run in this folder'
        card, log = dict(config=entry.get('config')), dict(train=[], val=[])
    return Run(card, entry, images, detections, list(categories.values()), paths, log, note)


def _find_data(work_dir: Path, truth: Path, folder: Path) -> tuple[Path, Path]:
    """Find the data of a test, whose paths in the card may be relative to where it ran.

    That is the current folder, or one that the work folder lies in.

    Raises:
        UserError: it is in none of these.
    """
    for start in (Path(), *work_dir.resolve().parents):
        if (start / truth).is_file() and (start / folder).is_dir():
            return start / truth, start / folder
    for path in (truth, folder):
        if not path.is_absolute() and not path.exists():
            raise UserError(
                f'{path}: not there, expected the data relative to the folder that nucseg test '
                'was called in: call nucseg report from there'
            )
    return truth, folder  # whose reader says what is wrong


def check_size(path: Path, size: tuple[int, int], image: TruthImage) -> None:
    """Refuse an image that has another size than in the truth.

    Args:
        path: of the image, for the message.
        size: its width and height, px.
        image: of the truth.

    Raises:
        UserError: it has.
    """
    if size != (image.width, image.height):
        raise UserError(
            f'{path}: is {size[0]} x {size[1]} px, expected {image.width} x {image.height} px as '
            'in the truth'
        )
