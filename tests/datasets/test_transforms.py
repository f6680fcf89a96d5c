"""The steps that load, turn, copy and move: image and truth stay together."""

import pickle
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmdet.registry import TRANSFORMS
from mmdet.structures.bbox import HorizontalBoxes
from mmdet.structures.mask import PolygonMasks
from mmengine.config import Config

from nucseg_mmdet.structures.polygons import mask_to_polygons
from nucseg_mmdet.utils.errors import UserError

DENSE = Path(__file__).parents[2] / 'configs/dense'
pytestmark = pytest.mark.usefixtures('seeded')


def build(name, **kwargs):
    return TRANSFORMS.build(dict(type=name, **kwargs))


def test_kept_images_are_what_is_on_disk(files):
    paths, images = files
    load = build('LoadImageOnce', keep=1)
    plain = build('LoadImageFromFile')
    for path, target in zip([*paths, *paths], [*images, *images], strict=True):
        results = load(dict(img_path=path))
        assert np.array_equal(results['img'], target[..., ::-1])
        expected = plain(dict(img_path=path))
        assert (results['img_shape'], results['ori_shape']) == (
            expected['img_shape'],
            expected['ori_shape'],
        )
        results['img'][:] = 0  # the next one gets pixels of its own


def test_steps_are_done_once_to_each_image(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    path = str(tmp_path / 'a.png')
    assert cv2.imwrite(path, rng.integers(60, 200, (20, 30, 3), np.uint8))
    load = build('LoadImageOnce', steps=[dict(type='ReinhardNormalize')])
    expected = build('ReinhardNormalize')(build('LoadImageFromFile')(dict(img_path=path)))['img']
    assert np.array_equal(load(dict(img_path=path))['img'], expected)
    monkeypatch.setattr('nucseg_mmdet.datasets.transforms.stain.ReinhardNormalize.transform', None)
    assert np.array_equal(load(dict(img_path=path))['img'], expected)


def test_an_image_that_is_ignored_gives_no_results(tmp_path):
    load = build('LoadImageOnce', ignore_empty=True)
    assert load(dict(img_path=str(tmp_path / 'none.png'))) is None


def test_a_kept_image_is_not_read_again(files):
    paths, images = files
    load = build('LoadImageOnce')
    load(dict(img_path=paths[0]))
    Path(paths[0]).unlink()
    assert np.array_equal(load(dict(img_path=paths[0]))['img'], images[0][..., ::-1])
    copied = pickle.loads(pickle.dumps(load))  # for a worker, which reads for itself
    with pytest.raises(FileNotFoundError):
        copied(dict(img_path=paths[0]))


@pytest.mark.parametrize('turns', range(4))
def test_quarter_turns_take_the_truth_along(turns, img, monkeypatch):
    height, width = img.shape[:2]
    mask = np.zeros((height, width), bool)
    mask[10:30, 50:70], mask[30:35, 50:55] = True, True  # an L, near no center
    box = torch.tensor([[50.0, 10, 70, 35]])
    results = dict(
        img=img,
        img_shape=(height, width),
        gt_bboxes=HorizontalBoxes(box),
        gt_masks=PolygonMasks([[np.array(ring) for ring in mask_to_polygons(mask)]], height, width),
    )
    monkeypatch.setattr(np.random, 'randint', lambda count: turns)
    results = build('RandomQuarterTurn')(results)
    turned = np.rot90(mask, turns)
    assert np.array_equal(results['img'], np.rot90(img, turns))
    assert results['img_shape'] == turned.shape
    masks = results['gt_masks']
    assert (masks.height, masks.width) == turned.shape
    assert np.array_equal(masks.to_ndarray()[0].astype(bool), turned)
    rows, columns = np.flatnonzero(turned.any(1)), np.flatnonzero(turned.any(0))
    assert results['gt_bboxes'].tensor.tolist() == [
        [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
    ]


def test_all_quarter_turns_come_about_and_images_without_truth_turn_too(img):
    turn = build('RandomQuarterTurn')
    found = {turn(dict(img=img))['img'].tobytes() for _ in range(40)}
    assert found == {np.rot90(img, turns).tobytes() for turns in range(4)}


@pytest.fixture
def crop(img):
    """Three nuclei, of which the border cuts the last."""
    masks = np.zeros((3, *img.shape[:2]), bool)
    masks[0, 10:22, 50:60], masks[0, 22:26, 50:54] = True, True  # an L
    masks[1, 40:50, 20:38] = True
    masks[2, :9, 100:] = True
    boxes = torch.tensor([[50.0, 10, 60, 26], [20, 40, 38, 50], [100, 0, 112, 9]])
    polygons = [[np.array(ring) for ring in mask_to_polygons(mask)] for mask in masks]
    results = dict(
        img=img,
        gt_bboxes=HorizontalBoxes(boxes),
        gt_bboxes_labels=np.array([0, 1, 2]),
        gt_ignore_flags=np.zeros(3, bool),
        gt_masks=PolygonMasks(polygons, *img.shape[:2]),
    )
    return results, masks


def test_copies_are_nuclei_where_none_was(crop):
    results, masks = crop
    before = results['img'].copy()
    pasted = build('PasteNuclei', number=30)(dict(results))
    now = pasted['gt_masks'].to_ndarray().astype(bool)
    labels = pasted['gt_bboxes_labels']
    assert np.array_equal(results['img'], before)  # a kept image stays as it is
    assert np.array_equal(now[:3], masks)
    assert set(labels[3:].tolist()) == {0, 1}
    assert len(labels) == len(now) == len(pasted['gt_ignore_flags'])
    assert now.sum(0).max() == 1
    orientations = {0: set(), 1: set()}
    for mask, label, box in zip(now, labels, pasted['gt_bboxes'].tensor.tolist(), strict=True):
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        assert box == [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
        if label < 2:
            assert mask.sum() == masks[label].sum()
            cut = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
            orientations[label].add((cut.shape, cut.tobytes()))
    assert len(orientations[0]) > 2
    assert len(orientations[1]) == 2
    changed = (pasted['img'] != before).any(-1)
    copies = now[3:].any(0)
    assert not changed[~copies].any()
    assert changed[copies].mean() > 0.5


def test_a_copy_has_the_pixels_of_its_nucleus_inside(crop):
    results, masks = crop
    results['img'] = np.full((*masks.shape[1:], 3), 50, np.uint8)
    results['img'][masks[1]] = 200
    results.update(gt_masks=results['gt_masks'][[1]], gt_bboxes=results['gt_bboxes'][[1]])
    for key in ('gt_bboxes_labels', 'gt_ignore_flags'):
        results[key] = results[key][[1]]
    pasted = build('PasteNuclei', number=1)(results)
    copy = pasted['gt_masks'].to_ndarray()[1].astype(np.uint8)
    inside = cv2.erode(copy, np.ones((3, 3), np.uint8), borderType=cv2.BORDER_CONSTANT)
    assert (pasted['img'][inside > 0] == 200).all()
    edge = pasted['img'][(copy > 0) & (inside == 0)]
    assert 50 < edge.min() <= edge.max() < 200


def test_nothing_is_pasted_where_no_nucleus_is_whole_or_no_place_free(crop):
    results, masks = crop
    for key in ('gt_bboxes', 'gt_bboxes_labels', 'gt_ignore_flags', 'gt_masks'):
        results[key] = results[key][[2]]
    assert build('PasteNuclei')(dict(results)) == results
    full = np.ones(masks.shape[1:], bool)
    full[[0, -1]] = full[:, [0, -1]] = False
    results['gt_masks'] = PolygonMasks([[np.array(mask_to_polygons(full)[0])]], *full.shape)
    assert build('PasteNuclei')(dict(results)) == results


def test_wrong_number_of_copies_is_refused():
    with pytest.raises(UserError, match='number is -1'):
        build('PasteNuclei', number=-1)


@pytest.mark.parametrize('offset', [(3, 0), (0, -2), (-45, 60)])
def test_moved_truth_is_where_its_pixels_moved_to(offset, crop):
    results, masks = crop
    results['img_shape'] = height, width = masks.shape[1:]
    results = {key: value for key, value in results.items() if 'gt_' in key or 'shape' in key}
    moved = build('MoveTruth', offset=offset)(dict(results))
    x, y = offset
    padded = np.pad(masks, ((0, 0), (height, height), (width, width)))
    expected = np.roll(padded, (y, x), (1, 2))[:, height : 2 * height, width : 2 * width]
    assert np.array_equal(moved['gt_masks'].to_ndarray().astype(bool), expected)
    for mask, box in zip(expected, moved['gt_bboxes'].tensor.tolist(), strict=True):
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        if len(rows):
            assert box == [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
    assert np.array_equal(results['gt_masks'].to_ndarray().astype(bool), masks)
    assert results['gt_bboxes'].tensor[0].tolist() == [50, 10, 60, 26]


def test_truth_moves_by_parts_of_a_pixel(crop):
    results, masks = crop
    results['img_shape'] = masks.shape[1:]
    moved = build('MoveTruth', offset=[0.4, 0.6])(dict(results))
    torch.testing.assert_close(moved['gt_bboxes'].tensor[1], torch.tensor([20.4, 40.6, 38.4, 50.6]))
    before, after = (item['gt_masks'].masks[0][0].reshape(-1, 2) for item in (results, moved))
    np.testing.assert_allclose(after - before, [[0.4, 0.6]] * len(before), atol=1e-6)


def test_an_offset_that_is_no_pair_is_refused():
    with pytest.raises(UserError, match='offset is'):
        build('MoveTruth', offset=(1, 2, 3))


def test_truth_moved_for_training_is_moved_back_for_scores():
    cfg = Config.fromfile(DENSE / 'ablations/move-truth.py', import_custom_modules=False)
    load, annotate, move = cfg.train_dataloader.dataset.pipeline[:3]
    assert [load.type, annotate.type, move.type] == [
        'LoadImageOnce',
        'LoadAnnotations',
        'MoveTruth',
    ]
    assert move.offset == tuple(-axis for axis in cfg.model.test_cfg.rcnn.truth_offset)
