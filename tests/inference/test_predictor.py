"""What all runtimes share."""

import pytest

from nucseg_mmdet.inference import backends, predictor
from nucseg_mmdet.inference.predictor import ModelOptions


@pytest.mark.parametrize(('factor', 'step'), [(1.0, 32), (2.0, 16), (0.8, 40), (2.25, 128)])
def test_tiles_start_where_the_coarsest_map_does(factor, step):
    # The smallest step that is a multiple of 32 px of the enlarged image.
    assert step * factor % 32 == pytest.approx(0, abs=1e-9)
    assert predictor.tile_step(factor) == step


def test_backend_follows_what_is_asked_for(random_model):
    assert backends.choose_backend(ModelOptions(device='cuda:0')) == 'mmdet'
    assert backends.choose_backend(ModelOptions(device='cpu', precision='fp16')) == 'mmdet'
    assert backends.choose_backend(ModelOptions(device='cpu')) == 'openvino'
    # Without a file for OpenVINO beside the checkpoint.
    assert backends.choose_backend(ModelOptions(*random_model, device='cpu')) == 'mmdet'
