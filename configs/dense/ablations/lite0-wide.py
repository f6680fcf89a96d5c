"""``lite0.py`` with an FPN and heads of 96 channels instead of 64.

python tools/train.py configs/dense/ablations/lite0-wide.py --fold 1 --initial-weights FILE
"""

_base_ = [
    '../../_base_/models/mask-rcnn_efficientnet-lite0_fpn.py',
    '../../_base_/datasets/vrdl_crop-stain.py',
    '../../_base_/recipes/dense.py',
]

channels = 96

model = dict(
    neck=dict(out_channels=channels),
    rpn_head=dict(in_channels=channels, feat_channels=channels),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=channels),
        bbox_head=dict(in_channels=channels),
        mask_roi_extractor=dict(out_channels=channels),
        mask_head=dict(in_channels=channels, conv_out_channels=channels),
    ),
    test_cfg=dict(rpn=_base_.test_rpn, rcnn=_base_.test_rcnn_moved),
)

train_dataloader = dict(dataset=dict(pipeline=_base_.moved_crops))

custom_hooks = _base_.pretrained_hooks
optim_wrapper = dict(paramwise_cfg=_base_.pretrained_rates)
train_cfg = dict(max_iters=1_000, val_interval=1_000)
param_scheduler = [_base_.warm_up, dict(_base_.decay, begin=500, end=1_000)]

fold_colors = True  # with --fold, no held-out image has a part in the training
