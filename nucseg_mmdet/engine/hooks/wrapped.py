"""What lies in a runner's model."""

from mmengine.model import is_model_wrapper
from torch import nn


def unwrap(model: nn.Module) -> nn.Module:
    """The model of a config, of which a distributed run has made a wrapped one."""
    return model.module if is_model_wrapper(model) else model


def find_detector(model: nn.Module) -> nn.Module:
    """The detector itself, which several views and ensembles have as ``module``."""
    model = unwrap(model)
    return getattr(model, 'module', model)
