"""A stage of ``dense-lite2-mended``: a cascade whose stages begin with a Mask R-CNN's heads.

The first stage, alone, goes on: a Mask R-CNN as the one that it began with, no slower.

python tools/train.py configs/dense/ablations/lite2-cascade_stage3.py --amp \
    --data-root data/mended --cfg-options load_from=CHECKPOINT
"""

_base_ = [
    '../../_base_/models/cascade-mask-rcnn_efficientnet-lite2_fpn.py',
    '../../_base_/datasets/vrdl_crop-stain.py',
    '../../_base_/recipes/dense.py',
]

model = dict(test_cfg=dict(rpn=_base_.test_rpn, rcnn=_base_.test_rcnn_moved))

train_dataloader = dict(dataset=dict(pipeline=_base_.sharpness_crops))

load_from = _base_.needs_checkpoint
randomness = dict(seed=41)  # the stages before had 0, 1, 2, 11 and 12
custom_hooks = [*_base_.pretrained_hooks, dict(type='FillStagesHook')]
optim_wrapper = _base_.second_optimizer
train_cfg = dict(max_iters=1_200, val_interval=1_200)
param_scheduler = [dict(_base_.warm_up, end=50), dict(_base_.decay, begin=50, end=1_200)]

fold_colors = True  # with --fold, no held-out image has a part in the training
