"""Reader of the class data (VRDL 2021 homework 3), as handed out.

::

    RAW/train/<id>/images/<id>.png     RGB
    RAW/train/<id>/masks/*.png         one nucleus each, 0 and 255, disjoint
    RAW/test/*.png
    RAW/test_img_ids.json              [{"file_name", "height", "id", "width"}, ...]
"""

from pathlib import Path

from nucseg_mmdet.converters import mask_folder
from nucseg_mmdet.converters.base import AnnotatedImage, ImageFile
from nucseg_mmdet.converters.raw_images import is_image, open_raw_image
from nucseg_mmdet.converters.tcga import organ_of
from nucseg_mmdet.structures.coco import load_json
from nucseg_mmdet.utils.errors import UserError, some

OPTIONS: dict[str, str] = {}
LIST = 'test_img_ids.json'


def find_images(raw: Path) -> list[Path]:
    """The folders of the training images, in the order of their names.

    Raises:
        UserError: ``raw`` or its ``train`` is missing or empty.
    """
    if not raw.is_dir():
        raise UserError(f'{raw}: no such folder, expected one with train/ and test/')
    train = raw / 'train'
    if not train.is_dir():
        raise UserError(f'{train}: no such folder, expected train/<id>/images and train/<id>/masks')
    return mask_folder.find_folders(train)


def find_left_out(raw: Path) -> list[str]:
    """A line where images lie beside the training folders, and where test images are not listed."""
    lines = mask_folder.find_left_out(raw / 'train')
    if (raw / LIST).is_file():
        listed = {entry['file_name'] for entry in _read_list(raw / LIST)}
        names = sorted(path.name for path in (raw / 'test').glob('*') if is_image(path))
        if others := [name for name in names if name not in listed]:
            lines.append(f'{raw / "test"}: not in {LIST}, left out: {some(others)}')
    return lines


def read_image(folder: Path) -> AnnotatedImage:
    """Read one training image and its masks, see ``mask_folder``.

    Raises:
        UserError: there is not exactly one image, or it has no masks.
    """
    annotated = mask_folder.read_image(folder)
    annotated.image.organ = organ_of(annotated.image.name)
    return annotated


def find_test_images(raw: Path) -> tuple[list[ImageFile], list[str]]:
    """The test images in the order and with the ids of ``test_img_ids.json``.

    Returns:
        The images, and a line for each one that is missing, broken or of another size.

    Raises:
        UserError: the list itself is missing or malformed.
    """
    images, problems = [], []
    for entry in _read_list(raw / LIST):
        try:
            images.append(_test_image(raw / 'test' / entry['file_name'], entry))
        except UserError as error:
            problems.append(str(error))
    return images, problems


def _read_list(path: Path) -> list[dict]:
    entries = load_json(path)
    if not isinstance(entries, list) or not entries:
        raise UserError(f'{path}: {type(entries).__name__}, expected a list of test images')
    for entry in entries:
        _check_test_entry(path, entry)
    for key in ('id', 'file_name'):
        values = [entry[key] for entry in entries]
        if key == 'file_name':  # a.png and A.png are one file on some systems
            values = [value.casefold() for value in values]
        twice = {value for value in values if values.count(value) > 1}
        if twice:
            raise UserError(f'{path}: {key} {twice.pop()} stands there twice, expected once')
    return entries


def _check_test_entry(path: Path, entry: object) -> None:
    expected = dict(file_name=str, height=int, id=int, width=int)
    if not isinstance(entry, dict) or any(
        not isinstance(entry.get(key), kind) for key, kind in expected.items()
    ):
        raise UserError(f'{path}: entry {entry!r}, expected file_name, height, id, width')
    name = entry['file_name']
    if Path(name).name != name:  # the name is written to as well as read from
        raise UserError(f'{path}: file_name {name!r}, expected a plain file name')


def _test_image(path: Path, entry: dict) -> ImageFile:
    image = open_raw_image(path)
    if (image.height, image.width) != (entry['height'], entry['width']):
        listed = f'{entry["width"]} x {entry["height"]} px in {LIST}'
        raise UserError(f'{path}: {image.width} x {image.height} px, expected {listed}')
    if image.pixels is not None:  # answers name the file as it is listed
        raise UserError(f'{path}: no upright, opaque PNG or JPEG, expected one for the answers')
    image.id, image.organ = entry['id'], organ_of(path.name)
    return image
