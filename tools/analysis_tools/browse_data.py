"""Show training images as the network gets them, with their nuclei outlined.

    python tools/analysis_tools/browse_data.py CONFIG --out FOLDER [--stats]

Every image goes through the config's training pipeline, so that one sees what resizing, crops,
flips and stain changes do, and whether the truth follows them. --stats measures the data instead:
sizes against the anchors, crowding, stain, with a warning where the config does not fit.
"""

from nucseg_mmdet.utils.start import start_script

if __name__ == '__main__':
    start_script()

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from mmdet.registry import DATASETS
from mmdet.structures.mask import PolygonMasks
from mmengine.registry import init_default_scope
from mmengine.runner import set_random_seed
from tqdm import tqdm

from nucseg_mmdet.datasets import statistics, statistics_report
from nucseg_mmdet.engine import config_edits, finetune
from nucseg_mmdet.engine.config_options import ConfigOptions
from nucseg_mmdet.engine.config_parts import find_data
from nucseg_mmdet.engine.make_runner import telling_of_config
from nucseg_mmdet.imaging.draw import draw_outlines
from nucseg_mmdet.imaging.image_files import PictureNames, write_png
from nucseg_mmdet.structures.polygons import mask_to_outlines
from nucseg_mmdet.utils.arguments import ArgumentParser
from nucseg_mmdet.utils.errors import UserError, exit_code
from nucseg_mmdet.utils.files import check_folder_is_writable
from nucseg_mmdet.utils.reading import check_is_not_read
from nucseg_mmdet.utils.wrapped import parts


def parse_args(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('config', type=Path)
    parser.add_argument('--out', type=Path, required=True, help='folder of the PNG files')
    parser.add_argument('--data-root', type=Path, help='folder that tools/prepare_data.py made')
    parser.add_argument('--number', type=int, help='how many images, default: all')
    parser.add_argument(
        '--stats', action='store_true', help='report on all images; stats.png in the folder'
    )
    parser.add_argument('--seed', type=int, default=0, help='of the random steps')
    parser.add_argument('--cfg-options', nargs='+', action=ConfigOptions, default={})
    return parser.parse_args(argv)


@exit_code
def main(argv: Sequence[str] | None = None) -> int:
    args = parse_args(argv)
    if args.number is not None and args.number < 1:
        raise UserError(f'--number {args.number}: expected 1 or more')
    if args.seed < 0:
        raise UserError(f'--seed {args.seed}: expected 0 or more')
    cfg = config_edits.load_config(args.config, args.cfg_options, None)
    if args.data_root:
        config_edits.set_data_root(cfg, args.data_root)
    if 'finetune' in cfg:
        finetune.set_types_of_data(cfg)
    config_edits.check_files(cfg, 'train_dataloader')
    check_folder_is_writable(args.out)
    check_is_not_read(args.out, *find_data(cfg.train_dataloader))
    init_default_scope(cfg.default_scope)
    with telling_of_config(args.config):
        dataset = DATASETS.build(cfg.train_dataloader.dataset)
    if hasattr(dataset, 'dataset') and hasattr(dataset, 'pipeline'):
        raise UserError(
            f'{args.config}: {type(dataset).__name__} makes images of several, expected data sets '
            'whose images are looked at one by one'
        )
    set_random_seed(args.seed)
    if args.stats:
        stats = statistics.collect(cfg, dataset)
        statistics_report.plot(stats, args.out / 'stats.png')
        print(statistics_report.format_stats(stats))
        return 0
    sets = parts(dataset)
    names = PictureNames(sets[0].data_prefix.get('img', ''))
    places = [(part, index) for part in sets for index in range(len(part))][: args.number]
    written = set()  # of an image in two sets the picture of the last
    for part, index in tqdm(places, 'images', disable=None):
        packed = part[index]
        image = packed['inputs'].numpy().transpose(1, 2, 0)
        masks = packed['data_samples'].gt_instances.masks
        if isinstance(masks, PolygonMasks):
            nuclei = masks.masks
        else:
            nuclei = [mask_to_outlines(mask) for mask in masks.masks.astype(bool)]
        picture = draw_outlines(np.ascontiguousarray(image), nuclei)
        name = names.name(packed['data_samples'].img_path)
        write_png(args.out / name, picture)
        written.add(name)
    print(f'{args.out}: {len(written)} images')
    return 0


if __name__ == '__main__':
    raise SystemExit(main())
