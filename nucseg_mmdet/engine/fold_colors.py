"""Color targets of the images that a model is trained on, where a fold is held out."""

import sys
from pathlib import Path

from mmengine.config import Config

from nucseg_mmdet.engine.config_parts import LOADERS, find_steps
from nucseg_mmdet.engine.folds import with_folds
from nucseg_mmdet.imaging import slide_colors, stain
from nucseg_mmdet.imaging.image_files import read_color
from nucseg_mmdet.structures.coco import load_json
from nucseg_mmdet.utils.errors import UserError

STEPS = ('ReinhardNormalize', 'ReinhardJitter')


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
    found = [step for loader in LOADERS for step in find_steps(cfg.get(loader))]
    found += find_steps(cfg.get('tta_pipeline'), inside=True)
    steps = [step for step in found if step.type in STEPS]
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
