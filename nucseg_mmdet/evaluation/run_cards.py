"""``run_card.json`` of a work folder, checked: the hook writes it, report and table read it."""

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from nucseg_mmdet.structures.coco import is_finite, load_json, load_shared_json
from nucseg_mmdet.utils.errors import UserError
from nucseg_mmdet.utils.reading import read_bytes

CARD = 'run_card.json'  # in a work folder
PROOF = ('run', 'config', 'commit', 'command', 'precision', 'data_sha256')
TEXTS = (
    *PROOF,
    *('started', 'annotations', 'initial_weights', 'load_from', 'weights_sha256', 'device'),
)
NUMBERS = ('iteration', 'train_seconds', 'peak_gpu_bytes', 'peak_memory_bytes', 'seed')
TEXTS_OF_SCORES = (*PROOF, 'checkpoint', 'checkpoint_sha256', 'annotations', 'images')


def read_run_card(path: Path) -> dict[str, Any]:
    """Read a run card.

    Returns:
        The card; ``scores`` is there, a dict of dicts by annotation file. A text or an object that
        is null is not there, but for ``run``.

    Raises:
        UserError: it is missing, damaged, or a value is of another kind than the hook writes.
    """
    card = load_json(path)
    if not isinstance(card, dict) or not isinstance(card.setdefault('scores', {}), dict):
        raise UserError(f'{path}: found no run card, expected an object with scores')
    _check(card, ('versions', 'settings'), dict, path)
    _check(card, TEXTS, str, path)
    _check(card, NUMBERS, int | float, path)
    for name, scores in card['scores'].items():
        where = f'{path}: scores of {name}'
        if not isinstance(scores, dict):
            raise UserError(f'{where} are {scores!r:.50}, expected an object')
        _check(scores, TEXTS_OF_SCORES, str, where)
        _check(scores, ('settings',), dict, where)
        numbers = [key for key in scores if '/' in key or key == 'score_thr']
        _check(scores, numbers, int | float, where)
    return card


def digest_data(sets: Iterable[tuple[Path, Path]]) -> str:
    """Digest annotation files and the names and sizes of their images, which are not read.

    Args:
        sets: the annotation file and the folder of images of each data set.

    Returns:
        SHA-256, hexadecimal.

    Raises:
        UserError: an annotation file cannot be read.
    """
    sha256 = hashlib.sha256()
    for annotations, folder in sets:
        sha256.update(read_bytes(annotations))
        for image in load_shared_json(annotations)['images']:
            path = folder / image['file_name']
            size = path.stat().st_size if path.is_file() else None
            sha256.update(json.dumps([image['file_name'], size]).encode())
    return sha256.hexdigest()


def _check(values: dict, keys: Any, kind: Any, where: Path | str) -> None:
    """Refuse values of another kind; they may be missing or null.

    Of scores ``run`` is null where the weights do not say of which run they are; cards of before
    there were runs lack it. Numbers that are null are not defined.
    """
    for key in keys:
        if values.get(key, ...) is None and kind in (str, dict) and key != 'run':
            del values[key]
        value = values.get(key)
        right = isinstance(value, kind) and (kind in (str, dict) or is_finite(value))
        if value is not None and not right:
            expected = {str: 'text', dict: 'an object'}.get(kind, 'a finite number')
            raise UserError(f'{where}: {key} is {value!r:.50}, expected {expected}')
