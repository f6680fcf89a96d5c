"""The run-length mask head, against the stock head and pycocotools, to the byte."""

import itertools
import json

import numpy as np
import pytest
import torch
from mmdet.evaluation import CocoMetric
from mmdet.models.roi_heads.mask_heads import FCNMaskHead
from mmdet.models.roi_heads.mask_heads.fcn_mask_head import _do_paste_mask
from mmdet.registry import MODELS
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData
from pycocotools import mask as coco

from nucseg_mmdet.models import mask_nms, rle_mask_head
from nucseg_mmdet.models.rle_mask_head import RLEMaskHead, paste_rle
from nucseg_mmdet.structures import doubles

HEIGHT, WIDTH = 45, 61
EDGE_BOXES = {
    'larger than the image': [-30, -25.5, 100, 80.25],
    'much larger': [-5000, -9000, 7000, 8000],
    'exactly the image': [0, 0, WIDTH, HEIGHT],
    'all its height': [20.3, 0, 24.9, HEIGHT],
    'all its height, from the first column': [0, -3, 30, HEIGHT + 3],
    'all its width': [0, 9, WIDTH, 12],
    'one pixel wide': [20, 10, 21, 30],
    'one pixel': [20, 10, 21, 11],
    'less than a pixel': [20.2, 10.3, 20.4, 10.6],
    'first pixel': [0, 0, 1, 1],
    'last pixel': [WIDTH - 1, HEIGHT - 1, WIDTH, HEIGHT],
    'over the lower right corner': [50.5, 40.5, 70.5, 60.5],
    'without width': [20, 10, 20, 30],
    'without width, at the middle of a pixel': [20.5, 10, 20.5, 30],
    'without height': [20, 10, 30, 10],
    'a point': [20, 10, 20, 10],
    'a point at the middle of a pixel': [20.5, 10.5, 20.5, 10.5],
    'turned inside out by less than a pixel': [20.6, 10.7, 20.2, 10.1],
    'one pixel left of the image': [-20, 5, -1, 30],
    'just below the image': [5, HEIGHT, 30, HEIGHT + 20],
}
NOTHING_TO_PASTE = [  # the stock head fails on these on a CPU
    [-40, 5, -20, 30],
    [WIDTH + 20, 5, WIDTH + 40, 30],
    [5, HEIGHT + 20, 30, HEIGHT + 40],
    [30, 20, 10, 5],
]


def random_probs(seed, num, size=28):
    """Discs with a noisy edge, and every fourth one pure noise or constant."""
    generator = torch.Generator().manual_seed(seed)
    axis = torch.linspace(-1, 1, size)
    disc = (0.7 - axis[:, None] ** 2 - axis**2) * 6
    probs = torch.sigmoid(disc + torch.randn(num, size, size, generator=generator))
    probs[1::8] = torch.rand(num, size, size, generator=generator)[1::8]
    probs[5::8] = 0.5  # at the threshold
    return probs


def random_boxes(seed, num, side=60.0):
    generator = torch.Generator().manual_seed(seed)
    center = torch.rand(num, 2, generator=generator) * torch.tensor([WIDTH, HEIGHT])
    extent = torch.rand(num, 2, generator=generator) * side
    return torch.cat([center - extent / 2, center + extent / 2], dim=1)


def paste_stock(probs, boxes, height, width, threshold=0.5):
    """Bitmaps as the stock head makes them, one by one."""
    masks = torch.zeros(len(probs), height, width, dtype=torch.bool)
    for mask, prob, box in zip(masks, probs, boxes, strict=True):
        part, place = _do_paste_mask(prob[None, None], box[None], height, width, skip_empty=True)
        mask[place] = part[0] >= threshold
    return masks


def encode(masks):
    return coco.encode(np.asfortranarray(masks.numpy().transpose(1, 2, 0).astype(np.uint8)))


@pytest.mark.parametrize('threshold', [0.05, 0.5, 0.9])
@pytest.mark.parametrize('side', [3.0, 30.0, 150.0])
def test_random_boxes(side, threshold):
    probs, boxes = random_probs(0, 200), random_boxes(1, 200, side)
    expected = encode(paste_stock(probs, boxes, HEIGHT, WIDTH, threshold))
    assert paste_rle(probs, boxes, HEIGHT, WIDTH, threshold) == expected


