"""Detectron2 checkpoints of Mask R-CNN with FPN as this project's state dict.

Read without running anything that the file says, checked against the complete
list of names and shapes of such a model, then renamed. The values stay as they
are: both libraries lay out every layer alike, with the background as the last
class and the RoI features flattened channel by channel.

Imported through ``custom_imports``, the module lets ``load_from`` and ``init_cfg``
take such files as they are, ``detectron2://PATH`` or any path ending in ``.pkl``.
"""

import re
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from mmengine.logging import print_log
from mmengine.runner import CheckpointLoader

from nucseg_mmdet.engine import safe_pickle
from nucseg_mmdet.engine.detectron2_shapes import BLOCKS, BOTTOM_UP, parameter_shapes
from nucseg_mmdet.engine.safe_pickle import PickledArray
from nucseg_mmdet.utils.errors import UserError

# What the configs subtract from and divide pixels by, BGR; of R and of X models.
PIXEL_MEAN = (103.53, 116.28, 123.675)
PIXEL_STD = {1: (1.0, 1.0, 1.0), 32: (57.375, 57.12, 58.395)}

DETECTRON2_PREFIXES = (BOTTOM_UP, 'proposal_generator.', 'roi_heads.')
CAFFE2_STEM = 'conv1_w'

# Detectron2's name -> MMDetection's; level and stage numbers by ``_rename``.
MODULES = {
    'proposal_generator.rpn_head.conv': 'rpn_head.rpn_conv',
    'proposal_generator.rpn_head.objectness_logits': 'rpn_head.rpn_cls',
    'proposal_generator.rpn_head.anchor_deltas': 'rpn_head.rpn_reg',
    'roi_heads.box_head.fc1': 'roi_head.bbox_head.shared_fcs.0',
    'roi_heads.box_head.fc2': 'roi_head.bbox_head.shared_fcs.1',
    'roi_heads.box_predictor.cls_score': 'roi_head.bbox_head.fc_cls',
    'roi_heads.box_predictor.bbox_pred': 'roi_head.bbox_head.fc_reg',
    'roi_heads.mask_head.mask_fcn1': 'roi_head.mask_head.convs.0.conv',
    'roi_heads.mask_head.mask_fcn2': 'roi_head.mask_head.convs.1.conv',
    'roi_heads.mask_head.mask_fcn3': 'roi_head.mask_head.convs.2.conv',
    'roi_heads.mask_head.mask_fcn4': 'roi_head.mask_head.convs.3.conv',
    'roi_heads.mask_head.deconv': 'roi_head.mask_head.upsample',
    'roi_heads.mask_head.predictor': 'roi_head.mask_head.conv_logits',
}
CLASS_SCORES = 'roi_heads.box_predictor.cls_score.weight'
CELL_ANCHORS = 'proposal_generator.anchor_generator.cell_anchors.'
# The layers whose shape depends on the number of classes, by MMDetection's names.
CLASS_LAYERS = ('roi_head.bbox_head.fc_', 'roi_head.mask_head.conv_logits.')

# Models that share Detectron2's names, told by the first key that only they have.
OTHER_MODELS = {
    'roi_heads.keypoint_head.': 'a keypoint head',
    'roi_heads.box_head.0.': 'a cascade of box heads',
    'roi_heads.box_head.conv': 'a box head with convolutions',
    'roi_heads.mask_head.coarse_head.': 'PointRend',
    'roi_heads.res5.': 'a C4 or DC5 model without FPN',
    'sem_seg_head.': 'a semantic segmentation head',
    'head.': 'RetinaNet',
}

# Caffe2's names of a backbone, as the ImageNet files of Detectron and Detectron2 have them.
CAFFE2_KEY = re.compile(
    r'(?:conv1|res_conv1(?=_bn)|res(?P<stage>[2-5])_(?P<block>\d+)_branch(?P<branch>1|2[abc]))'
    r'_(?:w|bn_(?P<norm>\w+))'
)
CAFFE2_BRANCH = {'1': 'shortcut', '2a': 'conv1', '2b': 'conv2', '2c': 'conv3'}
CAFFE2_NORM = {
    **dict(s='weight', b='bias', rm='running_mean', riv='running_var'),
    **dict(gamma='weight', beta='bias', running_mean='running_mean', running_var='running_var'),
}
# The ImageNet classifier, and a bias before the first norm that Detectron2 does not load either.
CAFFE2_UNUSED = ('fc1000_w', 'fc1000_b', 'pred_w', 'pred_b', 'conv1_b')


