"""Write a model for OpenVINO: python tools/model_converters/export_openvino.py CONFIG CHECKPOINT.

CONFIG is a Mask R-CNN of this project, or its short name; the file goes beside CHECKPOINT, where
tools/segment.py --backend openvino looks for it. It is kept if it finds in an image what the
model finds in torch.
"""

from nucseg_mmdet.utils.start import start_script

if __name__ == '__main__':
    start_script()

import argparse
from collections.abc import Sequence
from pathlib import Path

from nucseg_mmdet.engine.model_zoo import model_files
from nucseg_mmdet.inference.predictor import RUNTIME_SUFFIX
from nucseg_mmdet.slides.open import open_slide
from nucseg_mmdet.utils.arguments import ArgumentParser
from nucseg_mmdet.utils.errors import UserError, count_nuclei, exit_code
from nucseg_mmdet.utils.files import check_file_is_writable
from nucseg_mmdet.utils.reading import check_is_not_read


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', nargs='?', help="default: the project's own model")
    parser.add_argument('checkpoint', nargs='?', type=Path)
    parser.add_argument(
        '--out',
        type=Path,
        help=f'file to write, default: CHECKPOINT with {RUNTIME_SUFFIX} for .pth',
    )
    parser.add_argument(
        '--images',
        nargs='+',
        type=Path,
        metavar='FILE',
        help='tissue to compare on, and to measure what --precision int8 has to know; default: a '
        'made-up field, and no int8',
    )
    return parser.parse_args(argv)


@exit_code
def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    config, checkpoint = model_files(args.config, args.checkpoint)
    out = args.out or checkpoint.with_suffix(RUNTIME_SUFFIX)
    if not out.name.endswith(RUNTIME_SUFFIX):
        raise UserError(f'--out {out}: expected a name that ends with {RUNTIME_SUFFIX}')
    check_file_is_writable(out)
    check_is_not_read(out, checkpoint, *(args.images or ()))
    images = []
    for path in args.images or ():
        with open_slide(path) as slide:
            images.append(slide.read(0, 0, slide.width, slide.height))

    from nucseg_mmdet.inference.openvino_export import export  # after what may be wrong

    found = export(config, checkpoint, out, images)
    if found.nuclei:
        print(
            f'{count_nuclei(found.nuclei)}: boxes differ by up to {found.box:.1g} px, scores by '
            f'{found.score:.1g}'
        )
    else:
        print('no nuclei in the image, so nothing was compared; give --images of tissue')
    if found.int8 is not None:
        print(f'PQ of the nuclei in int8 against those in fp32: {found.int8:.4f}')
    print(f'wrote {out}, {out.stat().st_size / 1e6:.1f} MB')
    return 0


if __name__ == '__main__':
    raise SystemExit(main())