@pytest.mark.parametrize('box', EDGE_BOXES.values(), ids=EDGE_BOXES)
def test_edge_boxes(box):
    probs = random_probs(2, 8)
    probs[7] = 1  # every sampled pixel shows
    boxes = torch.tensor([box] * 8, dtype=torch.float32)
    expected = encode(paste_stock(probs, boxes, HEIGHT, WIDTH))
    assert paste_rle(probs, boxes, HEIGHT, WIDTH) == expected


def test_boxes_outside_give_empty_masks():
    boxes = torch.tensor(NOTHING_TO_PASTE, dtype=torch.float32)
    result = paste_rle(torch.ones(len(boxes), 28, 28), boxes, HEIGHT, WIDTH)
    assert result == encode(torch.zeros(len(boxes), HEIGHT, WIDTH))


def test_the_window_holds_all_that_a_paste_into_the_whole_image_shows():
    # So the stock head pastes on a GPU. Boxes without width are another matter there.
    probs, boxes = random_probs(0, 200), random_boxes(1, 200, 150)
    masks, _ = _do_paste_mask(probs[:, None], boxes, HEIGHT, WIDTH, skip_empty=False)
    assert paste_rle(probs, boxes, HEIGHT, WIDTH) == encode(masks >= 0.5)


def test_a_mixture_keeps_its_order():
    boxes = torch.tensor([*NOTHING_TO_PASTE[:2], *EDGE_BOXES.values()], dtype=torch.float32)
    boxes = torch.cat([boxes, random_boxes(3, 30)])
    probs = random_probs(4, len(boxes))
    expected = encode(torch.zeros(2, HEIGHT, WIDTH))
    expected += encode(paste_stock(probs[2:], boxes[2:], HEIGHT, WIDTH))
    assert paste_rle(probs, boxes, HEIGHT, WIDTH) == expected


def test_by_hand():
    # A full mask in the box of columns 2 to 3, rows 1 to 3 of a 6 x 5 px image:
    # 2 columns of 6 px and 1 px before it, 3 px in, 3 px between, 3 px in, 8 px after.
    (result,) = paste_rle(torch.ones(1, 28, 28), torch.tensor([[2.0, 1, 4, 4]]), 6, 5)
    (expected,) = coco.frPyObjects([{'size': [6, 5], 'counts': [13, 3, 3, 3, 8]}], 6, 5)
    assert result == expected


def test_chunks_do_not_show(monkeypatch):
    probs, boxes = random_probs(0, 40), random_boxes(1, 40)
    whole = paste_rle(probs, boxes, HEIGHT, WIDTH)
    monkeypatch.setattr(rle_mask_head, 'CHUNK', 2000)
    assert paste_rle(probs, boxes, HEIGHT, WIDTH) == whole


@pytest.mark.parametrize('size', [14, 28, 56])
def test_other_mask_sizes(size):
    probs, boxes = random_probs(0, 40, size), random_boxes(1, 40)
    assert paste_rle(probs, boxes, HEIGHT, WIDTH) == encode(
        paste_stock(probs, boxes, HEIGHT, WIDTH)
    )


def test_half_precision_masks():
    probs, boxes = random_probs(0, 40).bfloat16(), random_boxes(1, 40)
    assert paste_rle(probs, boxes, HEIGHT, WIDTH) == encode(
        paste_stock(probs, boxes, HEIGHT, WIDTH)
    )


def test_no_masks():
    assert paste_rle(torch.zeros(0, 28, 28), torch.zeros(0, 4), HEIGHT, WIDTH) == []


@pytest.mark.parametrize('threshold', [0, -1])
def test_threshold_not_above_0_is_refused(threshold):
    with pytest.raises(ValueError, match=f'threshold is {threshold}, expected a value above 0'):
        paste_rle(torch.zeros(1, 28, 28), torch.zeros(1, 4), HEIGHT, WIDTH, threshold)


def heads(num_classes, class_agnostic):
    """The stock head and ours with the same weights."""
    torch.manual_seed(0)
    options = dict(
        num_convs=1,
        in_channels=8,
        conv_out_channels=8,
        num_classes=num_classes,
        class_agnostic=class_agnostic,
    )
    stock = FCNMaskHead(**options).eval()
    ours = MODELS.build(dict(type='RLEMaskHead', **options)).eval()
    torch.nn.init.normal_(stock.conv_logits.weight, std=1)
    ours.load_state_dict(stock.state_dict())
    return stock, ours


