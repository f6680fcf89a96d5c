"""EfficientNet-Lite2 on the class data and CC0 images together: 2,000 iterations after those of
``ablations/lite2.py``, at half its rate.

python tools/train.py configs/dense/mask-rcnn_lite2_fpn_dense_nuclei-dsb2018.py --amp \
    --cfg-options load_from=CHECKPOINT
"""

_base_ = [
    '../_base_/models/mask-rcnn_efficientnet-lite2_fpn.py',
    '../_base_/datasets/vrdl-dsb2018_crop-stain.py',
    '../_base_/recipes/dense.py',
]

model = dict(test_cfg=dict(rpn=_base_.test_rpn, rcnn=_base_.test_rcnn_moved))

load_from = _base_.needs_checkpoint
randomness = dict(seed=1)  # with the seed of the first run it would see the same crops again
custom_hooks = _base_.pretrained_hooks
optim_wrapper = _base_.second_optimizer
param_scheduler = _base_.second_schedule

fold_colors = True  # with --fold, no held-out image has a part in the training
