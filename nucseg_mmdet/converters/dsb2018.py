"""Reader of Kaggle's Data Science Bowl 2018, stage 1 training data.

::

    RAW/<id>/images/<id>.png     RGBA, opaque: written as RGB
    RAW/<id>/masks/*.png         one nucleus each, 0 and 255, disjoint
"""

from pathlib import Path

from nucseg_mmdet.converters import mask_folder
from nucseg_mmdet.converters.mask_folder import find_left_out, read_image
from nucseg_mmdet.utils.errors import UserError

__all__ = ['OPTIONS', 'find_images', 'find_left_out', 'read_image']

OPTIONS: dict[str, str] = {}


def find_images(raw: Path) -> list[Path]:
    """The folders of the training images, in the order of their names.

    Raises:
        UserError: ``raw`` is missing or empty.
    """
    if not raw.is_dir():
        raise UserError(f'{raw}: no such folder, expected <id>/images and <id>/masks in it')
    return mask_folder.find_folders(raw)
