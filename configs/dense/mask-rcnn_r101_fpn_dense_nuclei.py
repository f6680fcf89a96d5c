"""The dense recipe for R-101, from ImageNet weights: for a GPU. Not run yet.

python tools/train.py configs/dense/mask-rcnn_r101_fpn_dense_nuclei.py \
    --amp --initial-weights fetch
"""

_base_ = [
    '../_base_/models/mask-rcnn_r101_fpn.py',
    '../_base_/datasets/vrdl_crop-stain.py',
    '../_base_/recipes/dense.py',
]

model = dict(
    rpn_head=dict(anchor_generator=dict(scales=[4, 6])),  # x stride: 16 to 384 px
    train_cfg=dict(rcnn=dict(sampler=dict(num=512, pos_fraction=0.5))),
    test_cfg=dict(rpn=_base_.test_rpn, rcnn=_base_.test_rcnn),
)

train_dataloader = dict(batch_size=16)
default_hooks = dict(checkpoint=dict(interval=1_000))
custom_hooks = [*_base_.run_hooks, dict(_base_.ema, momentum=0.0004, gamma=1_000)]
train_cfg = dict(max_iters=20_000, val_interval=2_000)
optim_wrapper = dict(optimizer=dict(_delete_=True, type='AdamW', lr=1e-4, weight_decay=0.05))
param_scheduler = [
    dict(_base_.warm_up, end=500),
    dict(_base_.decay, begin=10_000, end=20_000, eta_min=1e-6),
]
