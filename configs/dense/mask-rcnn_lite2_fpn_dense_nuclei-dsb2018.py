"""EfficientNet-Lite2 on the class data and CC0 images together: 2,000 iterations after those of
``ablations/lite2.py``, at half its rate.

python tools/train.py configs/dense/mask-rcnn_lite2_fpn_dense_nuclei-dsb2018.py --amp \
    --cfg-options load_from=CHECKPOINT
"""

_base_ = [
    '../_base_/models/mask-rcnn_efficientnet-lite0_fpn.py',
    '../_base_/datasets/vrdl-dsb2018_crop-stain.py',
    '../_base_/recipes/dense.py',
]

model = dict(
    backbone=dict(variant=2, init_cfg=dict(checkpoint='efficientnet-lite2-9656183e.pth')),
    neck=dict(in_channels=[144, 288, 720]),
    test_cfg=dict(
        rpn=_base_.test_rpn,
        rcnn=dict(_base_.test_rcnn, truth_offset=(-0.4, -0.6)),
    ),
)

# Without a checkpoint given, training stops with this text and does not start from scratch.
load_from = 'CHECKPOINT (give --cfg-options load_from=FILE)'
randomness = dict(seed=1)  # with the seed of the first run it would see the same crops again
custom_hooks = _base_.pretrained_hooks
optim_wrapper = dict(
    optimizer=dict(lr=0.0005),
    paramwise_cfg=_base_.pretrained_rates,
)
param_scheduler = [dict(_base_.warm_up, end=50), dict(_base_.decay, begin=50)]

fold_colors = True  # with --fold, no held-out image has a part in the training