def predict(head, num_classes, rescale, meta):
    """Three images: 17, 0 and 5 detections."""
    generator = torch.Generator().manual_seed(0)
    counts = [17, 0, 5]
    results = [
        InstanceData(
            bboxes=random_boxes(index, count, side=40),
            labels=torch.arange(count) % num_classes,
            scores=torch.rand(count, generator=generator),
        )
        for index, count in enumerate(counts)
    ]
    with torch.no_grad():
        preds = head(torch.randn(sum(counts), 8, 14, 14, generator=generator)).split(counts)
        cfg = ConfigDict(mask_thr_binary=0.5)
        return head.predict_by_feat(preds, results, [meta] * 3, cfg, rescale=rescale)


@pytest.mark.parametrize('rescale', [True, False])
@pytest.mark.parametrize(('num_classes', 'class_agnostic'), [(1, False), (3, False), (3, True)])
def test_head_as_stock(num_classes, class_agnostic, rescale):
    # 45 x 0.9 = 40.5 px is rounded to the even 40.
    meta = dict(ori_shape=(HEIGHT, WIDTH), scale_factor=(1.2, 0.9), img_shape=(40, 73))
    stock, ours = heads(num_classes, class_agnostic)
    expected = predict(stock, num_classes, rescale, meta)
    for result, wanted in zip(predict(ours, num_classes, rescale, meta), expected, strict=True):
        assert torch.equal(result.bboxes, wanted.bboxes)
        assert list(result.masks) == (encode(wanted.masks) if len(wanted) else [])
    assert 0 < expected[0].masks.float().mean() < 1


