"""The map of nuclei that a region proposal network learns beside its boxes."""

import numpy as np
import pytest
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.structures.mask import PolygonMasks
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData

from nucseg_mmdet.models.rpn_head import nucleus_map

SIZE, CHANNELS = 64, 64  # px, of the config
CONFIG = 'configs/dense/ablations/lite2-nucleus-map.py'


def square(x, y, side):
    return [np.array([x, y, x + side, y, x + side, y + side, x, y + side], float)]


@pytest.fixture
def cfg():
    init_default_scope('mmdet')
    model = Config.fromfile(CONFIG).model
    settings = dict(train_cfg=model.train_cfg.rpn, test_cfg=model.train_cfg.rpn_proposal)
    return dict(model.rpn_head, **settings)


@pytest.fixture
def sample():
    nuclei = [square(8, 8, 20), square(40, 30, 16)]
    truth = InstanceData(
        bboxes=torch.tensor([[8.0, 8, 28, 28], [40, 30, 56, 46]]),
        labels=torch.zeros(2, dtype=torch.long),
        masks=PolygonMasks(nuclei, SIZE, SIZE),
    )
    shape = (SIZE, SIZE)
    meta = dict(img_shape=shape, pad_shape=shape, batch_input_shape=shape, scale_factor=(1, 1))
    return DetDataSample(metainfo=meta, gt_instances=truth)


@pytest.fixture
def features():
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randn(1, CHANNELS, SIZE // s, SIZE // s, generator=generator, requires_grad=True)
        for s in (4, 8, 16, 32, 64)
    ]


def test_a_border_lies_between_nuclei_that_touch():
    inside, border = nucleus_map([square(4, 4, 16), square(20, 4, 16)], 24, 40, 4)
    row = [0, 1, 1, 1, 1, 1, 1, 1, 1, 0]  # cells of 4 px; the nuclei have 4 each
    assert inside.astype(int).tolist() == [[0] * 10, *[row] * 4, [0] * 10]
    edge, middle = [0, 1, 1, 1, 1, 1, 1, 1, 1, 0], [0, 1, 0, 0, 1, 1, 0, 0, 1, 0]
    assert border.astype(int).tolist() == [[0] * 10, edge, middle, middle, edge, [0] * 10]


def test_the_rim_of_the_image_is_no_border():
    inside, border = nucleus_map([square(0, 0, 16)], 16, 16, 4)
    assert inside.all()
    assert not border.any()


def test_an_image_without_nuclei_has_an_empty_map():
    assert not nucleus_map([], 8, 12, 4).any()
    assert nucleus_map([], 8, 12, 4).shape == (2, 2, 3)


def test_boxes_and_their_losses_are_those_without_a_map(cfg, sample, features):
    head = MODELS.build(cfg)
    plain = MODELS.build(dict(cfg, type='ObjectnessRPNHead'))
    plain.load_state_dict(head.state_dict(), strict=False)
    losses, found = head.loss_and_predict(features, [sample], head.test_cfg)
    expected_losses, expected = plain.loss_and_predict(features, [sample], head.test_cfg)
    torch.testing.assert_close(found[0].bboxes, expected[0].bboxes)
    assert losses.keys() - expected_losses.keys() == {'loss_rpn_map'}
    # RPN samples anchors at random, all of them here but for negative ones.
    assert losses['loss_rpn_bbox'] == expected_losses['loss_rpn_bbox']


def test_the_map_can_be_learned(cfg, sample, features):
    torch.manual_seed(0)
    head = MODELS.build(cfg)
    optimizer = torch.optim.Adam(head.map_convs.parameters(), 0.01)
    for _ in range(40):
        loss = head.loss_and_predict(features, [sample], head.test_cfg)[0]['loss_rpn_map']
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    truth = nucleus_map(sample.gt_instances.masks.masks, SIZE, SIZE, 4)
    np.testing.assert_array_equal(head.map_convs(features[0])[0].detach() > 0, truth)
    assert features[0].grad.abs().sum() > 0  # the backbone learns from it, too
