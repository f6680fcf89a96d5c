"""Say where the nuclei of each image lie beside its truth, by the edges of the stain.

python tools/analysis_tools/truth_offset.py data/vrdl/annotations/train.json data/vrdl/train
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from nucseg_mmdet.imaging.truth_offset import NoOutlineError, measure_offset
from nucseg_mmdet.structures.coco import TruthImage, read_truth
from nucseg_mmdet.structures.rle import label_map
from nucseg_mmdet.utils.errors import UserError, exit_code


def measure(image: TruthImage, folder: Path) -> tuple[float, float]:
    """Measure the offset of an image's truth: x, y, px.

    Raises:
        UserError: the image cannot be read, has another size, or its offset not be measured.
    """
    path = folder / image.file_name
    img = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if img is None or img.shape[:2] != (image.height, image.width):
        raise UserError(f'{path}: no readable image of {image.width} x {image.height} px')
    try:
        truth = label_map(image.rles, image.height, image.width) > 0
        return measure_offset(img[..., ::-1], truth)
    except NoOutlineError as error:
        raise UserError(f'{path}: offset not measured, {error}') from error


@exit_code
def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('annotations', type=Path, help='COCO file of the truth')
    parser.add_argument('images', type=Path, help='folder of its images')
    args = parser.parse_args(argv)
    images = [image for image in read_truth(args.annotations) if image.rles]
    if not images:
        raise UserError(f'{args.annotations}: has no nuclei')
    offsets = []
    print('px to the right  px down  image')
    for image in images:
        offsets.append(measure(image, args.images))
        print('{:+15.2f}  {:+7.2f}'.format(*offsets[-1]), f' {image.file_name}', flush=True)
    for name, value in (('mean', np.mean(offsets, axis=0)), ('median', np.median(offsets, axis=0))):
        print('{:+15.2f}  {:+7.2f}'.format(*value), f' {name} of {len(offsets)}')
    return 0


if __name__ == '__main__':
    raise SystemExit(main())
