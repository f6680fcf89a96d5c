"""``lite0.py`` on images with normalized colors, as in the test, before half of them are changed.

python tools/train.py configs/dense/ablations/lite0-normalized.py --fold 2 --initial-weights FILE
"""

_base_ = [
    '../../_base_/models/mask-rcnn_efficientnet-lite0_fpn.py',
    '../../_base_/datasets/vrdl_crop-stain.py',
    '../../_base_/recipes/dense.py',
]

model = dict(test_cfg=dict(rpn=_base_.test_rpn, rcnn=_base_.test_rcnn_moved))

load_normalized = dict(_base_.load_once, steps=[_base_.normalize])
train_dataloader = dict(
    dataset=dict(
        pipeline=[
            *(load_normalized, _base_.load_truth, _base_.crops, _base_.move, _base_.slide_colors),
            *(_base_.enlarge, _base_.whole, _base_.turn, _base_.flip, _base_.stain, _base_.pack),
        ]
    )
)

custom_hooks = _base_.pretrained_hooks
optim_wrapper = dict(paramwise_cfg=_base_.pretrained_rates)
train_cfg = dict(max_iters=1_000, val_interval=1_000)
param_scheduler = [_base_.warm_up, dict(_base_.decay, begin=500, end=1_000)]

fold_colors = True  # with --fold, no held-out image has a part in the training
