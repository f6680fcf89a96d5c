"""Reader of the class data (VRDL 2021 homework 3), as handed out.

::

    RAW/train/<id>/images/<id>.png     RGB
    RAW/train/<id>/masks/*.png         one nucleus each, 0 and 255, disjoint
    RAW/test/*.png
    RAW/test_img_ids.json              [{"file_name", "height", "id", "width"}, ...]
"""

import re
from pathlib import Path

from nucseg_mmdet.converters import mask_folder
from nucseg_mmdet.converters.base import AnnotatedImage, ImageFile
from nucseg_mmdet.converters.pictures import is_image
from nucseg_mmdet.imaging.image_files import decode_image
from nucseg_mmdet.structures.coco import load_json
from nucseg_mmdet.utils.errors import UserError, some

# Organs of the MoNuSeg training images, by tissue source site and patient of the
# TCGA barcode. Kumar et al., IEEE Trans. Med. Imaging 36 (2017), and monuseg.grand-challenge.org.
ORGANS = {
    'breast': 'A7-A13E A7-A13F AR-A1AK AR-A1AS E2-A1B5 E2-A14V',
    'kidney': 'B0-5711 HE-7128 HE-7129 HE-7130 B0-5710 B0-5698',
    'liver': '18-5592 38-6178 49-4488 50-5931 21-5784 21-5786',
    'prostate': 'G9-6336 G9-6348 G9-6356 G9-6363 CH-5767 G9-6362',
    'bladder': 'DK-A2I6 G2-A2EK',
    'colon': 'AY-A8YK NH-A8F7',
    'stomach': 'KB-A93J RD-A8N9',
}
ORGAN_OF_CASE = {case: organ for organ, cases in ORGANS.items() for case in cases.split()}
OPTIONS: dict[str, str] = {}
LIST = 'test_img_ids.json'


def organ_of(name: str) -> str | None:
    """The organ of an image by its TCGA barcode; None for other names."""
    barcode = re.match(r'TCGA-(\w\w-\w{4})-', name)
    return ORGAN_OF_CASE.get(barcode[1]) if barcode else None


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
    height, width = decode_image(path).shape[:2]
    if (height, width) != (entry['height'], entry['width']):
        listed = f'{entry["width"]} x {entry["height"]} px in {LIST}'
        raise UserError(f'{path}: {width} x {height} px, expected {listed}')
    return ImageFile(path, height, width, id=entry['id'], organ=organ_of(path.name))
