"""Raw data to COCO JSON and images: python tools/prepare_data.py FORMAT RAW OUT.

FORMAT vrdl: the class data as handed out (train/<id>/images, train/<id>/masks, test,
test_img_ids.json). OUT gets train/, test/ and annotations/ with train.json, test.json and
the folds (fold1_train.json, fold1_val.json, ...).
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from tqdm import tqdm

from nucseg_mmdet.errors import exit_code
from nucseg_mmdet.readers import base, vrdl

READERS = {'vrdl': vrdl}


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('format', choices=sorted(READERS))
    parser.add_argument('raw', type=Path, metavar='RAW')
    parser.add_argument('out', type=Path, metavar='OUT')
    parser.add_argument(
        '--skip-bad', action='store_true', help='leave out bad masks and images, and list them'
    )
    parser.add_argument('--overwrite', action='store_true', help='replace OUT')
    parser.add_argument('--workers', type=int, help='processes (default: one a core)')
    return parser.parse_args(argv)


@exit_code
def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    reader = READERS[args.format]
    summary = base.prepare(
        reader.find_images(args.raw),
        reader.read_image,
        *reader.find_test_images(args.raw),
        args.out,
        skip_bad=args.skip_bad,
        overwrite=args.overwrite,
        workers=args.workers,
        progress=lambda items, total: tqdm(items, 'images', total, disable=None),
    )
    for line in summary.left_out:
        print(f'left out: {line}')
    print(
        f'{args.out}: {summary.images} training images with {summary.nuclei:,} nuclei, '
        f'{summary.test_images} test images'
    )
    return 0


if __name__ == '__main__':
    raise SystemExit(main())
