"""Reader of label maps: one integer image a picture, 0 background, a number a nucleus.

::

    RAW/images/<name>.png        PNG, JPEG, TIFF or BMP
    RAW/labels/<name>.tif        PNG to 16 bit, TIFF to 32 bit, or .npy; or <name>_mask.tif

or, as Cellpose has it, RAW/<name>.png beside RAW/<name>_masks.png (or .tif). Other folders
by patterns under RAW, e.g. for NuInsSeg
``--images '*/tissue images/*' --labels '*/label masks/*'``.

A file ``types.csv`` (file_name,label,type) beside the folders of the labels, as the export
writes it, gives the nuclei their types: a line for each, with an empty type where it has none.
"""

import csv
import io
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np

from nucseg_mmdet.converters.base import AnnotatedImage, Nucleus
from nucseg_mmdet.converters.nuclei import check_labels, check_parts, from_labels
from nucseg_mmdet.converters.raw_images import (
    Pair,
    check_pair,
    find_pairs,
    open_raw_image,
    pair_folders_left_out,
)
from nucseg_mmdet.imaging.image_files import decode_image
from nucseg_mmdet.utils.errors import UserError, some
from nucseg_mmdet.utils.reading import MOST_TEXT, read_array, read_bytes

OPTIONS = {
    'images': 'pattern of the images under RAW, default: images/*',
    'labels': 'pattern of the label maps under RAW, default: labels/*',
}
READ_ALL = "--images 'images/**/*' --labels 'labels/**/*' read folders in folders"
TIFF = {'.tif', '.tiff'}
SUFFIXES = TIFF | {'.png', '.npy'}
LABEL = re.compile(r'[0-9]{1,19}')
TYPES_HEADER = ['file_name', 'label', 'type']


class Entry(NamedTuple):
    """An image, its label map, and the types of its nuclei by label, where known."""

    pair: Pair
    types: dict[int, str | None] | None


def find_images(raw: Path, images: str | None = None, labels: str | None = None) -> list[Entry]:
    """The images with their label maps.

    Raises:
        UserError: ``raw`` is missing, has no images or label maps, or names stand twice.
    """
    pairs = find_pairs(raw, *_patterns(raw, images, labels), _is_label_map)
    types = types_of(raw)
    return [
        Entry(pair, None if types is None or not pair.image else types.get(pair.image.name, {}))
        for pair in pairs
    ]


def find_left_out(raw: Path, images: str | None = None, labels: str | None = None) -> list[str]:
    """A line for each folder that ``find_images`` passes over, and for types of no image."""
    patterns = _patterns(raw, images, labels)
    lines = pair_folders_left_out(raw, *patterns, _is_label_map, READ_ALL)
    if types_of(raw) is not None:
        with suppress(UserError):  # find_images says it, after these lines
            pairs = find_pairs(raw, *patterns, _is_label_map)
            lines += types_left_out(raw, {pair.image.name for pair in pairs if pair.image})
    return lines


def types_of(raw: Path) -> dict[str, dict[int, str | None]] | None:
    """What ``RAW/types.csv`` says, as ``read_types``; None if it is not there."""
    path = raw / 'types.csv'
    return read_types(path) if os.path.lexists(path) else None


def types_left_out(raw: Path, names: set[str]) -> list[str]:
    """A line where ``RAW/types.csv`` has names of no image."""
    others = sorted((types_of(raw) or {}).keys() - names)
    return [f'{raw}/types.csv: names of no image, left out: {some(others)}'] if others else []


def _patterns(raw: Path, images: str | None, labels: str | None) -> tuple[str, str]:
    beside = not (raw / 'images').is_dir()
    return (
        images or ('*' if beside else 'images/*'),
        labels or ('*_masks.*' if beside else 'labels/*'),
    )


def _is_label_map(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES


def read_types(path: Path) -> dict[str, dict[int, str | None]]:
    """Read the types of nuclei by file name of the image and label; None where it is empty.

    Raises:
        UserError: a line is not as the export writes it.
    """
    try:
        text = read_bytes(path, MOST_TEXT).decode('utf-8-sig')
        # The reader finds the ends of lines; a name in quotes may hold some.
        header, *rows = list(csv.reader(io.StringIO(text, newline=''))) or [[]]
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f'{path}: not readable ({error}), expected CSV in UTF-8') from None
    if header != TYPES_HEADER:
        raise UserError(f'{path}: header {header}, expected {TYPES_HEADER}')
    types: dict[str, dict[int, str | None]] = {}
    for number, row in enumerate(rows, start=2):
        if len(row) != 3 or not LABEL.fullmatch(row[1]):
            raise UserError(f'{path}: line {number} is {row!r:.200}, expected a name, label, type')
        of_image, label = types.setdefault(row[0], {}), int(row[1])
        if label in of_image:
            raise UserError(
                f'{path}: line {number}, label {label} of {row[0]} is there already, expected once'
            )
        of_image[label] = row[2] or None
    return types


def read_image(entry: Entry) -> AnnotatedImage:
    """Read one training image and its label map.

    Raises:
        UserError: one of the two is missing, broken, or not of the size of the other, or
            the labels are not those of single nuclei.
    """
    image_path, truth_path = check_pair(entry.pair)
    image = open_raw_image(image_path)
    labels = check_labels(decode_labels(truth_path), (image.height, image.width), truth_path)
    notes = check_parts(labels, truth_path)
    nuclei = from_labels(labels)
    if entry.types is not None:
        set_types(nuclei, entry.types, truth_path)
    return AnnotatedImage(image, list(nuclei.values()), notes=notes)


def set_types(nuclei: Mapping[int, Nucleus], types: Mapping[int, str | None], path: Path) -> None:
    """Give nuclei their types by label, in place.

    Raises:
        UserError: the labels are not the same.
    """
    if nuclei.keys() != types.keys():
        other = min(nuclei.keys() ^ types.keys())
        line = 'line in types.csv'
        found = f'a {line} but no pixel' if other in types else f'pixels but no {line}'
        raise UserError(f'{path}: label {other} has {found}, expected both')
    for label, nucleus in nuclei.items():
        nucleus.type = types[label]


def decode_labels(path: Path) -> np.ndarray:
    """Read a label map as it is stored.

    Raises:
        UserError: the file is broken, too large, or of a kind that cannot be read safely.
    """
    return read_array(path) if path.suffix.lower() == '.npy' else decode_image(path, True)
