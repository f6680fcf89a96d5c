"""Image files of raw data sets: decode them, decide how they are taken over, pair them.

They are read as tools/segment.py reads them. What mmdet reads as it is meant (upright PNG and
JPEG without alpha) is copied byte for byte; the rest becomes PNG with the same pixels.
"""

import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from nucseg_mmdet.converters.base import ImageFile
from nucseg_mmdet.imaging.image_files import MAX_PIXELS
from nucseg_mmdet.slides.open import open_slide
from nucseg_mmdet.slides.whole import is_whole, read_whole
from nucseg_mmdet.utils.errors import UserError
from nucseg_mmdet.utils.reading import open_file

COPIED = dict(PNG=('.png',), JPEG=('.jpg', '.jpeg'))
SUFFIXES = {'.png', '.jpg', '.jpeg', '.tif', '.tiff', '.bmp'}
LINKS = 'links to folders are not followed, expected the folder itself'
UNREAD = {'.webp', '.gif', '.jp2'}  # images all the same, which are refused by name
TRUTH_ENDING = re.compile(r'(_cp)?_(masks?|labels?)$')  # 'x_masks.png' belongs to 'x.png'
BESIDE_MASKS = re.compile(
    r'_(flows|cp_output|outlines)$'
)  # pictures that Cellpose makes of 'x.png'


class Pair(NamedTuple):
    """An image and its truth; None for the one that is missing."""

    name: str
    image: Path | None
    truth: Path | None


def is_image(path: Path) -> bool:
    """Whether a file is taken for an image by its suffix, be it one that is refused."""
    return path.suffix.lower() in SUFFIXES | UNREAD and path.is_file()


def open_raw_image(path: Path) -> ImageFile:
    """Read an image as ``slides`` do, and decide whether its file is copied or written as PNG.

    Raises:
        UserError: the file is damaged, no image of 8 bits a channel, one of several, or too large.
    """
    with open_file(path) as file:
        start = file.read(8)
    if is_whole(start):
        image = read_whole(path, MAX_PIXELS)
        pixels, notes = image.pixels, [f'{path}: {note}' for note in image.notes]
        height, width = pixels.shape[:2]
        if image.as_stored and image.kind in COPIED and path.suffix.lower() in COPIED[image.kind]:
            return ImageFile(path, height, width, notes=notes)
    else:
        with open_slide(path) as slide:
            if slide.images > 1:
                raise UserError(f'{path}: {slide.images} images in it, expected one')
            if slide.missing:
                raise UserError(
                    f'{path}: damaged TIFF (tiles of 0 bytes: {slide.missing:,}), '
                    'expected a whole one'
                )
            if slide.width * slide.height > MAX_PIXELS:
                size = f'{slide.width:,} x {slide.height:,} px'
                raise UserError(f'{path}: {size}, a field may have {MAX_PIXELS:,}')
            pixels = slide.read(0, 0, slide.width, slide.height)
            height, width = pixels.shape[:2]
            notes = [f'{path}: {note}' for note in slide.notes if note != slide.pixel_size.note]
    pixels = np.ascontiguousarray(pixels[..., ::-1])
    return ImageFile(path, height, width, pixels=pixels, notes=notes)


