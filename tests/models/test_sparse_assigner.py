"""The sparse assigner, against the stock one, to the bit."""

import pytest
import torch
from mmdet.models.task_modules import MaxIoUAssigner
from mmdet.models.task_modules.prior_generators import AnchorGenerator
from mmdet.registry import TASK_UTILS
from mmengine.structures import InstanceData

from nucseg_mmdet.models import sparse_assigner
from nucseg_mmdet.models.sparse_assigner import SparseMaxIoUAssigner

RPN = dict(pos_iou_thr=0.7, neg_iou_thr=0.3, min_pos_iou=0.3)
ROI = dict(pos_iou_thr=0.5, neg_iou_thr=0.5, min_pos_iou=0.5, match_low_quality=False)
OPTIONS = {
    'rpn': RPN,
    'roi': ROI,
    'defaults': dict(pos_iou_thr=0.5, neg_iou_thr=0.4),  # min_pos_iou 0
    'first best only': RPN | dict(gt_max_assign_all=False),
    'first best only from 0': RPN | dict(gt_max_assign_all=False, min_pos_iou=0.0),
    'tiny min_pos_iou': RPN | dict(min_pos_iou=1e-3),
    'negative min_pos_iou': RPN | dict(min_pos_iou=-1.0),
    'negatives in a range': RPN | dict(neg_iou_thr=(0.1, 0.4)),
    'negatives of a type that stock passes over': RPN | dict(neg_iou_thr=0),
    'all positive': dict(pos_iou_thr=0.0, neg_iou_thr=0.0, match_low_quality=False),
    'gpu_assign_thr': RPN | dict(gpu_assign_thr=1),
}
IGNORE = [
    dict(ignore_iof_thr=0.4),
    dict(ignore_iof_thr=0.4, ignore_wrt_candidates=False),
    dict(ignore_iof_thr=-1),
]
by_option = pytest.mark.parametrize('options', OPTIONS.values(), ids=OPTIONS)


def boxes_of(values):
    return torch.tensor(values, dtype=torch.float32).reshape(-1, 4)


def random_boxes(seed, num, side=60, size=24, low=0, step=1.0):
    """Boxes with corners on a lattice of ``step`` px, so that overlaps tie."""
    generator = torch.Generator().manual_seed(seed)
    corner = torch.randint(0, side, (num, 2), generator=generator)
    extent = torch.randint(low, size, (num, 2), generator=generator)
    return torch.cat([corner - 10, corner - 10 + extent], dim=1) * step


def assign(cls, options, priors, boxes, ignore=None):
    labels = torch.arange(len(boxes)) % 3
    regions = None if ignore is None else InstanceData(bboxes=ignore)
    return cls(**options).assign(
        InstanceData(priors=priors.clone()),
        InstanceData(bboxes=boxes.clone(), labels=labels),
        regions,
    )


def assert_same(options, priors, boxes, ignore=None):
    expected = assign(MaxIoUAssigner, options, priors, boxes, ignore)
    result = assign(SparseMaxIoUAssigner, options, priors, boxes, ignore)
    assert result.num_gts == expected.num_gts
    for key in ('gt_inds', 'labels', 'max_overlaps'):
        found, wanted = getattr(result, key), getattr(expected, key)
        assert found.dtype == wanted.dtype, key
        assert torch.equal(found, wanted), key
    return expected


@by_option
@pytest.mark.parametrize('seed', range(6))
def test_integer_boxes_with_ties(options, seed):
    priors, boxes = random_boxes(seed, 300), random_boxes(100 + seed, 25)
    assert assert_same(options, priors, boxes).gt_inds.max() > 0


@by_option
def test_real_boxes(options):
    priors, boxes = random_boxes(0, 400, step=1.37), random_boxes(1, 40, step=0.731)
    assert_same(options, priors, boxes)


@by_option
@pytest.mark.parametrize('ignoring', IGNORE, ids=['of prior', 'of region', 'off'])
@pytest.mark.parametrize('seed', range(2))
def test_ignored_regions(options, ignoring, seed):
    priors, boxes = random_boxes(seed, 300), random_boxes(50 + seed, 20)
    regions = random_boxes(90 + seed, 6)
    result = assert_same(options | ignoring, priors, boxes, regions)
    # The test is worth something only if a region makes a difference.
    assert (result.max_overlaps == -1).any() == (ignoring['ignore_iof_thr'] > 0)


@by_option
@pytest.mark.parametrize('regions', [[], [[-100, -100, 200, 200]]], ids=['none', 'everything'])
def test_no_region_and_one_over_everything(options, regions):
    priors, boxes = random_boxes(0, 80, low=1), random_boxes(1, 9)
    assert_same(options | dict(ignore_iof_thr=0.5), priors, boxes, boxes_of(regions))


@by_option
@pytest.mark.parametrize('num_priors', [0, 1, 40])
@pytest.mark.parametrize('num_boxes', [0, 1, 5])
def test_few_or_none(options, num_priors, num_boxes):
    assert_same(options, random_boxes(0, num_priors), random_boxes(1, num_boxes))


@by_option
def test_duplicates(options):
    priors = random_boxes(0, 60).repeat(3, 1)
    boxes = random_boxes(1, 8).repeat(2, 1)
    assert_same(options, torch.cat([priors, boxes]), boxes)


