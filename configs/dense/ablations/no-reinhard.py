"""The default model's first stage without colors of made-up slides, and with boxes' NMS alone.

python tools/train.py configs/dense/ablations/no-reinhard.py --amp --fold 1
"""

_base_ = [
    '../../_base_/models/mask-rcnn_r18-c4_fpn.py',
    '../../_base_/datasets/vrdl_crop-stain.py',
    '../../_base_/recipes/dense.py',
]

model = dict(
    test_cfg=dict(
        rpn=_base_.test_rpn,
        rcnn=dict(_base_.test_rcnn, nms=dict(iou_threshold=0.5), mask_nms=None),
    )
)

train_dataloader = dict(
    dataset=dict(
        pipeline=[
            *(_base_.load_once, _base_.load_truth, _base_.crops),
            *(_base_.enlarge, _base_.whole, _base_.turn, _base_.flip, _base_.stain, _base_.pack),
        ]
    )
)

# As in the first stage.
train_cfg = dict(max_iters=4_000, val_interval=2_000)
param_scheduler = [_base_.warm_up, dict(_base_.decay, begin=2_000, end=4_000)]
