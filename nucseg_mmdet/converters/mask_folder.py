"""A folder for each image: ``images/*.png``, one; ``masks/*.png``, one for each nucleus."""

from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np

from nucseg_mmdet.converters.base import AnnotatedImage
from nucseg_mmdet.converters.label_map import set_types
from nucseg_mmdet.converters.nuclei import from_mask
from nucseg_mmdet.converters.raw_images import is_image, open_raw_image
from nucseg_mmdet.imaging.image_files import decode_image
from nucseg_mmdet.utils.errors import UserError, some


def find_folders(parent: Path) -> list[Path]:
    """The folders of the images, in the order of their names.

    Raises:
        UserError: there is none.
    """
    folders = sorted(path for path in parent.iterdir() if path.is_dir())
    if not folders:
        raise UserError(f'{parent}: empty, expected a folder for each image')
    return folders


def find_left_out(parent: Path) -> list[str]:
    """A line where images lie beside the folders of the images."""
    beside = [path.name for path in sorted(parent.glob('*')) if is_image(path)]
    if not beside:
        return []
    expected = 'expected a folder for each, with images/ and masks/ in it'
    return [f'{parent}: images beside the folders, left out: {some(beside)}; {expected}']


def read_image(
    folder: Path, types: Mapping[str, Mapping[int, str | None]] | None = None
) -> AnnotatedImage:
    """Read one training image and its masks.

    Masks that cannot be used are left out, with a line each in ``problems``.

    Args:
        folder: of the image.
        types: of nuclei by name of the image and number of the mask, from 1, where known.

    Raises:
        UserError: there is not exactly one image, it has no masks, or types of other masks.
    """
    (images, others), (mask_paths, more) = (_pngs(folder / name) for name in ('images', 'masks'))
    if len(images) != 1:
        raise UserError(f'{folder}/images: {len(images)} PNG files, expected one')
    if not mask_paths:
        raise UserError(f'{folder}/masks: no PNG file, expected one for each nucleus')
    image = open_raw_image(images[0])
    # Which mask has taken a pixel, counted from 1, to name both of an overlapping pair.
    owner = np.zeros((image.height, image.width), dtype=np.int32)
    nuclei, problems, bad = {}, [], set()
    for number, path in enumerate(mask_paths, start=1):
        try:
            mask = _read_mask(path, owner.shape)
            x, y, w, h = cv2.boundingRect(mask)
            inside = mask[y : y + h, x : x + w] > 0
            owners = owner[y : y + h, x : x + w]
            if owners[inside].any():
                other = mask_paths[owners[inside].max() - 1].name
                shared = np.count_nonzero(owners[inside])
                raise UserError(f'{path}: shares {shared} px with {other}, expected disjoint masks')
        except UserError as error:
            problems.append(str(error))
            bad.add(number)
            continue
        owners[inside] = number
        nuclei[number] = from_mask(inside, origin=(x, y))
    if not nuclei:
        raise UserError(f'{folder}/masks: no usable mask; first problem: {problems[0]}')
    if types is not None:
        of_image = types.get(image.name, {})
        known = {number: kind for number, kind in of_image.items() if number not in bad}
        set_types(nuclei, known, folder / 'masks')
    return AnnotatedImage(image, list(nuclei.values()), problems, others + more)


def _pngs(folder: Path) -> tuple[list[Path], list[str]]:
    """The PNG files of a folder, and a line if it has others."""
    paths = sorted(path for path in folder.glob('*') if not path.name.startswith('.'))
    pngs = [path for path in paths if path.suffix.lower() == '.png']
    others = [_with_count(path) for path in paths if path not in pngs]
    return pngs, [f'{folder}: no PNG by its suffix, left out: {some(others)}'] if others else []


def _with_count(path: Path) -> str:
    """What a message calls a file or a folder in a folder."""
    if not path.is_dir():
        return path.name
    return f'{path.name}/ with {sum(item.is_file() for item in path.rglob("*")):,} files'


def _read_mask(path: Path, shape: tuple[int, int]) -> np.ndarray:
    mask = decode_image(path)
    if mask.ndim != 2 or mask.dtype != np.uint8:
        found = f'{mask.dtype} with {1 if mask.ndim == 2 else mask.shape[2]} channels'
        raise UserError(f'{path}: {found}, expected 8 bit gray')
    if mask.shape != shape:
        found, expected = (f'{w} x {h} px' for h, w in (mask.shape, shape))
        raise UserError(f'{path}: {found}, expected {expected} as its image')
    set_pixels = np.count_nonzero(mask)
    if not set_pixels:
        raise UserError(f'{path}: empty mask, expected a nucleus')
    if np.count_nonzero(mask == 255) != set_pixels:
        values = np.unique(mask)
        raise UserError(f'{path}: {values.size} gray values ({values[:4]}...), expected 0 and 255')
    return mask