class Architecture(NamedTuple):
    """What the weights of a checkpoint tell about its model."""

    depth: int
    groups: int
    base_width: int  # channels of a group in res2
    classes: int | None  # without the background; None for a backbone alone
    anchors: tuple[float, float] | None  # smallest and largest, px; None where the file is silent

    @property
    def config(self) -> str | None:
        """The base config whose model has this architecture, None if there is none."""
        name = {(101, 1, 64): 'r101', (101, 32, 8): 'x101-32x8d'}.get(self[:3])
        return name and f'configs/_base_/models/mask-rcnn_{name}_fpn.py'


def read(path: str | Path) -> dict[str, torch.Tensor]:
    """Read the weights of a Detectron2 file under the names that it gives them.

    Args:
        path: ``.pkl`` (model zoo or Caffe2, NumPy arrays) or a file of ``torch.save``,
            the weights alone or wrapped by Detectron2's trainer.

    Raises:
        UserError: there is no such file, it is damaged, or it holds more than arrays and
            plain containers.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise UserError(f'{path}: no such file, expected a Detectron2 checkpoint')
    content = safe_pickle.load(path) if path.suffix == '.pkl' else safe_pickle.load_torch(path)
    return take_weights(content, path)


def take_weights(content: Any, path: str | Path) -> dict[str, torch.Tensor]:
    """Take the weights out of what a Detectron2 file holds, or refuse it as ``read`` does."""
    weights = _unwrap(content)
    if not isinstance(weights, dict):
        raise UserError(f'{path}: found {type(weights).__name__}, expected a dict of weights')
    if not weights:
        raise UserError(f'{path}: found no weights, expected some')
    tensors = {}
    for name, value in weights.items():
        if isinstance(value, PickledArray):
            value = _to_tensor(value, f'{path}: {name!r}')
        if not isinstance(name, str) or not isinstance(value, torch.Tensor):
            raise UserError(f'{path}: {name!r} is a {type(value).__name__}, expected an array')
        safe_pickle.check_tensor(value, f'{path}: {name}')
        if not name.endswith('_momentum'):  # of Caffe2's solver
            tensors[name] = value
    return tensors


def _to_tensor(array: PickledArray, where: str) -> torch.Tensor:
    try:
        return torch.from_numpy(array.native)
    except TypeError as error:  # numbers that torch does not have
        raise UserError(f'{where}: {error}') from None


def is_detectron2(content: Any) -> bool:
    """Tell whether what a checkpoint file holds are weights of Detectron2 or Caffe2."""
    weights = _unwrap(content)
    if not isinstance(weights, dict):
        return False
    return any(
        isinstance(name, str) and (name.startswith(DETECTRON2_PREFIXES) or name == CAFFE2_STEM)
        for name in weights
    )


def convert(state_dict: dict[str, torch.Tensor]) -> tuple[Architecture, dict[str, torch.Tensor]]:
    """Turn Detectron2's weights into the state dict of this project's model.

    Args:
        state_dict: from ``read``: a whole Mask R-CNN with FPN under Detectron2's names,
            or a ResNet or ResNeXt alone, Caffe2's names allowed.

    Returns:
        The architecture, and float32 weights. Of a whole model under the names of ``MaskRCNN``;
        of a backbone under those of ``ResNet``, without a prefix, as
        ``model.backbone.init_cfg`` takes it.

    Raises:
        UserError: a key is unknown or missing, has another shape, or is an image mean or
            standard deviation other than the configs'; the message has its name.
    """
    weights = _detectron2_names(state_dict)
    architecture = _check(weights)
    converted = {}
    for name, value in weights.items():
        if _is_constant(name):
            continue
        renamed = _rename(name)
        if architecture.classes is None:
            renamed = renamed.removeprefix('backbone.')
        converted[renamed] = value.detach().to(torch.float32)
        if name.endswith('.running_var'):  # a counter that Detectron2's frozen norms lack
            counter = renamed.replace('running_var', 'num_batches_tracked')
            converted[counter] = torch.tensor(0)
    return architecture, converted


def without_class_layers(state_dict: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Leave out the three layers that depend on the number of classes, of ``convert``'s names."""
    return {name: part for name, part in state_dict.items() if not name.startswith(CLASS_LAYERS)}


