"""``lite2-sharpness_stage2.py`` with the second stage of boxes and masks of ``lite2-cascade.py``.

python tools/train.py configs/dense/ablations/lite2-cascade_stage2.py --amp --fold 1 \
    --cfg-options load_from=CHECKPOINT
"""

_base_ = [
    '../../_base_/models/cascade-mask-rcnn_efficientnet-lite2_fpn.py',
    '../../_base_/datasets/vrdl_crop-stain.py',
    '../../_base_/recipes/dense.py',
]

model = dict(test_cfg=dict(rpn=_base_.test_rpn, rcnn=_base_.test_rcnn_moved))

train_dataloader = dict(dataset=dict(pipeline=_base_.sharpness_crops))

load_from = _base_.needs_checkpoint
randomness = dict(seed=1)  # with the seed of the first run it would see the same crops again
custom_hooks = _base_.pretrained_hooks
optim_wrapper = _base_.second_optimizer
param_scheduler = _base_.second_schedule

fold_colors = True  # with --fold, no held-out image has a part in the training
