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
from nucseg_mmdet.engine.model_zoo import find_config
from nucseg_mmdet.utils.arguments import ArgumentParser
from nucseg_mmdet.utils.errors import UserError, exit_code
from nucseg_mmdet.utils.files import check_file_is_writable
from nucseg_mmdet.utils.reading import check_is_not_read


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        'checkpoints', nargs='+', type=Path, metavar='checkpoint', help='file of tools/train.py'
    )
    parser.add_argument('out', type=Path, help='file to write, .pth')
    parser.add_argument('--config', help='or its short name, kept by name in the file')
    parser.add_argument('--data', help='kept in the file: what the model was trained on')
    parser.add_argument('--license', help='kept in the file')
    parser.add_argument(
        '--first-stage', action='store_true', help='of a cascade, its first stage alone'
    )
    parser.add_argument('--overwrite', action='store_true', help='replace OUT')
    return parser.parse_args(argv)


@exit_code
def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    check_file_is_writable(args.out)
    check_is_not_read(args.out, *args.checkpoints)
    if args.out.exists() and not args.overwrite:  # perhaps a checkpoint, and OUT was forgotten
        raise UserError(
            f'{args.out}: there already, expected a new file behind the checkpoints; --overwrite '
            'replaces it'
        )
    config = args.config and find_config(args.config).stem
    facts = dict(config_name=config, data=args.data, license=args.license)
    size = publish(args.checkpoints, args.out, facts, args.first_stage)
    print(f'{args.out}: {size / 1e6:.1f} MB')
    return 0


if __name__ == '__main__':
    raise SystemExit(main())
