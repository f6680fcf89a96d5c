"""A model laid out channels last computes what it did."""

import torch
from torch import nn

from nucseg_mmdet.engine.hooks.channels_last import use_channels_last


def make_model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1),
        nn.Conv2d(8, 16, 1),
        nn.ReLU(),
        nn.Conv2d(16, 16, 1, stride=2),
        nn.Conv2d(16, 4, 1, groups=2),
        nn.Conv2d(4, 2, 1, bias=False),
    ).double()


def test_results_and_gradients_are_the_same():
    plain, changed = make_model(), use_channels_last(make_model())
    images = torch.randn(2, 3, 10, 12, dtype=torch.float64)
    expected, found = plain(images), changed(images)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    for out in (expected, found):
        out.square().sum().backward()
    for (name, left), (same, right) in zip(
        plain.named_parameters(), changed.named_parameters(), strict=True
    ):
        assert name == same
        torch.testing.assert_close(right.grad, left.grad, rtol=0, atol=1e-10)


def test_weights_fit_a_model_that_is_not_laid_out_so():
    changed = use_channels_last(make_model())
    plain = make_model()
    plain.load_state_dict(changed.state_dict())
    assert all(value.is_contiguous() for value in plain.state_dict().values())
