"""Made-up slides of any size, to try things on.

::

    python -m nucseg_mmdet.synthetic.slides IMAGES... --out slide.tif --size 30000

Lays pieces of the images side by side, in an order drawn by the seed, and writes them as a pyramid
of JPEG tiles with the pixel size in the TIFF tags, which OpenSlide and QuPath open. The slide is
never held in memory.
"""

from nucseg_mmdet.utils.start import start_script

if __name__ == '__main__':
    start_script()

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

import cv2
import numpy as np
import tifffile

from nucseg_mmdet.slides.base import paste
from nucseg_mmdet.slides.open import open_slide
from nucseg_mmdet.slides.pixel_size import given
from nucseg_mmdet.utils.arguments import ArgumentParser
from nucseg_mmdet.utils.errors import UserError, exit_code
from nucseg_mmdet.utils.files import new_file

GLASS = 243  # gray level between the pieces
TILE = 256  # px
REDUCTIONS = (1, 4, 16)  # of the levels, as slide scanners make them
CLASSIC = 2**32  # bytes of pixels from which on the file is a BigTIFF
SUFFIXES = ('.png', '.jpg', '.jpeg', '.tif', '.tiff')


class Mosaic:
    """Squares of images on a grid.

    Args:
        images: uint8, (H, W, 3), RGB; their upper left squares are used.
        width: px.
        height: px.
        gap: px of glass between two pieces.
        empty: share of the places that stay glass, 0 to 1, drawn at random.
        seed: 0 or more; the same seed gives the same mosaic.

    Attributes:
        side: of a piece, px; that of the smallest image.
        pieces: int, (rows, columns); which image lies there, -1 for none. Piece i, j has its
            upper left corner at x = j * (side + gap), y = i * (side + gap).
    """

    def __init__(
        self,
        images: Sequence[np.ndarray],
        width: int,
        height: int,
        gap: int = 0,
        empty: float = 0.0,
        seed: int = 0,
    ) -> None:
        self.width, self.height = width, height
        self.side = min(min(image.shape[:2]) for image in images)
        self._images = [image[: self.side, : self.side] for image in images]
        self._pitch = self.side + gap
        rng = np.random.default_rng(seed)
        shape = -(-height // self._pitch), -(-width // self._pitch)
        self.pieces = rng.integers(len(images), size=shape)
        self.pieces[rng.random(shape) < empty] = -1

    def render(self, x: int, y: int, width: int, height: int) -> np.ndarray:
        """Paint a region: uint8, (height, width, 3), RGB; glass beyond the mosaic."""
        image = np.full((height, width, 3), GLASS, np.uint8)
        pitch = self._pitch
        for row in range(y // pitch, min(-(-(y + height) // pitch), self.pieces.shape[0])):
            for column in range(x // pitch, min(-(-(x + width) // pitch), self.pieces.shape[1])):
                if self.pieces[row, column] >= 0:
                    piece = self._images[self.pieces[row, column]]
                    paste(image, piece, column * pitch - x, row * pitch - y)
        image[max(self.height - y, 0) :] = GLASS
        image[:, max(self.width - x, 0) :] = GLASS
        return image

    def tiles(self, reduction: int) -> Iterator[np.ndarray]:
        """The tiles of a level, row by row: uint8, (TILE, TILE, 3), RGB."""
        step = TILE * reduction
        for y in range(0, self.height // reduction * reduction, step):
            for x in range(0, self.width // reduction * reduction, step):
                image = self.render(x, y, step, step)
                if reduction > 1:
                    image = cv2.resize(image, (TILE, TILE), interpolation=cv2.INTER_AREA)
                yield image

    def write(self, path: Path, mpp: float = 0.25, quality: int = 90) -> None:
        """Write a pyramid of JPEG tiles.

        Args:
            path: of the TIFF file; it appears once it is complete.
            mpp: microns per pixel, for the resolution tags.
            quality: of JPEG, 1 to 100.

        Raises:
            UserError: the file cannot be written.
        """
        bigtiff = self.width * self.height * 3 > CLASSIC
        with new_file(path) as file, tifffile.TiffWriter(file, bigtiff=bigtiff) as tiff:
            for reduction in REDUCTIONS:
                shape = self.height // reduction, self.width // reduction, 3
                if reduction > 1 and max(shape) < TILE:
                    break
                per_cm = 10_000 / (mpp * reduction)
                tiff.write(
                    self.tiles(reduction),
                    shape=shape,
                    dtype=np.uint8,
                    tile=(TILE, TILE),
                    photometric='rgb',
                    compression='jpeg',
                    compressionargs=dict(level=quality),
                    resolution=(per_cm, per_cm),
                    resolutionunit='CENTIMETER',
                    subfiletype=int(reduction > 1),
                    metadata=None,
                )


def read_images(paths: Sequence[Path]) -> list[np.ndarray]:
    """Read images whole, and all those in folders.

    Raises:
        UserError: there is none, or one cannot be read.
    """
    files = []
    for path in paths:
        found = sorted(path.iterdir()) if path.is_dir() else [path]
        files += [file for file in found if not path.is_dir() or file.suffix.lower() in SUFFIXES]
    if not files:
        raise UserError(f'{paths[0]}: no images, expected {", ".join(SUFFIXES)}')
    images = []
    for file in files:
        with open_slide(file) as slide:
            images.append(slide.read(0, 0, slide.width, slide.height))
    return images


@exit_code
def main(argv: Sequence[str] | None = None) -> int:
    parser = ArgumentParser(
        'python -m nucseg_mmdet.synthetic.slides',
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('images', type=Path, nargs='+', help='images, or folders of them')
    parser.add_argument('--out', type=Path, required=True, help='the TIFF file to write')
    parser.add_argument('--size', type=int, default=30_000, help='width in px (default: 30000)')
    parser.add_argument('--height', type=int, help='in px (default: as the width)')
    parser.add_argument('--gap', type=int, default=0, help='px of glass between pieces')
    parser.add_argument('--empty', type=float, default=0.0, help='share of places left empty')
    parser.add_argument('--mpp', type=float, default=0.25, help='microns per pixel')
    parser.add_argument('--quality', type=int, default=90, help='of JPEG, 1 to 100')
    parser.add_argument('--seed', type=int, default=0, help='(default: 0)')
    args = parser.parse_args(argv)
    width, height = args.size, args.size if args.height is None else args.height
    if min(width, height) < 1 or args.gap < 0 or args.seed < 0 or not 0 <= args.empty <= 1:
        raise UserError('sizes must be positive, gap and seed 0 or more, --empty 0 to 1')
    if not 1 <= args.quality <= 100:
        raise UserError(f'--quality {args.quality}: expected 1 to 100')
    if args.out.exists():
        raise UserError(f'{args.out}: is there already')
    mpp = given(args.mpp).mpp
    mosaic = Mosaic(read_images(args.images), width, height, args.gap, args.empty, args.seed)
    mosaic.write(args.out, mpp, args.quality)
    print(f'{args.out}: {width} x {height} px, {np.count_nonzero(mosaic.pieces >= 0)} pieces')
    return 0


if __name__ == '__main__':
    raise SystemExit(main())
