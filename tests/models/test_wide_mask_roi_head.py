"""Masks of larger boxes: a factor of 1 changes nothing, any other the masks alone."""

import numpy as np
import pytest
import torch
from mmdet.models.task_modules.samplers import SamplingResult
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmdet.structures.mask import BitmapMasks, PolygonMasks
from mmengine.config import Config, ConfigDict
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData

from nucseg_mmdet.models.mask_tta import frame_again
from nucseg_mmdet.models.rle_mask_head import RLEMaskHead, enlarge
from nucseg_mmdet.structures import rle
from nucseg_mmdet.utils.errors import UserError
from tests.conftest import DEMO_CONFIG

SIZE = 128  # px, of the image


def config(scale=None):
    """Of the demo's model, with or without wide masks."""
    cfg = Config.fromfile(DEMO_CONFIG).model
    cfg.test_cfg.rpn.update(nms_pre=40, max_per_img=40)
    cfg.test_cfg.rcnn.update(score_thr=0.0, max_per_img=20, mask_nms=None)
    if scale is not None:
        cfg.roi_head.update(type='WideMaskRoIHead', mask_scale=scale)
    return cfg


def detector(scale=None):
    """The same, untrained."""
    init_default_scope('mmdet')
    torch.manual_seed(0)
    model = MODELS.build(config(scale)).eval()
    torch.nn.init.normal_(model.roi_head.bbox_head.fc_cls.weight, std=0.5)
    torch.nn.init.normal_(model.roi_head.mask_head.conv_logits.weight, std=0.5)
    return model


def predict(model):
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, SIZE, SIZE), np.uint8))
    meta = dict(ori_shape=(SIZE, SIZE), img_shape=(SIZE, SIZE), scale_factor=(1.0, 1.0))
    data = dict(inputs=[pixels], data_samples=[DetDataSample(metainfo=meta)])
    with torch.no_grad():
        (sample,) = model.test_step(data)
    return sample.pred_instances


def sure(model):
    """Let a model say of each mask that it fills its box."""
    torch.nn.init.zeros_(model.roi_head.mask_head.conv_logits.weight)
    torch.nn.init.constant_(model.roi_head.mask_head.conv_logits.bias, 10.0)
    return model


@pytest.mark.parametrize('scale', [0, 0.9, -1.15, float('inf'), float('nan'), '1.15'])
def test_an_odd_factor_is_refused(scale):
    init_default_scope('mmdet')
    with pytest.raises(UserError, match=f'mask_scale is {scale!r}, expected a number, 1 or more'):
        MODELS.build(config(scale))


def test_a_factor_of_1_is_the_stock_roi_head():
    expected, found = predict(detector()), predict(detector(1.0))
    assert torch.equal(found.bboxes, expected.bboxes)
    assert list(found.masks) == list(expected.masks)


def test_only_the_masks_are_of_other_boxes():
    expected, found = predict(detector()), predict(detector(1.5))
    assert torch.equal(found.bboxes, expected.bboxes)
    assert torch.equal(found.scores, expected.scores)
    assert list(found.masks) != list(expected.masks)


def test_a_mask_that_fills_its_place_is_larger_than_its_box():
    found = predict(sure(detector(1.5)))
    wide = enlarge(found.bboxes, 1.5).clamp(0, SIZE).numpy()
    for (x, y, width, height), box in zip(rle.boxes(list(found.masks)), wide, strict=True):
        np.testing.assert_allclose([x, y, x + width, y + height], box, atol=1.0)


def targets(head, boxes, masks):
    sampled = SamplingResult.__new__(SamplingResult)
    sampled.pos_priors = torch.tensor(boxes)
    sampled.pos_assigned_gt_inds = torch.zeros(len(boxes), dtype=torch.long)
    truth = InstanceData(masks=masks)
    return head.get_targets([sampled], [truth], ConfigDict(mask_size=28))


# A square of 20 px that touches the left border of an image of 60 px.
POLYGON = PolygonMasks([[np.array([0, 20, 20, 20, 20, 40, 0, 40], float)]], 60, 60)


