"""The dense recipe for R-101, from ImageNet weights: for a GPU. Not run yet.

python tools/train.py \
    configs/dense/mask-rcnn_r101_fpn_crop112to176-s320-reinhard-roi512-ema-20k_nuclei.py \
    --amp --initial-weights fetch
"""

_base_ = [
    '../_base_/mask-rcnn_r101_fpn.py',
    '../_base_/nuclei_crop112to176-s320-reinhard.py',
    '../_base_/schedule_adamw.py',
    '../_base_/runtime.py',
]

model = dict(
    rpn_head=dict(anchor_generator=dict(scales=[4, 6])),  # x stride: 16 to 384 px
    train_cfg=dict(rcnn=dict(sampler=dict(num=512, pos_fraction=0.5))),
    test_cfg=dict(
        rpn=dict(nms_pre=8000, max_per_img=8000),
        rcnn=dict(
            max_per_img=3000,
            nms=dict(iou_threshold=0.6),
            mask_nms=dict(iom_thr=0.6, factor=0.5),
        ),
    ),
)

train_dataloader = dict(batch_size=16)
custom_hooks = [
    *_base_.custom_hooks,
    dict(type='EMAHook', ema_type='ExpMomentumEMA', momentum=0.0004, gamma=1_000),
]
train_cfg = dict(max_iters=20_000, val_interval=2_000)
optim_wrapper = dict(optimizer=dict(lr=1e-4, weight_decay=0.05))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=500),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=10_000, end=20_000, eta_min=1e-6),
]
