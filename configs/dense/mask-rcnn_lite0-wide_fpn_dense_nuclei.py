"""EfficientNet-Lite0 with wider heads: 2,000 iterations, from ``lite0-wide.py`` at half its rate.

python tools/train.py configs/dense/mask-rcnn_lite0-wide_fpn_dense_nuclei.py --amp \
    --cfg-options load_from=CHECKPOINT
"""

_base_ = [
    '../_base_/models/mask-rcnn_efficientnet-lite0_fpn.py',
    '../_base_/datasets/vrdl_crop-stain.py',
    '../_base_/recipes/dense.py',
]

channels = 96  # of the FPN and the heads

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

load_from = _base_.needs_checkpoint
randomness = dict(seed=1)  # with the seed of the first run it would see the same crops again
custom_hooks = _base_.pretrained_hooks
optim_wrapper = _base_.second_optimizer
param_scheduler = _base_.second_schedule

fold_colors = True  # with --fold, no held-out image has a part in the training
