"""The benchmark of slides: times in proportion to the image."""

from types import SimpleNamespace

import openvino
import pytest
from openvino import opset15

from nucseg_mmdet.benchmarks import slides


@pytest.mark.parametrize(
    ('megapixels', 'tiles'),
    [
        (0.08192, 1),  # 320 x 256 px, 0.078 of a tile
        (1.048576 * 2.25, 2),
    ],
)
def test_both_clocks_of_whole_tiles_are_taken_in_proportion(megapixels, tiles, monkeypatch):
    image = opset15.parameter([1, 3, 8, 8], openvino.Type.f32)
    network = openvino.Model([opset15.relu(image)], [image], 'small')
    run = slides.network_alone(network, megapixels, 'fp32')
    wall, processor = iter([10.0, 11.0]), iter([20.0, 23.0])
    clock = SimpleNamespace(perf_counter=lambda: next(wall), process_time=lambda: next(processor))
    monkeypatch.setattr(slides, 'time', clock)
    share = megapixels / 1.048576 / tiles
    assert run() == pytest.approx([share, 3 * share], rel=1e-12)


@pytest.mark.parametrize(
    ('option', 'value'), [('--runs', '0'), ('--mosaic', '0'), ('--mosaic', '-5')]
)
def test_numbers_below_one_are_refused(option, value, capsys):
    assert slides.main(['none.png', option, value]) == 2
    assert capsys.readouterr().err == f'slides: {option} {value}: expected at least 1\n'
