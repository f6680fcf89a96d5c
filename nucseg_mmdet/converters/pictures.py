"""Image files of raw data sets: decode them, decide how they are taken over, pair them.

What mmdet reads as it is meant (8 bit PNG and JPEG without alpha) is copied byte for byte;
TIFF, BMP and opaque RGBA become PNG with the same pixels; the rest is refused by name.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from nucseg_mmdet.converters.base import ImageFile
from nucseg_mmdet.imaging.image_files import decode_image, pages_and_orientation
from nucseg_mmdet.utils.errors import UserError

COPIED = {'.png', '.jpg', '.jpeg'}
SUFFIXES = COPIED | {'.tif', '.tiff', '.bmp'}
TRUTH_ENDING = re.compile(r'(_cp)?_(masks?|labels?)$')  # 'x_masks.png' belongs to 'x.png'


class Pair(NamedTuple):
    """An image and its truth; None for the one that is missing."""

    name: str
    image: Path | None
    truth: Path | None


def open_picture(path: Path) -> ImageFile:
    """Read an image and decide whether its file is copied or written anew as PNG.

    Raises:
        UserError: the file is no image of 8 bits a channel, has several pages, is to be
            shown rotated, is transparent somewhere, or too large.
    """
    pixels = decode_image(path)
    height, width = pixels.shape[:2]
    if pixels.dtype != np.uint8:
        raise UserError(f'{path}: {pixels.dtype}, expected 8 bits a channel')
    pages, orientation = pages_and_orientation(path)
    if pages != 1:
        raise UserError(f'{path}: {pages} pages, expected one image')
    if orientation != 1:
        # mmdet would turn the image, and the truth would stay.
        raise UserError(f'{path}: EXIF orientation {orientation}, expected an upright image')
    if pixels.ndim == 3 and pixels.shape[2] == 4:
        alpha = pixels[..., 3]
        if (alpha != 255).any():
            found = f'{np.count_nonzero(alpha != 255)} px of the alpha channel are not 255'
            raise UserError(f'{path}: {found}, expected an opaque image')
        pixels = np.ascontiguousarray(pixels[..., :3])
    elif path.suffix.lower() in COPIED:
        return ImageFile(path, height, width)
    return ImageFile(path, height, width, pixels=pixels)


def find_pairs(raw: Path, images: str, truths: str, is_truth: Callable[[Path], bool]) -> list[Pair]:
    """Pair images and truth files by their names without suffix.

    ``x.png`` goes with ``x.tif``, ``x_mask.tif``, ``x_masks.png``, ``x_label.png``, ...

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
        path for path in _glob(raw, images) if path.suffix.lower() in SUFFIXES and path not in taken
    ]
    by_name = _index(image_paths, {path: path.stem for path in image_paths})
    names = {
        path: path.stem if path.stem in by_name else TRUTH_ENDING.sub('', path.stem)
        for path in truth_paths
    }
    truth_by_name = _index(truth_paths, names)
    if not by_name or not truth_by_name:
        raise UserError(
            f'{raw}: {len(by_name)} images as {images} and {len(truth_by_name)} truth files '
            f'as {truths}, expected both'
        )
    return [
        Pair(name, by_name.get(name), truth_by_name.get(name))
        for name in sorted(by_name.keys() | truth_by_name.keys())
    ]


def _glob(raw: Path, pattern: str) -> list[Path]:
    try:
        return sorted(path for path in raw.glob(pattern) if not path.is_dir())
    except (ValueError, NotImplementedError) as error:  # empty or absolute
        raise UserError(f'{pattern!r}: {error}, expected a pattern under {raw}') from None


def _index(paths: list[Path], names: dict[Path, str]) -> dict[str, Path]:
    index: dict[str, Path] = {}
    for path in paths:
        other = index.setdefault(names[path], path)
        if other is not path:
            raise UserError(f'{path}: same name as {other}, expected one file a name')
    return index


def check_pair(pair: Pair) -> None:
    """Refuse a pair of which one is missing.

    Raises:
        UserError: as said.
    """
    if pair.image is None:
        raise UserError(f'{pair.truth}: no image named {pair.name}, expected one')
    if pair.truth is None:
        raise UserError(f'{pair.image}: no truth file of this name, expected one')
