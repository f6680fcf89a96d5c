"""Test-time augmentation: views there and back, fused boxes, and the whole model."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from mmdet.registry import MODELS, TRANSFORMS
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.registry import init_default_scope
from pycocotools import mask as coco_mask

from nucseg_mmdet.commands.test import main
from nucseg_mmdet.models.mask_tta import fuse_boxes, to_image, to_view, turn_back
from nucseg_mmdet.utils.errors import UserError

CONFIGS = Path(__file__).parents[2] / 'configs'
CONFIG = CONFIGS / 'dense/ablations/first-recipe.py'
ORIENTATIONS = [(flip, turns) for flip in (False, True) for turns in range(4)]
every_orientation = pytest.mark.parametrize('orientation', ORIENTATIONS)
SIZE = 96  # px, three times the divisor that images are padded to


@pytest.fixture(autouse=True)
def _scope():
    init_default_scope('mmdet')


def orient(img, orientation):
    step = TRANSFORMS.build(dict(type='Orient', flip=orientation[0], turns=orientation[1]))
    results = step(dict(img=img))
    assert results['orientation'] == orientation
    assert results['img_shape'] == results['img'].shape[:2]
    return results['img']


@every_orientation
def test_boxes_go_with_the_pixels(orientation):
    img = np.zeros((20, 30, 3), np.uint8)
    img[4:9, 5:17] = 1
    view = orient(np.repeat(np.repeat(img, 2, 0), 2, 1), orientation)
    rows, columns = np.flatnonzero(view.any((1, 2))), np.flatnonzero(view.any((0, 2)))
    expected = torch.tensor([[columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]]).float()
    meta = dict(orientation=orientation, img_shape=view.shape[:2], scale_factor=(2.0, 2.0))
    sample = DetDataSample(metainfo=meta)
    box = torch.tensor([[5.0, 4, 17, 9]])
    assert torch.equal(to_view(box, sample), expected)
    assert torch.equal(to_image(expected, sample), box)


@every_orientation
def test_maps_come_back(orientation):
    maps = np.random.default_rng(0).random((5, 7, 3))
    view = torch.from_numpy(orient(maps, orientation)).permute(2, 0, 1)
    assert torch.equal(turn_back(view, orientation), torch.from_numpy(maps).permute(2, 0, 1))


@pytest.mark.parametrize('turns', [-1, 4, 0.5])
def test_other_turns_are_refused(turns):
    with pytest.raises(UserError, match=f'turns is {turns}, expected 0, 1, 2 or 3'):
        TRANSFORMS.build(dict(type='Orient', turns=turns))


def fuse(*views, iou_thr=0.5):
    """Views as lists of (x1, y1, x2, y2, score, label)."""
    views = [torch.tensor(view, dtype=torch.float32).reshape(-1, 6) for view in views]
    boxes, scores, labels = fuse_boxes(
        [view[:, :4] for view in views],
        [view[:, 4] for view in views],
        [view[:, 5].long() for view in views],
        iou_thr,
    )
    return boxes.tolist(), scores.tolist(), labels.tolist()


def test_fused_boxes_are_means():
    boxes, scores, labels = fuse(
        [(0, 0, 10, 10, 0.8, 0)],
        [(0, 0, 10, 13, 0.4, 0), (50, 50, 60, 60, 0.5, 0)],
    )
    # IoU 10/13. Means weighted with 0.8 and 0.4: the lower edge is at (8 + 5.2) / 1.2 = 11.
    assert boxes[0] == pytest.approx([0, 0, 10, 11], abs=1e-5)
    assert boxes[1] == pytest.approx([50, 50, 60, 60], abs=1e-4)
    assert scores == pytest.approx([(0.8 + 0.4) / 2, (0 + 0.5) / 2], abs=1e-6)
    assert labels == [0, 0]


def test_a_view_counts_once():
    _, scores, _ = fuse([(0, 0, 10, 10, 0.8, 0), (0, 0, 10, 11, 0.6, 0)], [(0, 0, 10, 10, 0.4, 0)])
    assert scores == pytest.approx([0.6], abs=1e-6)  # (0.8 + 0.4) / 2


def test_neighbors_and_classes_stay_apart():
    nuclei = [(0, 0, 10, 10, 0.9, 0), (6, 0, 16, 10, 0.8, 0), (0, 0, 10, 10, 0.7, 1)]
    boxes, scores, labels = fuse(nuclei, nuclei)  # the first two overlap with IoU 1/4
    assert torch.tensor(boxes).round().tolist() == [list(map(float, box[:4])) for box in nuclei]
    assert (scores, labels) == (pytest.approx([0.9, 0.8, 0.7], abs=1e-6), [0, 0, 1])


def test_nothing_found_in_some_views_or_all():
    assert fuse([], []) == ([], [], [])
    assert fuse([], [(0, 0, 10, 10, 0.8, 0)])[1] == pytest.approx([0.4], abs=1e-6)


@pytest.fixture
def model():
    cfg = Config.fromfile(CONFIG)
    cfg.model.test_cfg.rcnn.update(score_thr=0.0, max_per_img=30)
    cfg.model.test_cfg.rpn.update(nms_pre=100, max_per_img=100)
    torch.manual_seed(0)
    model = MODELS.build(dict(**cfg.tta_model, module=cfg.model)).eval()
    # Random weights of the usual size give every box the same score.
    torch.nn.init.normal_(model.module.roi_head.bbox_head.fc_cls.weight, std=0.5)
    torch.nn.init.normal_(model.module.roi_head.mask_head.conv_logits.weight, std=0.5)
    return model


def predict(model, img, orientations):
    """One square image in some orientations."""
    data = dict(inputs=[], data_samples=[])
    for orientation in orientations:
        view = orient(img, orientation)
        shape = view.shape[:2]
        meta = dict(
            ori_shape=shape, img_shape=shape, scale_factor=(1.0, 1.0), orientation=orientation
        )
        data['inputs'].append([torch.from_numpy(view.transpose(2, 0, 1).copy())])
        data['data_samples'].append([DetDataSample(metainfo=meta)])
    with torch.no_grad():
        (sample,) = model.test_step(data)
    return sample.pred_instances


@pytest.fixture
def img():
    return np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), np.uint8)


def test_one_view_is_the_plain_model(model, img):
    found = predict(model, img, [(False, 0)])
    meta = dict(ori_shape=(SIZE, SIZE), img_shape=(SIZE, SIZE), scale_factor=(1.0, 1.0))
    with torch.no_grad():
        data = dict(
            inputs=[torch.from_numpy(img.transpose(2, 0, 1).copy())],
            data_samples=[DetDataSample(metainfo=meta)],
        )
        expected = model.module.test_step(data)[0].pred_instances
    assert len(found) == len(expected) > 10
    torch.testing.assert_close(found.scores, expected.scores)
    torch.testing.assert_close(found.bboxes, expected.bboxes, rtol=1e-5, atol=1e-4)
    found_rles, rles = ([dict(mask) for mask in side.masks] for side in (found, expected))
    overlaps = np.diag(coco_mask.iou(found_rles, rles, [0] * len(found)))
    empty = coco_mask.area(rles) == 0  # their IoU is 0, though they are equal
    assert (coco_mask.area(found_rles)[empty] == 0).all()
    assert overlaps[~empty].min() > 0.95  # rounded boxes move single pixels
    assert (~empty).sum() > 10


def test_all_views_make_a_turned_image_the_same(model, img):
    found = predict(model, img, ORIENTATIONS)
    turned = predict(model, orient(img, (True, 1)), ORIENTATIONS)
    alone = predict(model, orient(img, (True, 1)), [(False, 0)])
    torch.testing.assert_close(turned.scores, found.scores, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(alone.scores[:5], found.scores[:5], rtol=1e-2)
    best, other = (coco_mask.decode(result.masks[0]) for result in (found, turned))
    expected = orient(best[..., None], (True, 1))[..., 0]
    assert (other != expected).mean() < 0.01
    assert best.any()


def test_the_tool(model, data_root, tmp_path):
    checkpoint = tmp_path / 'model.pth'
    torch.save(dict(state_dict=model.module.state_dict()), checkpoint)
    out = tmp_path / 'answer.json'
    options = ['--format-only', '--tta', '--precision', 'bf16', '--data-root', str(data_root)]
    work = ['--work-dir', str(tmp_path / 'work'), '--answer', str(out)]
    fewer = [f'model.test_cfg.{stage}.max_per_img=20' for stage in ('rpn', 'rcnn')]
    # Random weights are sure of nothing, and views that disagree even less.
    fewer += ['model.test_cfg.rpn.nms_pre=20', 'model.test_cfg.rcnn.score_thr=0.0']
    assert main([str(CONFIG), str(checkpoint), *options, *work, '--cfg-options', *fewer]) == 0
    assert {result['image_id'] for result in json.loads(out.read_text())} == set(range(1, 7))


def test_a_config_without_views(capsys, data_root, tmp_path):
    config = CONFIGS / 'demo/mask-rcnn_r18_fpn_demo_nuclei.py'
    checkpoint = tmp_path / 'model.pth'
    checkpoint.touch()
    options = ['--format-only', '--tta', '--data-root', str(data_root)]
    assert main([str(config), str(checkpoint), *options]) == 2
    assert 'has no tta_model' in capsys.readouterr().err


def test_cascade_is_refused():
    cfg = Config.fromfile(CONFIGS / 'dense/ablations/lite2-cascade.py')
    model = MODELS.build(dict(cfg.tta_model, module=cfg.model))
    with pytest.raises(UserError, match='a cascade among the models to average'):
        model.test_step(dict(inputs=[], data_samples=[]))
