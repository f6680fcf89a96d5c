"""``lite2.py`` with each image's truth moved by an offset that the image gives.

python tools/train.py configs/dense/ablations/lite2-measured-truth.py --fold 2 \
    --initial-weights FILE
"""

_base_ = [
    '../../_base_/models/mask-rcnn_efficientnet-lite2_fpn.py',
    '../../_base_/datasets/vrdl_crop-stain.py',
    '../../_base_/recipes/dense.py',
]

model = dict(test_cfg=dict(rpn=_base_.test_rpn, rcnn=_base_.test_rcnn_moved))

measure = dict(type='MeasureTruthOffset')
move_measured = dict(type='MoveTruth')
train_dataloader = dict(
    dataset=dict(
        pipeline=[
            *(_base_.load_once, _base_.load_truth, measure, _base_.crops, move_measured),
            *(_base_.slide_colors, _base_.enlarge, _base_.whole, _base_.turn, _base_.flip),
            *(_base_.stain, _base_.pack),
        ]
    )
)

custom_hooks = _base_.pretrained_hooks
optim_wrapper = dict(paramwise_cfg=_base_.pretrained_rates)
train_cfg = dict(max_iters=1_000, val_interval=1_000)
param_scheduler = [_base_.warm_up, dict(_base_.decay, begin=500, end=1_000)]

fold_colors = True  # with --fold, no held-out image has a part in the training
