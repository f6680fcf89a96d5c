"""Color targets of the images that a model is trained on, where a fold is held out."""

import sys
from collections.abc import Iterator
from pathlib import Path

from mmengine.config import Config

from nucseg_mmdet.engine.folds import with_folds
from nucseg_mmdet.imaging import slide_colors, stain
from nucseg_mmdet.imaging.image_files import read_color
from nucseg_mmdet.structures.coco import load_json
from nucseg_mmdet.utils.errors import UserError

PARTS = ('train_dataloader', 'val_dataloader', 'test_dataloader', 'tta_pipeline')


def use_training_colors(cfg: Config) -> None:
    """Give the Reinhard steps of a config the colors of its training images, in place.

    Without it their targets are those of all 24 class images, the held-out ones among them. Of
    several training sets those with folds count. Steps with a target of their own keep it. The
    numbers stand in the config, and so in the run card.

    Args:
        cfg: with the annotations of the fold (``hold_out_fold``).

    Raises:
        UserError: an image is missing or unreadable, or fewer than two have colors.
    """
    steps = [step for part in PARTS for step in _reinhard_steps(cfg.get(part))]
    if not steps:
        return
    colors = measure(_training_images(cfg))
    middle = dict(mean=colors.middle.mean.tolist(), std=colors.middle.std.tolist())
    slides = dict(
        **middle,
        covariance_of_mean=colors.covariance_of_mean.tolist(),
        covariance_of_log_std=colors.covariance_of_log_std.tolist(),
    )
    for step in steps:
        if step.type == 'ReinhardNormalize':
            step.setdefault('target', middle)
        else:
            step.setdefault('slides', slides)


def measure(paths: list[Path]) -> slide_colors.SlideColors:
    """Measure the colors of image files; a line on stderr names those that have none, as gray ones.

    Raises:
        UserError: as ``use_training_colors``.
    """
    colors = []
    for path in paths:
        try:
            colors.append(stain.measure_colors(read_color(path)[..., ::-1]))
        except stain.UnfitImageError as error:
            print(f'{path}: left out of the target of colors, {error}', file=sys.stderr)
    if len(colors) < 2:
        found = f'{len(colors)} training images whose colors can be measured'
        raise UserError(f'{found}, expected two or more')
    return slide_colors.summarize(colors)


def _training_images(cfg: Config) -> list[Path]:
    found = []
    for dataset in with_folds(cfg):
        root = Path(dataset.data_root)
        images = load_json(root / dataset.ann_file)['images']
        found += [root / dataset.data_prefix.img / image['file_name'] for image in images]
    return found


def _reinhard_steps(node: object) -> Iterator[dict]:
    """The steps under a config node, also those inside of others."""
    if isinstance(node, dict):
        if node.get('type') in ('ReinhardNormalize', 'ReinhardJitter'):
            yield node
        node = list(node.values())
    if isinstance(node, list | tuple):
        for item in node:
            yield from _reinhard_steps(item)