@by_option
def test_degenerate_boxes(options):
    odd = boxes_of(
        [
            [5, 5, 5, 5],  # a point
            [5, 5, 5, 20],  # a line
            [20, 20, 10, 10],  # turned inside out, its area is positive
            [20, 10, 10, 20],  # the same in x only
            [10, 10, 10 + 1e-5, 10 + 1e-5],  # its area is below the smallest union
            [1e-30, 1e-30, 3e-30, 3e-30],  # the area underflows to 0
        ]
    )
    plain = random_boxes(0, 60)
    assert_same(options, torch.cat([plain, odd]), torch.cat([odd, plain[:5]]))
    assert_same(options, torch.cat([odd, plain]), odd)
    assert_same(options, odd, odd)
    assert_same(options, odd, plain)


@by_option
def test_boxes_that_touch_do_not_overlap(options):
    lattice = torch.cartesian_prod(torch.arange(6.0), torch.arange(6.0)) * 8
    tiles = torch.cat([lattice, lattice + 8], dim=1)
    assert_same(options, tiles, tiles)
    assert_same(options, tiles, tiles + 8)


@by_option
def test_a_box_that_no_prior_reaches(options):
    priors = random_boxes(0, 50)
    boxes = boxes_of([[0, 0, 9, 9], [500, 500, 520, 520], [3, 3, 30, 30], [-900, 0, -890, 9]])
    assert_same(options, priors, boxes)


@by_option
def test_sizes_from_one_to_ten_thousand_pixels(options):
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(300, 2, generator=generator) * 2000 - 500
    extent = 10 ** (torch.rand(300, 2, generator=generator) * 4)
    boxes = torch.cat([corner, corner + extent], dim=1)
    assert_same(options, boxes[:250], boxes[200:])


@pytest.mark.parametrize('chunk', [1, 7, 1000])
@by_option
def test_chunks_do_not_show(options, chunk, monkeypatch):
    monkeypatch.setattr(sparse_assigner, 'CHUNK', chunk)
    assert_same(options, random_boxes(0, 200), random_boxes(1, 30), None)


@pytest.mark.parametrize('scale', [2, 8])
@pytest.mark.parametrize('options', [RPN, OPTIONS['defaults'], OPTIONS['first best only']])
def test_anchors_and_clustered_nuclei(options, scale):
    anchors = AnchorGenerator(strides=[4, 8, 16, 32, 64], ratios=[0.5, 1, 2], scales=[scale])
    sizes = [(64 // 2**level, 72 // 2**level) for level in range(5)]
    priors = torch.cat(anchors.grid_priors(sizes, device='cpu'))
    generator = torch.Generator().manual_seed(scale)
    center = torch.randn(80, 2, generator=generator) * 40 + 128
    half = torch.rand(80, 2, generator=generator) * 15 + 3
    assert_same(options, priors, torch.cat([center - half, center + half], dim=1))


def test_proposals_with_the_truth_appended():
    generator = torch.Generator().manual_seed(0)
    corner = torch.rand(500, 2, generator=generator) * 800
    boxes = torch.cat([corner, corner + 8 + 30 * torch.rand(500, 2, generator=generator)], dim=1)
    proposals = boxes.repeat(3, 1) + torch.randn(1500, 4, generator=generator) * 3
    result = assert_same(ROI, torch.cat([boxes, proposals]), boxes)
    # Each box finds itself: it is a proposal of IoU 1.
    assert (result.gt_inds[:500] == torch.arange(1, 501)).all()


def test_by_hand():
    # IoU of the first box: 0.9 with prior 0, 0.1 x 10 / (100 + 90 - 10) with prior 1.
    priors = boxes_of([[0, 0, 10, 10], [0, 8, 10, 18], [50, 50, 60, 60]])
    boxes = boxes_of([[0, 0, 10, 9]])
    result = assign(SparseMaxIoUAssigner, RPN, priors, boxes)
    assert result.gt_inds.tolist() == [1, 0, 0]
    assert result.labels.tolist() == [0, -1, -1]
    assert result.max_overlaps.tolist() == pytest.approx([0.9, 10 / 180, 0], abs=1e-6)


def test_built_from_a_config():
    built = TASK_UTILS.build(dict(type='SparseMaxIoUAssigner', **RPN))
    assert isinstance(built, SparseMaxIoUAssigner)


@pytest.mark.parametrize(
    ('changed', 'name'),
    [
        (dict(iou_calculator=dict(type='BboxOverlaps2D_GLIP')), 'iou_calculator'),
        (dict(iou_calculator=dict(type='BboxOverlaps2D', dtype='fp16')), 'iou_calculator'),
        (dict(perm_repeat_gt_cfg=dict(iou_thr=0.7)), 'perm_repeat_gt_cfg'),
    ],
)
def test_what_is_not_supported_is_refused(changed, name):
    with pytest.raises(ValueError, match=name):
        SparseMaxIoUAssigner(**RPN, **changed)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs CUDA')
@by_option
def test_on_a_gpu(options):
    priors, boxes = random_boxes(0, 3000, side=200).cuda(), random_boxes(1, 90, side=200).cuda()
    labels = torch.arange(90, device='cuda')
    results = [
        cls(**options).assign(
            InstanceData(priors=priors), InstanceData(bboxes=boxes, labels=labels)
        )
        for cls in (MaxIoUAssigner, SparseMaxIoUAssigner)
    ]
    for key in ('gt_inds', 'labels', 'max_overlaps'):
        assert torch.equal(*(getattr(result, key) for result in results)), key
