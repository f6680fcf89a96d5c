"""Convert a Detectron2 checkpoint: python tools/model_converters/detectron2_to_mmdet.py IN OUT.

IN is a Mask R-CNN with FPN (.pth, with or without the trainer's wrapping, or .pkl of the
model zoo) or an ImageNet backbone with Caffe2's names (R-101.pkl, X-101-32x8d.pkl); OUT is
a checkpoint of this project.
"""

from nucseg_mmdet.utils.start import start_script

if __name__ == '__main__':
    start_script()

import argparse
from collections.abc import Sequence
from pathlib import Path

from nucseg_mmdet.engine.checkpoint import save
from nucseg_mmdet.engine.detectron2 import (
    Architecture,
    convert,
    read,
    without_class_layers,
)
from nucseg_mmdet.utils.arguments import ArgumentParser
from nucseg_mmdet.utils.errors import UserError, exit_code
from nucseg_mmdet.utils.files import check_place_is_writable, make_folder
from nucseg_mmdet.utils.reading import check_is_not_read


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('source', type=Path, metavar='IN', help='file of Detectron2')
    parser.add_argument('out', type=Path, metavar='OUT', help='file to write, .pth')
    parser.add_argument(
        '--drop-class-layers',
        action='store_true',
        help='leave out box and mask predictors, as of the 81 COCO classes (with background)',
    )
    return parser.parse_args(argv)


def describe(found: Architecture, dropped: bool) -> list[str]:
    """Say what a checkpoint holds and which config it fits."""
    name = 'ResNet' if found.groups == 1 else 'ResNeXt'
    lines = [f'{name}, depth {found.depth}, {found.groups} groups of {found.base_width} channels']
    if found.classes is None:
        lines.append('backbone only: for model.backbone.init_cfg')
    elif dropped:
        lines.append(f'classes: {found.classes}, without their layers: for load_from')
    else:
        lines.append(f'classes: {found.classes}, and the background')
    if found.anchors:
        low, high = found.anchors
        lines.append(f'anchors: {low:g} to {high:g} px, anchor_generator.scales=[{low / 4:g}]')
    lines.append(f'fits: {found.config or "no config of this project"}')
    if found.classes not in (None, 1) and not dropped:
        lines.append(f'      with num_classes={found.classes} in bbox_head and mask_head')
    return lines


@exit_code
def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    check_place_is_writable(args.out)
    check_is_not_read(args.out, args.source)
    weights = read(args.source)
    try:
        found, state_dict = convert(weights)
    except UserError as error:
        raise UserError(f'{args.source}: {error}') from None
    if args.drop_class_layers:
        state_dict = without_class_layers(state_dict)
    make_folder(args.out.parent)
    save(dict(state_dict=state_dict, meta={}), args.out)
    print('\n'.join([*describe(found, args.drop_class_layers), f'wrote {args.out}']))
    return 0


if __name__ == '__main__':
    raise SystemExit(main())