# A plain ``.pth`` is left to the loader of this project's own checkpoints, which end so.
@CheckpointLoader.register_scheme(prefixes=['detectron2://', r'[^:]+\.pkl$'])
def load_from_detectron2(filename: str, map_location: Any = None) -> dict:
    """Read and convert a Detectron2 file where mmengine loads a checkpoint.

    The class layers of a model with other than this project's one class are dropped.

    Args:
        filename: ``detectron2://PATH``, or a path ending in ``.pkl``.
        map_location: unused; the weights come on the CPU.

    Returns:
        ``state_dict`` from ``convert``; in ``meta`` under ``dropped`` the names of the
        model's parameters that the file was not allowed to set.

    Raises:
        UserError: as ``read`` and ``convert``; the message has the file.
    """
    path = filename.removeprefix('detectron2://')
    return to_checkpoint(read(path), path)


def to_checkpoint(weights: dict[str, torch.Tensor], path: str | Path) -> dict:
    """Convert weights that were read from a file, as ``load_from_detectron2`` does."""
    try:
        architecture, complete = convert(weights)
    except UserError as error:
        raise UserError(f'{path}: {error}') from None
    if architecture.classes in (None, 1):
        return dict(state_dict=complete, meta=dict(dropped=[]))
    print_log(f'{path}: dropped the layers for its {architecture.classes} classes', 'current')
    dropped = [name for name in complete if name.startswith(CLASS_LAYERS)]
    return dict(state_dict=without_class_layers(complete), meta=dict(dropped=dropped))


def _unwrap(content: Any) -> Any:
    """Take the weights out of what the trainer, the model zoo or Detectron put around them."""
    for wrapper in ('model', 'blobs'):
        if isinstance(content, dict) and isinstance(content.get(wrapper), dict):
            content = content[wrapper]
    return content


