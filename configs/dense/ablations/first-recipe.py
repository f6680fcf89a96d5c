"""The small model's first recipe: from scratch on a CPU, 5,000 iterations.

python tools/train.py configs/dense/mask-rcnn_r18-c4_fpn_crop160-x2-a16to384-5k_nuclei.py --amp
"""

_base_ = [
    '../_base_/mask-rcnn_r18-c4_fpn.py',
    '../_base_/nuclei_crop160-x2.py',
    '../_base_/schedule_adamw.py',
    '../_base_/runtime.py',
]

default_hooks = dict(checkpoint=dict(interval=250))
train_cfg = dict(max_iters=5_000, val_interval=2_500)
optim_wrapper = dict(optimizer=dict(weight_decay=0.05))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=100),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=100, end=5_000, eta_min=1e-5),
]
