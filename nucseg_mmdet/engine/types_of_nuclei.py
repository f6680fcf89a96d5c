"""Types of nuclei as the classes of a model that was made for one."""

import math
from collections.abc import Sequence
from typing import Any

from mmengine.config import Config, ConfigDict

from nucseg_mmdet.engine.config_parts import LOADERS, find_datasets
from nucseg_mmdet.structures.classes import NucleusClass, make_classes
from nucseg_mmdet.utils.errors import UserError

CLASS_LAYER = 'roi_head.bbox_head.fc_cls'
RATE = 10.0  # of this layer's learning rate: the others know their task already


def set_types(cfg: Config, names: Sequence[str]) -> None:
    """Let a Mask R-CNN of one class tell types of nuclei apart, in place.

    Boxes and masks stay those of any nucleus, so that all weights but those of one layer, which
    ``spread_class_layer`` makes, are the ones of a model of one class.

    Args:
        cfg: of the model.
        names: of the types, in the order of the categories in the truth.
    """
    bbox_head, mask_head = cfg.model.roi_head.bbox_head, cfg.model.roi_head.mask_head
    bbox_head.update(type='OneTypeBBoxHead', num_classes=len(names), reg_class_agnostic=True)
    mask_head.update(num_classes=len(names), class_agnostic=True)
    rcnn = cfg.model.test_cfg.rcnn
    rcnn.nms.class_agnostic = True
    if rcnn.get('mask_nms'):
        rcnn.mask_nms.class_agnostic = True
    for key in LOADERS:
        for dataset in find_datasets(cfg.get(key)):
            dataset.metainfo = ConfigDict(classes=tuple(names))
    if cfg.get('optim_wrapper'):
        options = dict(cfg.optim_wrapper.get('paramwise_cfg') or {})
        rates = options.get('custom_keys') or {}
        options['custom_keys'] = {**rates, CLASS_LAYER: dict(lr_mult=RATE)}
        cfg.optim_wrapper.paramwise_cfg = ConfigDict(options)
    cfg.custom_hooks = [*cfg.get('custom_hooks', []), dict(type='SpreadClassLayerHook')]


def spread_class_layer(checkpoint: dict[str, Any], num_types: int) -> None:
    """Make of a checkpoint for one class one for types that knows nuclei as well, in place.

    Each type gets the weights of the one class and a ``num_types``-th of its probability, so
    that the sum over the types is what the model of one class says. Others are left as they are.
    """
    weights = checkpoint.get('state_dict', checkpoint)
    weight, bias = (weights.get(f'{CLASS_LAYER}.{part}') for part in ('weight', 'bias'))
    if weight is None or bias is None or len(bias) != 2 or num_types < 2:
        return
    rows = [0] * num_types + [1]  # the last is for none
    bias = bias[rows].float()  # of half precision, the logarithm would be rounded
    bias[:-1] -= math.log(num_types)
    weights[f'{CLASS_LAYER}.weight'], weights[f'{CLASS_LAYER}.bias'] = weight[rows], bias


def classes_of(checkpoint: dict[str, Any], cfg: Config, source: str) -> tuple[NucleusClass, ...]:
    """The classes of a trained model: what its checkpoint says, or else its config.

    Args:
        checkpoint: as loaded.
        cfg: of the model.
        source: name of the checkpoint, for messages.

    Raises:
        UserError: the names are not as expected, or not as many as the checkpoint has.
    """
    meta = checkpoint.get('meta')
    known = meta.get('dataset_meta') if isinstance(meta, dict) else None
    if not isinstance(known, dict) or 'classes' not in known:
        loader = cfg.get('test_dataloader') or {}
        known = loader.get('dataset', {}).get('metainfo') or dict(classes=('nucleus',))
    classes = make_classes(known.get('classes'), known.get('palette'), source)
    weights = checkpoint.get('state_dict', checkpoint)
    bias = weights.get(f'{CLASS_LAYER}.bias')
    if bias is not None and len(bias) != len(classes) + 1:
        raise UserError(
            f'{source}: names {len(classes)} classes, expected {len(bias) - 1} as its layers have'
        )
    return classes


def fit_types(cfg: Config, checkpoint: dict[str, Any], source: str) -> tuple[NucleusClass, ...]:
    """Give a config of ``nucseg train finetune`` the types of a checkpoint, in place.

    Other configs stay as they are: they name their classes themselves.

    Returns:
        The classes of the checkpoint.

    Raises:
        UserError: as ``classes_of``.
    """
    classes = classes_of(checkpoint, cfg, source)
    if 'finetune' in cfg and len(classes) > 1:
        set_types(cfg, [one.name for one in classes])
    return classes
