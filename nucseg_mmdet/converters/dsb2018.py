"""Reader of Kaggle's Data Science Bowl 2018, stage 1 training data.

::

    RAW/<id>/images/<id>.png     RGBA, opaque: written as RGB
    RAW/<id>/masks/*.png         one nucleus each, 0 and 255, disjoint

A file ``RAW/types.csv`` (file_name,label,type), as the export writes it, gives the nuclei their
types; a label there is the number of a mask by name, from 1. An empty type is none.
"""

from pathlib import Path
from typing import NamedTuple

from nucseg_mmdet.converters import label_map, mask_folder
from nucseg_mmdet.converters.base import AnnotatedImage
from nucseg_mmdet.utils.errors import UserError

OPTIONS: dict[str, str] = {}


class Entry(NamedTuple):
    """The folder of an image, and the types of the nuclei of all images, where known."""

    folder: Path
    types: dict[str, dict[int, str | None]] | None


def find_images(raw: Path) -> list[Entry]:
    """The folders of the training images, in the order of their names.

    Raises:
        UserError: ``raw`` is missing or empty.
    """
    if not raw.is_dir():
        raise UserError(f'{raw}: no such folder, expected <id>/images and <id>/masks in it')
    types = label_map.types_of(raw)
    return [Entry(folder, types) for folder in mask_folder.find_folders(raw)]


def find_left_out(raw: Path) -> list[str]:
    """A line where images lie beside the folders of the images, and for types of no image."""
    names = {path.name for path in raw.glob('*/images/*')}
    return mask_folder.find_left_out(raw) + label_map.types_left_out(raw, names)


def read_image(entry: Entry) -> AnnotatedImage:
    """Read one training image and its masks, see ``mask_folder``.

    Raises:
        UserError: there is not exactly one image, it has no masks, or types of other masks.
    """
    return mask_folder.read_image(*entry)