@pytest.mark.parametrize('num', [0, 5])
def test_logits_and_gradients_as_stock(num):
    """The last two layers are matrix products over cells, with the stock's weights."""
    arguments = dict(num_convs=1, in_channels=4, conv_out_channels=8, num_classes=3)
    torch.manual_seed(0)
    stock, ours = FCNMaskHead(**arguments).double(), RLEMaskHead(**arguments).double()
    stock.init_weights()
    ours.load_state_dict(stock.state_dict())  # the same names and shapes
    features = torch.randn(num, 4, 14, 14, dtype=torch.double)
    results = []
    for head in (stock, ours):
        inputs = features.clone().requires_grad_()
        logits = head(inputs)
        logits.pow(2).sum().backward()
        results.append([logits, inputs.grad, *(part.grad for part in head.parameters())])
    for theirs, own in zip(*results, strict=True):
        torch.testing.assert_close(own, theirs, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize('upsample', [None, 'nearest', 'bilinear'])
def test_other_ways_to_upsample_are_stock(upsample):
    arguments = dict(
        num_convs=1, in_channels=4, conv_out_channels=8, num_classes=1,
        upsample_cfg=dict(type=upsample, scale_factor=2),
    )  # fmt: skip
    stock, ours = FCNMaskHead(**arguments), RLEMaskHead(**arguments)
    ours.load_state_dict(stock.state_dict())
    features = torch.randn(3, 4, 14, 14)
    assert torch.equal(ours(features), stock(features))


def squares(*places):
    """Masks of x, y, width, height in an image of 20 x 30 px."""
    masks = torch.zeros(len(places), 20, 30, dtype=torch.bool)
    for mask, (x, y, width, height) in zip(masks, places, strict=True):
        mask[y : y + height, x : x + width] = True
    return encode(masks)


def test_doubles_by_hand():
    rles = squares(
        (0, 0, 10, 10),
        (2, 2, 4, 4),  # in the first
        (8, 0, 5, 4),  # 8 of 20 px in the first: IoM 0.4
        (4, 0, 15, 14),  # 60 px in the first: 0.6; all of the third: 1
        (16, 10, 6, 6),  # 12 of 36 px in the fourth
        (17, 6, 4, 5),  # 10 of 20 px in the fourth, a double that takes none along
        (5, 5, 0, 0),
        (0, 0, 10, 10),  # the first, of another class
    )
    labels = np.array([0, 0, 0, 0, 0, 0, 0, 1])
    found = doubles.find_doubles(rles, labels, 0.48)
    assert found.tolist() == [False, True, False, True, False, False, False, False]
    assert doubles.find_doubles(rles, labels, 0.39)[2]
    assert not doubles.find_doubles(rles[:3], labels[:3], 1.0).any()
    # 3 of 5 px, which is no more than 0.6, though 3 / 8 * (8 / 5) is.
    assert not doubles.find_doubles(squares((0, 0, 5, 1), (2, 0, 8, 1)), labels[:2], 0.6).any()
    assert doubles.find_doubles([], labels[:0], 0.5).tolist() == []


def test_an_iom_at_the_threshold_is_no_double():
    """Also where the quotient of pycocotools, times the area, is not whole: 13 / 23 * 23."""
    for width, shared in itertools.product(range(20, 40), range(1, 20)):
        strips = torch.zeros(2, 1, 60)
        strips[0, :, :width] = strips[1, :, width - shared : width - shared + 20] = 1
        for pair in (encode(strips), encode(strips.flip(0))):
            assert not doubles.find_doubles(pair, np.zeros(2), shared / 20).any()
            found = doubles.find_doubles(pair, np.zeros(2), shared / 20 - 1e-9)
            assert found.tolist() == [False, True]


@pytest.mark.parametrize('scale', [1.6, 1.4])
def test_masks_as_the_network_got_the_image(scale):
    meta = dict(ori_shape=(3, 4), scale_factor=(scale, scale))
    expected = (round(3 * scale), round(4 * scale))
    assert rle_mask_head._image_size(meta, rescale=False) == expected
    assert rle_mask_head._image_size(meta, rescale=True) == (3, 4)


def test_doubles_are_those_of_a_literal_search(monkeypatch):
    rles = paste_rle(random_probs(0, 60), random_boxes(1, 60, 40), HEIGHT, WIDTH)
    masks = coco.decode(rles).astype(bool)
    labels = np.arange(60) % 2
    expected = []
    for index in range(60):
        ioms = [
            (masks[..., index] & masks[..., other]).sum()
            / max(1, min(masks[..., index].sum(), masks[..., other].sum()))
            for other in range(index)
            if not expected[other] and labels[other] == labels[index]
        ]
        expected.append(bool(max(ioms, default=0) > 0.6))
    assert 10 < sum(expected) < 50
    assert doubles.find_doubles(rles, labels, 0.6).tolist() == expected
    monkeypatch.setattr(doubles, 'ROWS', 7)
    assert doubles.find_doubles(rles, labels, 0.6).tolist() == expected


def test_scores_of_doubles_are_lowered():
    rles = squares((0, 0, 10, 10), (2, 2, 4, 4), (20, 10, 5, 5))
    scores = torch.tensor([0.9, 0.8, 0.6])
    for order in ([0, 1, 2], [2, 1, 0]):
        results = InstanceData(
            scores=scores[order],
            labels=torch.zeros(3, dtype=torch.long),
            masks=[rles[index] for index in order],
        )
        lowered = mask_nms.lower_doubles(results, iom_thr=0.6, factor=0.5)
        assert lowered.scores.tolist() == pytest.approx([0.9, 0.6, 0.4])
        assert list(lowered.masks) == [rles[0], rles[2], rles[1]]


def test_head_lowers_doubles_where_told_to():
    meta = dict(ori_shape=(HEIGHT, WIDTH), scale_factor=(1.0, 1.0))
    _, head = heads(1, False)
    found = []
    for more in (dict(), dict(mask_nms=dict(iom_thr=0.6, factor=0.5))):
        results = InstanceData(
            bboxes=torch.tensor([[5.0, 5, 45, 40], [10, 10, 20, 20]]),
            labels=torch.zeros(2, dtype=torch.long),
            scores=torch.tensor([0.9, 0.8]),
        )
        cfg = ConfigDict(mask_thr_binary=0.5, **more)
        empty = InstanceData(bboxes=torch.zeros(0, 4), labels=results.labels[:0])
        preds = [torch.full((2, 1, 28, 28), 9.0), torch.zeros(0, 1, 28, 28)]
        found.append(head.predict_by_feat(preds, [results, empty], [meta] * 2, cfg)[0])
    assert found[0].scores.tolist() == pytest.approx([0.9, 0.8])
    assert found[1].scores.tolist() == pytest.approx([0.9, 0.4])
    assert list(found[1].masks) == list(found[0].masks)


@pytest.mark.parametrize('rescale', [True, False])
def test_head_moves_nuclei_to_where_the_truth_lies(rescale):
    meta = dict(ori_shape=(HEIGHT, WIDTH), scale_factor=(2.0, 2.0))
    _, head = heads(1, False)
    probs, boxes = random_probs(0, 9), random_boxes(0, 9)
    results = [InstanceData(bboxes=2 * boxes, labels=torch.zeros(9, dtype=torch.long))]
    cfg = ConfigDict(mask_thr_binary=0.5, truth_offset=(-0.25, -3))
    (found,) = head.predict_by_feat([probs[:, None]], results, [meta], cfg, rescale, True)
    scale = 1 if rescale else 2
    assert torch.equal(found.bboxes, scale * boxes)
    moved = scale * (boxes + torch.tensor([-0.25, -3.0, -0.25, -3.0]))
    assert list(found.masks) == paste_rle(probs, moved, scale * HEIGHT, scale * WIDTH)


def test_head_takes_activated_maps():
    meta = dict(ori_shape=(HEIGHT, WIDTH), scale_factor=(1.0, 1.0))
    results = [InstanceData(bboxes=random_boxes(0, 9), labels=torch.zeros(9, dtype=torch.long))]
    _, head = heads(1, False)
    probs = random_probs(0, 9)
    cfg = ConfigDict(mask_thr_binary=0.5)
    (result,) = head.predict_by_feat([probs[:, None].numpy()], results, [meta], cfg, False, True)
    assert list(result.masks) == encode(paste_stock(probs, random_boxes(0, 9), HEIGHT, WIDTH))


def test_head_refuses_soft_masks():
    meta = dict(ori_shape=(HEIGHT, WIDTH), scale_factor=(1.0, 1.0))
    results = [InstanceData(bboxes=torch.zeros(1, 4), labels=torch.zeros(1, dtype=torch.long))]
    cfg = ConfigDict(mask_thr_binary=-1)
    with pytest.raises(ValueError, match='threshold is -1'):
        heads(1, False)[1].predict_by_feat([torch.zeros(1, 1, 28, 28)], results, [meta], cfg)


def test_results_can_be_chosen_from():
    meta = dict(ori_shape=(HEIGHT, WIDTH), scale_factor=(1.0, 1.0))
    result = predict(heads(1, False)[1], 1, True, meta)[0]
    keep = result.scores > 0.5
    assert 0 < keep.sum() < len(keep)
    wanted = [mask for mask, kept in zip(result.masks, keep, strict=True) if kept]
    assert list(result[keep].masks) == wanted


def test_the_metric_takes_them(tmp_path):
    meta = dict(ori_shape=(HEIGHT, WIDTH), scale_factor=(1.0, 1.0))
    stock, ours = heads(1, False)
    truth = predict(stock, 1, True, meta)  # every second of the masks
    annotations = [
        dict(
            id=number,
            image_id=image,
            category_id=1,
            iscrowd=0,
            area=int(coco.area(mask)),
            bbox=coco.toBbox(mask).tolist(),
            segmentation=mask | dict(counts=mask['counts'].decode()),
        )
        for number, (image, mask) in enumerate(
            ((image, mask) for image in (0, 2) for mask in encode(truth[image].masks)[::2]),
            start=1,
        )
    ]
    ann_file = tmp_path / 'truth.json'
    ann_file.write_text(
        json.dumps(
            dict(
                info={},
                images=[dict(id=index, height=HEIGHT, width=WIDTH) for index in range(3)],
                categories=[dict(id=1, name='nucleus')],
                annotations=annotations,
            )
        )
    )
    scores = []
    for head in (stock, ours):
        metric = CocoMetric(ann_file=str(ann_file), metric='segm')
        metric.dataset_meta = dict(classes=('nucleus',))
        for index, result in enumerate(predict(head, 1, True, meta)):
            sample = dict(img_id=index, ori_shape=(HEIGHT, WIDTH), pred_instances=result)
            metric.process({}, [sample])
        scores.append(metric.evaluate(3))
    assert scores[0] == scores[1]
    assert 0 < scores[0]['coco/segm_mAP'] < 1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs CUDA')
def test_on_a_gpu():
    probs, boxes = random_probs(0, 200), random_boxes(1, 200)
    masks, _ = _do_paste_mask(probs[:, None].cuda(), boxes.cuda(), HEIGHT, WIDTH, skip_empty=False)
    assert paste_rle(probs.cuda(), boxes.cuda(), HEIGHT, WIDTH) == encode((masks >= 0.5).cpu())


def test_registered():
    assert MODELS.get('RLEMaskHead') is RLEMaskHead