def _detectron2_names(state_dict: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Rename Caffe2's keys, and leave those of Detectron2 as they are.

    Norms fused into a scale and a shift get mean 0 and variance 1, as Detectron2 loads
    them; the epsilon of 1e-5 then makes every fused scale 5e-6 smaller, there and here.

    Raises:
        UserError: a Caffe2 key is unknown.
    """
    if CAFFE2_STEM not in state_dict:
        return {
            name: value
            for name, value in state_dict.items()
            if not name.endswith('.num_batches_tracked')
        }
    weights = {}
    for name, value in state_dict.items():
        if name in CAFFE2_UNUSED:
            continue
        match = CAFFE2_KEY.fullmatch(name)
        if not match or match['norm'] not in {None, *CAFFE2_NORM}:
            raise UserError(f'unknown key {name}, expected a ResNet or ResNeXt of Caffe2')
        conv = 'stem.conv1'
        if match['stage']:
            conv = f'res{match["stage"]}.{match["block"]}.{CAFFE2_BRANCH[match["branch"]]}'
        part = f'norm.{CAFFE2_NORM[match["norm"]]}' if match['norm'] else 'weight'
        weights[f'{BOTTOM_UP}{conv}.{part}'] = value
    if not any(name.endswith('.running_mean') for name in weights):
        for name in [name for name in weights if name.endswith('.norm.weight')]:
            norm = name.removesuffix('weight')
            weights[f'{norm}running_mean'] = torch.zeros_like(weights[name])
            weights[f'{norm}running_var'] = torch.ones_like(weights[name])
    return weights


def _check(weights: dict[str, torch.Tensor]) -> Architecture:
    """Compare names and shapes with those of the architecture that the weights tell.

    Args:
        weights: under Detectron2's names.

    Raises:
        UserError: as ``convert``.
    """
    for prefix, what in OTHER_MODELS.items():
        found = next((name for name in weights if name.startswith(prefix)), None)
        if found:
            raise UserError(f'key {found} belongs to {what}, expected a Mask R-CNN with FPN')
    backbone_only = all(name.startswith(BOTTOM_UP) for name in weights)
    probe = f'{BOTTOM_UP}res2.0.conv2.weight'
    for name in [probe] if backbone_only else [probe, CLASS_SCORES]:
        if name not in weights:
            raise UserError(f'key {name} is missing, found {", ".join(list(weights)[:3])}, ...')
    classes = None if backbone_only else weights[CLASS_SCORES].shape.numel() // 1024 - 1
    inner, base_width, *_ = (*weights[probe].shape, 0, 0)
    if base_width == 0 or inner % base_width:
        raise UserError(f'{probe} has shape {tuple(weights[probe].shape)}, expected (64, 64, 3, 3)')
    groups = inner // base_width
    blocks = len({name.split('.')[3] for name in weights if name.startswith(f'{BOTTOM_UP}res4.')})
    depth = next((depth for depth, count in BLOCKS.items() if count[2] == blocks), None)
    if depth is None:
        raise UserError(f'found {blocks} blocks in res4, expected 6, 23 or 36 (depth 50, 101, 152)')

    expected = parameter_shapes(depth, groups, base_width, classes)
    missing = [name for name in expected if name not in weights]
    unknown = [name for name in weights if name not in expected and not _is_constant(name)]
    for what, names in (('unknown', unknown), ('missing', missing)):
        if names:
            more = f' and {len(names) - 3} more' if len(names) > 3 else ''
            plural = 's' if len(names) > 1 else ''
            raise UserError(f'{what} key{plural} {", ".join(names[:3])}{more}')
    for name, shape in expected.items():
        found = tuple(weights[name].shape)
        if found != shape:
            raise UserError(f'{name} has shape {found}, expected {shape}')
    _check_pixels(weights, groups)
    return Architecture(depth, groups, base_width, classes, _anchor_range(weights))


def _is_constant(name: str) -> bool:
    """Tell whether a key holds a setting and no weights, as older files have them."""
    return name in ('pixel_mean', 'pixel_std') or name.startswith(CELL_ANCHORS)


def _check_pixels(weights: dict[str, torch.Tensor], groups: int) -> None:
    for name, expected in (('pixel_mean', PIXEL_MEAN), ('pixel_std', PIXEL_STD.get(groups))):
        if name not in weights or expected is None:
            continue
        found = [round(value, 3) for value in weights[name].flatten().tolist()]
        if len(found) != 3 or not np.allclose(found, expected, atol=1e-3):
            raise UserError(f'{name} is {found}, expected {list(expected)} (BGR)')


def _anchor_range(weights: dict[str, torch.Tensor]) -> tuple[float, float] | None:
    sizes = []
    for name in [name for name in weights if name.startswith(CELL_ANCHORS)]:
        if tuple(weights[name].shape) != (3, 4):
            raise UserError(f'{name} has shape {tuple(weights[name].shape)}, expected (3, 4)')
        x0, y0, x1, y1 = weights[name].unbind(1)
        sizes.append(round(((x1 - x0) * (y1 - y0)).sqrt().mean().item(), 2))
    return (min(sizes), max(sizes)) if sizes else None


def _rename(name: str) -> str:
    """Turn Detectron2's name of a parameter into MMDetection's."""
    module, _, part = name.rpartition('.')
    if module in MODULES:
        return f'{MODULES[module]}.{part}'
    if match := re.fullmatch(r'backbone\.fpn_(lateral|output)(\d)', module):
        convs = {'lateral': 'lateral_convs', 'output': 'fpn_convs'}[match[1]]
        return f'neck.{convs}.{int(match[2]) - 2}.conv.{part}'
    is_norm = module.endswith('.norm')
    *block, conv = module.removeprefix(BOTTOM_UP).removesuffix('.norm').split('.')
    if conv == 'shortcut':
        conv = 'downsample.1' if is_norm else 'downsample.0'
    elif is_norm:
        conv = conv.replace('conv', 'bn')
    if block == ['stem']:
        return f'backbone.{conv}.{part}'
    stage, index = block
    return f'backbone.layer{int(stage[3:]) - 1}.{index}.{conv}.{part}'
