"""``lite2-sharpness_stage2.py`` on the class data and the 106 CC0 images of ``dsb2018`` together.

python tools/train.py configs/dense/ablations/lite2-with-dsb2018_stage2.py --amp --fold 2 \
    --cfg-options load_from=CHECKPOINT
"""

_base_ = [
    '../../_base_/models/mask-rcnn_efficientnet-lite2_fpn.py',
    '../../_base_/datasets/vrdl-dsb2018_crop-stain.py',
    '../../_base_/recipes/dense.py',
]

model = dict(test_cfg=dict(rpn=_base_.test_rpn, rcnn=_base_.test_rcnn_moved))

load_from = _base_.needs_checkpoint
randomness = dict(seed=1)  # with the seed of the first run it would see the same crops again
custom_hooks = _base_.pretrained_hooks
optim_wrapper = _base_.second_optimizer
train_cfg = dict(max_iters=1_200, val_interval=1_200)
param_scheduler = [dict(_base_.warm_up, end=50), dict(_base_.decay, begin=50, end=1_200)]

fold_colors = True  # with --fold, no held-out image has a part in the training
