"""Compare OpenCV's and PIL's bilinear filters: python tools/analysis_tools/resizing.py DIR...

For the table in docs/detectron2.md: Detectron2 resizes with PIL's filter, which averages when it
shrinks, the configs with OpenCV's. Prints a row for each short side, over all PNG images of the
folders but those that cannot be read, which are told.
"""

from nucseg_mmdet.utils.start import start_script

if __name__ == '__main__':
    start_script()

import sys
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from nucseg_mmdet.slides.open import open_slide
from nucseg_mmdet.utils.arguments import ArgumentParser, summary_of
from nucseg_mmdet.utils.errors import UserError, describe_item, exit_code, few, printable

SIDES = (800, 1000, 1200)  # px, of the 15 experiments
MOST_SIDE = 20_000  # px: RGB of 1.2 GB


def difference(image: np.ndarray, side: int) -> np.ndarray:
    """Gray levels by which the filters differ, uint8, (h, w, 3).

    Args:
        image: uint8, (H, W, 3).
        side: short side to resize to, px.
    """
    scale = side / min(image.shape[:2])
    size = round(image.shape[1] * scale), round(image.shape[0] * scale)
    by_cv2 = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
    by_pil = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))
    return cv2.absdiff(by_cv2, by_pil)


def compare(paths: Sequence[Path], sides: Sequence[int]) -> tuple[np.ndarray, list[str]]:
    """Count the differences of all images by gray levels.

    Returns:
        int, (sides, 256), and a line for each image that cannot be read.
    """
    histograms, problems = np.zeros((len(sides), 256), np.int64), []
    for path in paths:
        try:
            with open_slide(path) as slide:
                image = slide.read(0, 0, slide.width, slide.height)
            found = [np.bincount(difference(image, side).ravel(), minlength=256) for side in sides]
        except Exception as error:
            problems.append(describe_item(path, error))
        else:
            histograms += found
    return histograms, problems


@exit_code
def main(argv: Sequence[str] | None = None) -> int:
    parser = ArgumentParser(description=summary_of(__doc__))
    parser.add_argument('folders', type=Path, nargs='+')
    parser.add_argument('--sides', type=int, nargs='+', default=SIDES, help='short sides, px')
    args = parser.parse_args(argv)
    for folder in args.folders:
        if not folder.is_dir():
            raise UserError(f'{folder}: no such folder, expected one of PNG images')
    paths = [path for folder in args.folders for path in sorted(folder.glob('*.png'))]
    if not paths:
        raise UserError(f'{args.folders[0]}: no PNG images, expected some')
    for side in args.sides:
        if not 1 <= side <= MOST_SIDE:
            raise UserError(f'--sides {side}: expected 1 to {MOST_SIDE}')
    histograms, problems = compare(paths, args.sides)
    if len(problems) == len(paths):
        raise UserError(*few(problems))
    print(f'{len(paths) - len(problems)} images')
    print('| short side | mean | largest | differ by more than 2 |')
    for side, histogram in zip(args.sides, histograms, strict=True):
        share = histogram / histogram.sum()
        mean, largest = share @ np.arange(256), np.flatnonzero(histogram).max()
        print(f'| {side} px | {mean:.2f} | {largest} | {share[3:].sum():.1%} |')
    for problem in few(problems):
        print(f'left out: {printable(problem)}', file=sys.stderr)
    return int(bool(problems))


if __name__ == '__main__':
    raise SystemExit(main())
