"""The default model's first cycle: from scratch on a CPU, 4,000 iterations, weights averaged.

python tools/train.py \
    configs/dense/mask-rcnn_r18-c4_fpn_crop112to176-s320-reinhard-a16to384-ema-4k_nuclei.py --amp
"""

_base_ = [
    '../_base_/mask-rcnn_r18-c4_fpn.py',
    '../_base_/nuclei_crop112to176-s320-reinhard.py',
    '../_base_/schedule_adamw.py',
    '../_base_/runtime.py',
]

# Doubles lose half their score by their masks; so boxes of nuclei that touch may overlap more.
model = dict(
    test_cfg=dict(
        rcnn=dict(nms=dict(iou_threshold=0.6), mask_nms=dict(iom_thr=0.6, factor=0.5)),
    )
)

default_hooks = dict(checkpoint=dict(interval=250))
custom_hooks = [
    *_base_.custom_hooks,
    # Averages over about the last 500 iterations; the early ones fade faster.
    dict(type='EMAHook', ema_type='ExpMomentumEMA', momentum=0.002, gamma=300),
]
train_cfg = dict(max_iters=4_000, val_interval=2_000)
optim_wrapper = dict(optimizer=dict(weight_decay=0.05, fused=True))
# Flat for the first half, so that a run can be made longer from there.
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=100),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=2_000, end=4_000, eta_min=1e-5),
]
