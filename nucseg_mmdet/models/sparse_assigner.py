"""An assigner whose cost follows the overlapping pairs, not anchors times nuclei."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator

import torch
from mmdet.models.task_modules import AssignResult, BboxOverlaps2D, MaxIoUAssigner
from mmdet.registry import TASK_UTILS
from mmdet.structures.bbox import get_box_tensor
from mmengine.structures import InstanceData
from torch import Tensor

EPS = 1e-6  # smallest union of mmdet's ``bbox_overlaps``, px^2
CHUNK = 1 << 18  # candidate pairs looked at together: bounds the memory, fits the caches
STRIPS = 12  # grid rows and columns that a box reaches, about


@TASK_UTILS.register_module()
class SparseMaxIoUAssigner(MaxIoUAssigner):
    """``MaxIoUAssigner`` for images with hundreds to thousands of objects.

    The stock assigner fills a matrix of all objects and priors: 670 million
    entries, 24.8 GB with what is made of them, for 1,862 nuclei and 359,790 anchors, of which 0.5%
    are not zero. Here only pairs that can overlap are looked at. Results are
    the same to the bit, ties included; arguments are those of the stock class.

    Args:
        args, kwargs: as of ``MaxIoUAssigner``. ``gpu_assign_thr`` has no
            effect: there is no large matrix to move to the CPU.

    Raises:
        ValueError: the overlap is not the plain ``BboxOverlaps2D``, or
            ``perm_repeat_gt_cfg`` is set (it moves boxes at random).
    """

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        calculator = self.iou_calculator
        if type(calculator) is not BboxOverlaps2D or calculator.dtype is not None:
            raise ValueError(f'iou_calculator is {calculator!r}, expected BboxOverlaps2D()')
        if self.perm_repeat_gt_cfg is not None:
            raise ValueError(
                f'perm_repeat_gt_cfg is {self.perm_repeat_gt_cfg}, only None is supported'
            )

    def assign(
        self,
        pred_instances: InstanceData,
        gt_instances: InstanceData,
        gt_instances_ignore: InstanceData | None = None,
        **kwargs,
    ) -> AssignResult:
        priors = get_box_tensor(pred_instances.priors)[:, :4]
        boxes = get_box_tensor(gt_instances.bboxes)[:, :4]
        num_priors, num_boxes = len(priors), len(boxes)
        if not num_priors or not num_boxes:
            return AssignResult(
                num_gts=num_boxes,
                gt_inds=priors.new_full((num_priors,), -1 if num_boxes else 0, dtype=torch.long),
                max_overlaps=boxes.new_zeros(num_priors),
                labels=priors.new_full((num_priors,), -1, dtype=torch.long),
            )

        grid = PriorGrid(priors, boxes)
        ignored = None
        if self.ignore_iof_thr > 0 and gt_instances_ignore is not None:
            ignored = self._find_ignored(grid, get_box_tensor(gt_instances_ignore.bboxes)[:, :4])
        best, best_box, claim = self._match(grid, boxes, ignored)

        gt_inds = torch.full_like(best_box, -1)
        if isinstance(self.neg_iou_thr, float):
            gt_inds[(best >= 0) & (best < self.neg_iou_thr)] = 0
        elif isinstance(self.neg_iou_thr, tuple):
            low, high = self.neg_iou_thr
            gt_inds[(best >= low) & (best < high)] = 0
        gt_inds = torch.where(best >= self.pos_iou_thr, best_box + 1, gt_inds)
        gt_inds = torch.where(claim > 0, claim, gt_inds)

        labels = torch.full_like(gt_inds, -1)
        positive = torch.nonzero(gt_inds > 0).squeeze(1)
        labels[positive] = gt_instances.labels[gt_inds[positive] - 1]
        return AssignResult(num_gts=num_boxes, gt_inds=gt_inds, max_overlaps=best, labels=labels)

    def _find_ignored(self, grid: PriorGrid, regions: Tensor) -> Tensor:
        """Mark the priors that lie in a region to ignore.

        Returns:
            bool, (N,), in the order of the grid.
        """
        share = grid.area.new_zeros(grid.num)
        for region, prior, shared in grid.pairs(regions):
            whole = grid.area[prior] if self.ignore_wrt_candidates else _area(regions)[region]
            share.scatter_reduce_(0, prior, shared / whole.clamp(min=EPS), 'amax')
        return share > self.ignore_iof_thr

    def _match(
        self, grid: PriorGrid, boxes: Tensor, ignored: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Find the best box of each prior, and the priors that each box claims as its best.

        Returns:
            best: float, (N,); IoU with the best box, -1 for an ignored prior.
            best_box: int64, (N,); the box, the first of several, 0 where there is none.
            claim: int64, (N,); 1 + the last box that claims the prior, 0 for none.
        """
        area = _area(boxes)
        best = boxes.new_zeros(grid.num, dtype=torch.result_type(boxes, grid.area))
        best_box, claim = (best.new_zeros(grid.num, dtype=torch.long) for _ in range(2))
        # Without overlap a box's best IoU is 0, or -1 if every prior is ignored.
        rest = -1 if ignored is not None and ignored.all() else 0
        highest = best.new_full((len(boxes),), rest)

        for box, prior, shared in grid.pairs(boxes):
            union = _take(area, box) + _take(grid.area, prior) - shared
            iou = shared / union.clamp(min=EPS)
            if ignored is not None:
                iou.masked_fill_(_take(ignored, prior), -1)

            before = _take(best, prior)
            best.scatter_reduce_(0, prior, iou, 'amax')
            won = torch.nonzero((iou == _take(best, prior)) & (iou > before)).squeeze(1)
            best_box.scatter_reduce_(0, prior[won], box[won], 'amin', include_self=False)

            if self.match_low_quality:
                highest.scatter_reduce_(0, box, iou, 'amax')  # final: a box is in one chunk only
                claims = (highest > 0) & (highest >= self.min_pos_iou)
                goal = highest.masked_fill(~claims, torch.inf)
                hit = torch.nonzero(iou == _take(goal, box)).squeeze(1)
                box, prior = box[hit], prior[hit]
                if not self.gt_max_assign_all:
                    first = torch.full_like(highest, grid.num, dtype=torch.long)
                    first.scatter_reduce_(0, box, grid.order[prior], 'amin')
                    is_first = grid.order[prior] == first[box]
                    box, prior = box[is_first], prior[is_first]
                claim.scatter_reduce_(0, prior, box + 1, 'amax')

        if self.match_low_quality:
            unreached = (highest == rest) & (highest >= self.min_pos_iou)
            self._claim_all(grid, claim, unreached, ignored if rest == 0 else None)
        if ignored is not None:
            best.masked_fill_(ignored, -1)
        return tuple(grid.in_given_order(values) for values in (best, best_box, claim))

    def _claim_all(
        self, grid: PriorGrid, claim: Tensor, boxes: Tensor, ignored: Tensor | None
    ) -> None:
        """Let boxes claim every prior whose overlap is their best one: none at all.

        Args:
            claim: int64, (N,), changed in place; as ``_match`` returns it.
            boxes: bool, (M,); marks boxes that no prior reaches, if they may claim.
            ignored: bool, (N,), or None; not to be claimed.
        """
        last = torch.nonzero(boxes)[-1:].squeeze(1) + 1
        if not len(last):
            return
        claimed = torch.ones_like(claim, dtype=torch.bool) if ignored is None else ~ignored
        if not self.gt_max_assign_all:
            claimed &= grid.order == grid.order[claimed].min()
        claim[claimed] = torch.maximum(claim[claimed], last)


