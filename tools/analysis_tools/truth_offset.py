"""Say where the nuclei of each image lie beside its truth, by the edges of the stain.

python tools/analysis_tools/truth_offset.py data/vrdl/annotations/train.json data/vrdl/train
"""

from nucseg_mmdet.utils.start import start_script

if __name__ == '__main__':
    start_script()

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nucseg_mmdet.evaluation.truth import load_tidy_truth
from nucseg_mmdet.imaging.image_files import read_color
from nucseg_mmdet.imaging.truth_offset import NoOutlineError, measure_offset
from nucseg_mmdet.structures.coco import TruthImage, parse_truth
from nucseg_mmdet.structures.rle import label_map
from nucseg_mmdet.utils.arguments import ArgumentParser
from nucseg_mmdet.utils.errors import UserError, describe_item, exit_code, few, printable


def read(annotations: Path, folder: Path) -> list[TruthImage]:
    """Read truth as ``nucseg score`` does, and say what is read otherwise than it stands there.

    Raises:
        UserError: it cannot be read, or is no truth.
    """
    data, notes = load_tidy_truth(annotations, folder)
    for note in notes:
        print(f'{annotations}: {note}', file=sys.stderr)
    return parse_truth(data, str(annotations))


def measure(image: TruthImage, folder: Path) -> tuple[float, float]:
    """Measure the offset of an image's truth: x, y, px.

    Raises:
        UserError: the image cannot be read, has another size, or its offset not be measured.
    """
    path = folder / image.file_name
    img = read_color(path)
    if img.shape[:2] != (image.height, image.width):
        found = f'{img.shape[1]} x {img.shape[0]}'
        raise UserError(f'{path}: is {found} px, expected {image.width} x {image.height} px')
    try:
        truth = label_map(image.rles, image.height, image.width) > 0
        return measure_offset(img[..., ::-1], truth)
    except NoOutlineError as error:
        raise UserError(f'{path}: offset not measured, {error}') from error


@exit_code
def main(argv: Sequence[str] | None = None) -> int:
    parser = ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('annotations', type=Path, help='COCO file of the truth')
    parser.add_argument('images', type=Path, help='folder of its images')
    args = parser.parse_args(argv)
    images = [image for image in read(args.annotations, args.images) if image.rles]
    if not images:
        raise UserError(f'{args.annotations}: has no nuclei, expected some')
    offsets, problems = [], []
    print('px to the right  px down  image')
    for image in images:
        try:
            offsets.append(measure(image, args.images))
        except Exception as error:
            problems.append(describe_item(args.images / image.file_name, error))
            continue
        print('{:+15.2f}  {:+7.2f}'.format(*offsets[-1]), f' {image.file_name}', flush=True)
    if not offsets:
        raise UserError(*few(problems))
    for name, value in (('mean', np.mean(offsets, axis=0)), ('median', np.median(offsets, axis=0))):
        print('{:+15.2f}  {:+7.2f}'.format(*value), f' {name} of {len(offsets)}')
    for problem in few(problems):
        print(f'left out: {printable(problem)}', file=sys.stderr)
    return int(bool(problems))


if __name__ == '__main__':
    raise SystemExit(main())
