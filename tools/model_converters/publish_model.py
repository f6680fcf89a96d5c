"""Make a file to share of a training checkpoint.

    python tools/model_converters/publish_model.py CHECKPOINT [CHECKPOINT ...] OUT

Keeps the weights alone, in half precision: an eighth of the size of a checkpoint that training
can go on from. The result loads wherever a checkpoint does. Of several checkpoints it has the mean
weights, which are a model where the trainings went on from one, with other seeds for instance. Of
a cascade (Cascade Mask R-CNN) --first-stage writes the Mask R-CNN that its first stage is.
"""

from nucseg_mmdet.utils.start import start_script

if __name__ == '__main__':
    start_script()

import argparse
from collections.abc import Sequence
from pathlib import Path

from nucseg_mmdet.engine.checkpoint import publish
from nucseg_mmdet.utils.errors import exit_code
from nucseg_mmdet.utils.files import check_file_is_writable
from nucseg_mmdet.utils.reading import check_is_not_read


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        'checkpoints', nargs='+', type=Path, metavar='checkpoint', help='file of tools/train.py'
    )
    parser.add_argument('out', type=Path, help='file to write, .pth')
    parser.add_argument('--config', type=Path, help='kept by name in the file')
    parser.add_argument('--data', help='kept in the file: what the model was trained on')
    parser.add_argument('--license', help='kept in the file')
    parser.add_argument(
        '--first-stage', action='store_true', help='of a cascade, its first stage alone'
    )
    return parser.parse_args(argv)


@exit_code
def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    facts = dict(config_name=args.config and args.config.stem, data=args.data, license=args.license)
    check_file_is_writable(args.out)
    check_is_not_read(args.out, *args.checkpoints)
    size = publish(args.checkpoints, args.out, facts, args.first_stage)
    print(f'{args.out}: {size / 1e6:.1f} MB')
    return 0


if __name__ == '__main__':
    raise SystemExit(main())