@pytest.mark.parametrize('kind', ['polygons', 'bitmaps'])
def test_targets_within_the_image_are_those_of_the_larger_box(kind):
    masks = POLYGON if kind == 'polygons' else BitmapMasks(POLYGON.to_ndarray(), 60, 60)
    head, stock = RLEMaskHead(box_scale=1.5), RLEMaskHead()
    found = targets(head, [[12.0, 22.0, 28.0, 38.0]], masks)
    assert torch.equal(found, targets(stock, [[8.0, 18.0, 32.0, 42.0]], masks))
    assert 0 < found.mean() < 1


def test_targets_beyond_the_image_are_no_nucleus():
    """Half of a box of 20 px, enlarged twice about (0, 30), lies beyond the border."""
    found = targets(RLEMaskHead(box_scale=2.0), [[-10.0, 20.0, 10.0, 40.0]], POLYGON)[0]
    assert not found[:, :14].any()
    assert found[7:21, 14:].all()


def test_no_boxes_have_no_targets():
    found = targets(RLEMaskHead(box_scale=1.5), np.zeros((0, 4), np.float32), POLYGON)
    assert found.shape == (0, 28, 28)


def test_losses_and_gradients_come_from_the_larger_boxes():
    model = detector(1.5).train()
    truth = InstanceData(
        bboxes=torch.tensor([[30.0, 30, 70, 70]]),
        labels=torch.tensor([0]),
        masks=PolygonMasks([[np.array([30, 30, 70, 30, 70, 70, 30, 70], float)]], SIZE, SIZE),
    )
    meta = dict(img_shape=(SIZE, SIZE), pad_shape=(SIZE, SIZE))
    sample = DetDataSample(metainfo=meta, gt_instances=truth)
    losses = model.loss(torch.randn(1, 3, SIZE, SIZE), [sample])
    losses['loss_mask'].backward()
    assert model.roi_head.mask_head.conv_logits.weight.grad.abs().sum() > 0


def test_masks_of_one_factor_are_taken_to_another():
    """A ramp over the box stays where it lies, whatever the frame; beyond, there is nothing."""
    ramp = (torch.arange(28) + 0.5).expand(1, 1, 28, 28) / 28
    inner = frame_again(ramp, 2.0, 1.0)[0, 0, 0]  # the middle half of it
    torch.testing.assert_close(inner, 0.25 + (torch.arange(28) + 0.5) / 56)
    outer = frame_again(ramp, 1.0, 2.0)[0, 0, 14]
    assert not outer[:6].any()
    assert not outer[-6:].any()
    torch.testing.assert_close(outer[8:20], 2 * (torch.arange(8, 20) + 0.5) / 28 - 0.5)
    assert frame_again(ramp, 1.5, 1.5) is ramp
    assert frame_again(ramp[:0], 1.5, 1.0).shape == (0, 1, 28, 28)


def test_models_of_several_factors_are_averaged_where_their_masks_lie():
    """Both are sure of all of their box; only the smaller one is certain to both."""
    init_default_scope('mmdet')
    ensemble = MODELS.build(
        dict(type='MaskEnsembleModel', others=[config()], module=config())
    ).eval()
    # Where one of them is sure, the mean is 0.5.
    ensemble.module, ensemble.others[0] = sure(detector(1.5)), sure(detector())
    ensemble.module.roi_head.test_cfg.mask_thr_binary = 0.75
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, SIZE, SIZE), np.uint8))
    meta = dict(
        ori_shape=(SIZE, SIZE),
        img_shape=(SIZE, SIZE),
        scale_factor=(1.0, 1.0),
        orientation=(False, 0),
    )
    data = dict(inputs=[[pixels]], data_samples=[[DetDataSample(metainfo=meta)]])
    with torch.no_grad():
        (sample,) = ensemble.test_step(data)
    found = sample.pred_instances
    assert len(found) > 5
    sizes, boxes = rle.boxes(list(found.masks))[:, 2:], found.bboxes.numpy()
    # To a pixel; not 1.25 and more, as by masks that are taken for the same boxes.
    np.testing.assert_allclose(sizes / (boxes[:, 2:] - boxes[:, :2]), 1, atol=0.2)
