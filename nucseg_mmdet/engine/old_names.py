"""What the configs and weights of release 0.1 are called now; goes with release 0.3."""

import re

# Experiments of the original table: number and settings then, number now.
EXPERIMENT = re.compile(r'(mask-rcnn_(?:r101|x101-32x8d)_fpn_e(?:0[1-9]|1[0-5]))-\S+_nuclei')
SMALL = 'mask-rcnn_r18-c4_fpn_'
CROPS = f'{SMALL}crop112to176-s320-'
OTHERS = {
    f'{CROPS}reinhard-a16to384-ema-4k-2x2k_nuclei': f'dense/{SMALL}dense_nuclei',
    f'{CROPS}reinhard-a16to384-ema-4k-2k_nuclei': f'dense/{SMALL}dense_stage2',
    f'{CROPS}reinhard-a16to384-ema-4k_nuclei': f'dense/{SMALL}dense_stage1',
    f'{CROPS}reinhard-a16to384-ema-2k_nuclei': 'dense/ablations/half-length',
    f'{CROPS}paste-reinhard-a16to384-ema-2k_nuclei': 'dense/ablations/copy-paste',
    f'{CROPS}upright-reinhard-a16to384-ema-2k_nuclei': 'dense/ablations/no-flips',
    f'{CROPS}moved-reinhard-a16to384-ema-4k-2x2k_nuclei': 'dense/ablations/move-truth',
    f'{CROPS}a16to384-ema-4k_nuclei': 'dense/ablations/no-reinhard',
    f'{SMALL}crop144-s320-reinhard-a16to384-ema-2k_nuclei': 'dense/ablations/one-crop-size',
    f'{SMALL}crop320-s320-reinhard-a8to192-ema-2k_nuclei': 'dense/ablations/native-scale',
    f'{SMALL}crop160-x2-a16to384-5k_nuclei': 'dense/ablations/first-recipe',
    'mask-rcnn_r18_fpn_crop160-x2-a16to256-1500_nuclei': 'dense/ablations/half-width',
    'mask-rcnn_r18_fpn_crop160-x2-a16to256-jitter-1500_nuclei': 'dense/ablations/half-width-jitter',
    'mask-rcnn_r18_fpn_x2-a16to256-5k_pannuke-types': 'pannuke/mask-rcnn_r18_fpn_types_pannuke',
    'mask-rcnn_r101_fpn_crop112to176-s320-reinhard-roi512-ema-20k_nuclei': (
        'dense/mask-rcnn_r101_fpn_dense_nuclei'
    ),
    'mask-rcnn_x101-32x8d_fpn_crop112to176-s320-reinhard-roi512-ema-20k_nuclei': (
        'dense/mask-rcnn_x101-32x8d_fpn_dense_nuclei'
    ),
}


def new_name(stem: str) -> str | None:
    """Say which config an old name means.

    Args:
        stem: of a config or of weights, which had the name of their config.

    Returns:
        Path of the config, from the root of the project; None for a name that is not an old one.
    """
    experiment = EXPERIMENT.fullmatch(stem)
    name = f'vrdl/{experiment[1]}_vrdl' if experiment else OTHERS.get(stem)
    return name and f'configs/{name}.py'