class PriorGrid:
    """Priors sorted by the cell of their upper left corner.

    Priors of one octave of width and height have a grid of their own, so that
    the corners of all that can reach a box lie in a rectangle little larger
    than box and prior together: a few rows of cells, each a slice of the
    sorted priors.

    Args:
        priors: float, (N, 4), xyxy; any coordinates, also degenerate boxes.
        boxes: float, (M, 4), M >= 1; their mean size sets the size of the cells.

    Attributes:
        num: N.
        order: int64, (N,); indices of the priors as sorted.
        area: float, (N,), of the sorted priors.
    """

    def __init__(self, priors: Tensor, boxes: Tensor) -> None:
        edges = priors.t().contiguous()
        corner = edges[:2].double()
        side = (edges[2:].double() - corner).clamp(min=1e-3)
        octave = side.float().log2().floor().long()
        octave -= octave.amin(dim=1, keepdim=True)
        group = octave[0] * (octave[1].max() + 1) + octave[1]
        present = group.bincount() > 0
        group = _take(present.cumsum(0) - 1, group)
        count = group.bincount()  # (G,)

        # Everything below has x before y. The margin is beyond any rounding: no prior that
        # reaches a box is missed.
        reach = [side.new_zeros(len(count)).scatter_reduce_(0, group, s, 'amax') for s in side]
        self._reach = torch.stack(reach) * (1 + 1e-6)  # (2, G), px
        self._low = corner.amin(dim=1)
        extent = (corner.amax(dim=1) - self._low).clamp(min=1e-3)[:, None]
        mean = (boxes[:, 2:] - boxes[:, :2]).double().clamp(min=0).mean(dim=0)[:, None]
        most = count.double().sqrt().ceil()  # keeps the cells about as many as priors
        self._shape = (extent / (self._reach + mean) * STRIPS).ceil().minimum(most)  # (2, G)
        self._pitch = extent / self._shape  # (2, G), px
        ends = self._shape.prod(dim=0).long().cumsum(0)
        self._offset = ends - self._shape.prod(dim=0).long()  # first cell of each grid, (G,)

        column, row = (self._place(axis, corner[axis], group) for axis in (0, 1))
        cell = _take(self._offset, group) + row * _take(self._shape[0].long(), group) + column
        self.num = len(priors)
        self.order = cell.int().argsort()  # half the time of int64
        self._edges = edges.index_select(1, self.order)  # (4, N)
        self.area = _area(self._edges.t())
        self._starts = cell.new_zeros(int(ends[-1]) + 1)  # first prior of each cell
        self._starts[1:] = cell.bincount(minlength=len(self._starts) - 1).cumsum(0)

    def pairs(self, boxes: Tensor) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yield all pairs that overlap, and some that do not, some 260,000 together.

        All pairs of a box come together, and boxes come in their order.

        Args:
            boxes: float, (M, 4), xyxy, px.

        Yields:
            box: int64, (P,), ascending; index of the box.
            prior: int64, (P,); index of the prior, as sorted.
            shared: float, (P,), px^2; area of the intersection, >= 0.
        """
        num_groups = self._reach.shape[1]
        groups = torch.arange(num_groups, device=boxes.device)
        x1, y1, x2, y2 = edges = boxes.t().contiguous()
        bound = edges.double()[:, :, None]  # (4, M, 1)
        left, top = (self._place(i, bound[i] - self._reach[i], groups).flatten() for i in (0, 1))
        right, bottom = (self._place(i, bound[i + 2], groups).flatten() for i in (0, 1))

        # A span is one row of cells in the rectangle that a box has in a group's grid.
        rows = (bottom - top + 1).clamp(min=0)
        span = torch.repeat_interleave(rows)
        rank = torch.arange(len(span), device=boxes.device) - _take(rows.cumsum(0) - rows, span)
        owner, group = span // num_groups, span % num_groups
        row = _take(self._offset, group)
        row += (_take(top, span) + rank) * _take(self._shape[0].long(), group)
        start = _take(self._starts, row + _take(left, span))
        length = (_take(self._starts, row + _take(right, span) + 1) - start).clamp(min=0)

        prior_x1, prior_y1, prior_x2, prior_y2 = self._edges
        for first, last in _chunks(owner, length, len(boxes)):
            lengths = length[first:last]
            shift = start[first:last] - (lengths.cumsum(0) - lengths)
            prior = torch.repeat_interleave(shift, lengths)
            prior += torch.arange(len(prior), device=boxes.device)
            box = torch.repeat_interleave(owner[first:last], lengths)
            # The very operations of mmdet's ``bbox_overlaps``, so that not one bit differs.
            width = _shared(x1, x2, box, prior_x1, prior_x2, prior)
            height = _shared(y1, y2, box, prior_y1, prior_y2, prior)
            yield box, prior, width * height

    def in_given_order(self, values: Tensor) -> Tensor:
        """Bring values of the sorted priors, (N,), into the order of the priors given."""
        given = torch.empty_like(values)
        given[self.order] = values
        return given

    def _place(self, axis: int, point: Tensor, group: Tensor) -> Tensor:
        """Find the column (axis 0) or row (1) of points in the grids of their groups: int64."""
        place = (point - self._low[axis]) / _take(self._pitch[axis], group)
        return place.clamp(min=0).minimum(_take(self._shape[axis] - 1, group)).long()


def _take(values: Tensor, index: Tensor) -> Tensor:
    """``values[index]``, (N,) and (P,), three times as fast on a CPU."""
    return values.index_select(0, index)


def _shared(
    low: Tensor, high: Tensor, box: Tensor, prior_low: Tensor, prior_high: Tensor, prior: Tensor
) -> Tensor:
    """Length that pairs share along one axis: float, (P,), px."""
    high, low = (
        torch.minimum(_take(high, box), _take(prior_high, prior)),
        torch.maximum(_take(low, box), _take(prior_low, prior)),
    )
    return (high - low).clamp(min=0)


def _area(boxes: Tensor) -> Tensor:
    """Areas of boxes, (N, 4), as ``bbox_overlaps`` has them: px^2, (N,)."""
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])


def _chunks(owner: Tensor, length: Tensor, num_boxes: int) -> Iterator[tuple[int, int]]:
    """Split spans into slices of ``CHUNK`` pairs, or more where one box has more.

    Args:
        owner: int64, (S,), ascending; the box of each span.
        length: int64, (S,); pairs of each span.
        num_boxes: number of boxes.
    """
    spans = owner.bincount(minlength=num_boxes).cumsum(0)
    pairs = torch.nn.functional.pad(length.cumsum(0), (1, 0))[spans]
    spans, pairs = [0, *spans.tolist()], [0, *pairs.tolist()]
    first = 0
    while first < num_boxes:
        last = max(bisect_right(pairs, pairs[first] + CHUNK) - 1, first + 1)
        if pairs[last] > pairs[first]:
            yield spans[first], spans[last]
        first = last
