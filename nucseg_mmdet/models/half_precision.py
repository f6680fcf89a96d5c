"""Half precision where it is fast, float32 where results are decided.

The convolutions run in bfloat16 or float16. RoIAlign (``roi_align.py``), the final scores and
boxes of each nucleus, box decoding, NMS and the pasting of masks stay in float32: in 8 bits
the scores of many nuclei of an image would tie.
"""

import torch
from mmcv.cnn.utils import fuse_conv_bn
from torch import Tensor, nn

from nucseg_mmdet.utils.errors import UserError

DTYPES = {'fp32': torch.float32, 'bf16': torch.bfloat16, 'fp16': torch.float16}
PREDICTORS = ('rpn_cls', 'rpn_reg', 'fc_cls', 'fc_reg', 'conv_logits')  # their output: float32
EXACT = ('fc_cls', 'fc_reg')  # their arithmetic too, when testing; it costs next to nothing


def prepare_for_inference(model: nn.Module, precision: str) -> nn.Module:
    """Make a trained Mask R-CNN fast to test, in place; it cannot be trained afterwards.

    Batch norms are folded into the convolutions before them, which rounds in float32 only,
    weights are laid out channels last, and those of hidden layers become ``precision``.

    Args:
        model: the detector, on its device, with its weights loaded.
        precision: 'fp32', 'bf16', or 'fp16' (on a GPU).

    Returns:
        The model. Its results are float32 in every precision.

    Raises:
        UserError: an unknown precision, or one that the device does not compute in.
    """
    device = next(model.parameters()).device.type
    if precision not in DTYPES:
        raise UserError(f'precision is {precision!r}, expected one of {", ".join(DTYPES)}')
    if precision == 'fp16' and device == 'cpu':
        raise UserError('precision is fp16 on a CPU, expected bf16 or fp32')
    fuse_conv_bn(model.eval()).requires_grad_(False)
    for name, module in model.named_modules():
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d | nn.Linear):
            exact = name.rpartition('.')[2] in EXACT
            module.to(torch.float32 if exact else DTYPES[precision])
            module.register_forward_pre_hook(_cast_to_weight)
    return keep_results_float32(model).to(memory_format=torch.channels_last)


def keep_results_float32(model: nn.Module) -> nn.Module:
    """Give all that follows from a model's predictions float32, in place.

    Before these layers the model may run in another precision, or under autocast.
    """
    for name, module in model.named_modules():
        if name.rpartition('.')[2] in PREDICTORS:
            module.register_forward_hook(_cast_output)
    return model


def _cast_to_weight(module: nn.Module, args: tuple[Tensor]) -> tuple[Tensor]:
    return (args[0].to(module.weight.dtype),)


def _cast_output(module: nn.Module, args: tuple, output: Tensor) -> Tensor:
    return output.float()