def find_pairs(raw: Path, images: str, truths: str, is_truth: Callable[[Path], bool]) -> list[Pair]:
    """Pair images and truth files by their names without suffix.

    ``x.png`` goes with ``x.tif``, ``x_mask.tif``, ``x_masks.png``, ``x_label.png``, ..., and
    ``x_img.png`` with ``x_masks.png``, as in the data of Cellpose.

    Args:
        raw: folder.
        images: pattern of the image files under ``raw``, ``**`` for any folders.
        truths: pattern of the truth files.
        is_truth: whether a file of that pattern is one, by its name.

    Returns:
        Sorted by name; with a pair for each file that has no partner.

    Raises:
        UserError: nothing is found, or two files of one kind share a name.
    """
    if not raw.is_dir():
        raise UserError(f'{raw}: no such folder, expected the raw data')
    truth_paths = [path for path in _glob(raw, truths) if is_truth(path)]
    taken = set(truth_paths)
    image_paths = [
        path
        for path in _glob(raw, images)
        if path.suffix.lower() in SUFFIXES | UNREAD and path not in taken
    ]
    stems = {path.stem for path in image_paths}
    image_paths = [
        path
        for path in image_paths
        if not BESIDE_MASKS.search(path.stem) or BESIDE_MASKS.sub('', path.stem) not in stems
    ]
    by_name = _index(image_paths, {path: path.stem for path in image_paths})
    truth_by_name = _index(truth_paths, {path: _image_of(path.stem, stems) for path in truth_paths})
    if not by_name or not truth_by_name:
        raise UserError(
            f'{raw}: {len(by_name)} images as {images} and {len(truth_by_name)} truth files '
            f'as {truths}, expected both'
        )
    return [
        Pair(name, by_name.get(name), truth_by_name.get(name))
        for name in sorted(by_name.keys() | truth_by_name.keys())
    ]


def _image_of(truth: str, images: set[str]) -> str:
    """The name of the image that a truth file belongs to, whether it is there or not."""
    name = truth if truth in images else TRUTH_ENDING.sub('', truth)
    return f'{name}_img' if name not in images and f'{name}_img' in images else name


def folders_left_out(
    raw: Path, patterns: Iterable[str], is_meant: Callable[[Path], bool], advice: str
) -> list[str]:
    """Find the folders that patterns meet without reading the files in them.

    Also links to folders, which ``**`` does not follow. Hidden folders are nobody's data.

    Args:
        raw: folder.
        patterns: of the files that are read.
        is_meant: whether a file would be read elsewhere, by its name.
        advice: what a user may do.

    Returns:
        A line for each.
    """
    met = {path for pattern in patterns for path in _glob_all(raw, pattern)}
    read = {os.path.realpath(path) for path in met}
    lines = []
    for folder in sorted(path for path in met if path.is_dir() and path.name[0] != '.'):
        files = [path for path in folder.rglob('*') if path.is_file() and is_meant(path)]
        left = sum(os.path.realpath(path) not in read for path in files)
        if left:
            lines.append(f'{folder}: a folder in a folder, left out: {left:,} files; {advice}')
    return lines


def pair_folders_left_out(
    raw: Path, images: str, truths: str, is_truth: Callable[[Path], bool], advice: str
) -> list[str]:
    """The folders that ``find_pairs`` does not look into, as ``folders_left_out``."""
    return folders_left_out(
        raw,
        (images, truths),
        lambda path: path.suffix.lower() in SUFFIXES | UNREAD or is_truth(path),
        advice,
    )


def _glob(raw: Path, pattern: str) -> list[Path]:
    """The files of a pattern, but for those that macOS leaves beside others."""
    found = [path for path in _glob_all(raw, pattern) if not path.name.startswith('._')]
    return [path for path in found if not path.is_dir()]


def _glob_all(raw: Path, pattern: str) -> list[Path]:
    try:
        return sorted(raw.glob(pattern))
    except (ValueError, NotImplementedError) as error:  # empty or absolute
        raise UserError(f'{pattern!r}: {error}, expected a pattern under {raw}') from None


def _index(paths: list[Path], names: dict[Path, str]) -> dict[str, Path]:
    index: dict[str, Path] = {}
    for path in paths:
        other = index.setdefault(names[path], path)
        if other is not path:
            raise UserError(f'{path}: same name as {other}, expected one file a name')
    return index


def check_pair(pair: Pair) -> tuple[Path, Path]:
    """The image and the truth of a pair of which none is missing.

    Raises:
        UserError: one is.
    """
    if pair.image is None:
        raise UserError(f'{pair.truth}: no image named {pair.name}, expected one')
    if pair.truth is None:
        raise UserError(f'{pair.image}: no truth file of this name, expected one')
    return pair.image, pair.truth
