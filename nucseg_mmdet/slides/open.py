"""Images and slides of any size, read region by region.

``open_slide`` reads PNG, JPEG and BMP as a whole and TIFF (also BigTIFF, OME-TIFF, pyramids) tile
by tile; the formats of slide scanners go through OpenSlide. Images are uint8, RGB. Regions are
given in level-0 px and read at any scale, see ``base``. A slide may be read by several
threads at once.
"""

import os
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from nucseg_mmdet.imaging.image_files import TIFF
from nucseg_mmdet.slides.base import MAX_WHOLE, ArraySlide, Slide, over, upright
from nucseg_mmdet.slides.openslide import ScannerSlide
from nucseg_mmdet.slides.parts import further_files, version_of
from nucseg_mmdet.slides.probe import vendor_of
from nucseg_mmdet.slides.tiff import TiffSlide
from nucseg_mmdet.slides.whole import is_whole, open_whole
from nucseg_mmdet.utils.errors import UserError
from nucseg_mmdet.utils.reading import open_file

# Suffixes by which the images and slides of a folder are known; one that is named needs none.
IMAGES = ('.png', '.jpg', '.jpeg', '.tif', '.tiff', '.bmp')
SCANS = ('.svs', '.ndpi', '.mrxs', '.scn', '.svslide', '.bif', '.vms', '.vmu', '.dcm')
MORE_BITS = ('I', 'F')  # starts of the modes of Pillow with 16 and 32 bits
SHARED = 2  # slides that stay open; an image that is read as a whole may have 1.2 GB


def open_slide(path: Path, mpp: float | None = None) -> Slide:
    """Open an image or a slide.

    Args:
        path: of the image, or of one of the files of a slide in several files.
        mpp: microns per level-0 px; by default what the file says.

    Raises:
        UserError: the file is missing, damaged, or no image that this can read; one line.
    """
    path = Path(path)
    with open_file(path) as file:
        start = file.read(8)
    mirax = path.suffix.lower() == '.mrxs'  # the file alone is a JPEG image of the label
    if is_whole(start) and not mirax:
        return open_whole(path, mpp)
    vendor = vendor_of(path)
    if vendor and vendor != 'generic-tiff':
        return ScannerSlide(path, mpp)
    if mirax:
        raise UserError(f'{path}: no MIRAX slide, expected a folder {path.stem} beside it')
    if start[:4] in TIFF:
        return _open_tiff(path, mpp)
    raise UserError(f'{path}: not an image, expected PNG, JPEG, BMP, TIFF or a slide for OpenSlide')


def open_shared(path: Path, mpp: float | None = None) -> Slide:
    """Open a slide that the whole process shares; the last few that were asked for stay open.

    Do not close it: others may read it. Arguments and errors are those of ``open_slide``.
    """
    path = Path(path)
    files = [path, *further_files(path)] if os.path.isfile(path) else []
    return _open_shared(path, mpp, tuple((file, version_of(file)) for file in files))


def open_image(image: np.ndarray | Image.Image | str | Path, mpp: float | None = None) -> Slide:
    """Make a slide of what people have in a notebook.

    Args:
        image: uint8, (H, W, 3), RGB; an image of Pillow; or a path.
        mpp: microns per px; by default what the file says.

    Raises:
        UserError: it is something else, or has more than 8 bits a channel, which Pillow would cut
            off: most of such an image would be white.
    """
    if isinstance(image, str | Path):
        return open_slide(Path(image), mpp)
    if isinstance(image, Image.Image):
        if image.mode.startswith(MORE_BITS):
            raise UserError(f'image: of Pillow, mode {image.mode}, expected 8 bits a channel')
        try:
            # Of 0 px there is no transparency.
            image = over(image.convert('RGBA'), '#FFFFFF') if min(image.size) else np.array(image)
        except Exception as error:  # of whatever kind Pillow stumbles in
            raise UserError(
                f'image: of Pillow, not readable ({error}), expected a whole one'
            ) from None
    return ArraySlide(image, mpp)


@lru_cache(maxsize=SHARED)
def _open_shared(path: Path, mpp: float | None, files: tuple) -> Slide:
    slide = open_slide(path, mpp)
    slide.close_when_dropped()
    return slide


def _open_tiff(path: Path, mpp: float | None) -> Slide:
    """Open a TIFF; one that is to be turned is read as a whole for that."""
    slide = TiffSlide(path, mpp)
    if slide.orientation not in range(2, 9):
        return slide
    with slide:
        if slide.width * slide.height > MAX_WHOLE:
            raise UserError(
                f'{path}: {slide.width} x {slide.height} px with orientation {slide.orientation}, '
                f'expected an upright image, or at most {MAX_WHOLE // 1_000_000} million px'
            )
        pixels = upright(slide.read(0, 0, slide.width, slide.height), slide.orientation)
    turned = ArraySlide(pixels, slide.pixel_size, slide.name)
    turned.images, turned.missing = slide.images, slide.missing
    note = f'turned upright, as its orientation tag {slide.orientation} says'
    turned.notes = [*slide.notes, note]
    return turned
