"""The recipe for images with hundreds of nuclei: limits, masks' NMS, averaged weights, 2,000
iterations of AdamW from scratch on a CPU.

What parts of the recipe are worth is measured at this length (``dense/ablations``); the stages of
the default model are longer. A model takes the limits up by
``model = dict(test_cfg=dict(rpn=_base_.test_rpn, rcnn=_base_.test_rcnn))``, since two bases may
not both set ``model``.
"""

_base_ = '../default_runtime.py'

# A field of view has up to 1,862 nuclei; 3,000 proposals are too few for them: AP50 0.686 against
# 0.736 on fold 1.
test_rpn = dict(nms_pre=8000, max_per_img=8000)
test_rcnn = dict(
    max_per_img=3000,
    # Doubles lose half their score by their masks; so boxes of nuclei that touch may overlap more.
    nms=dict(iou_threshold=0.6),
    mask_nms=dict(iom_thr=0.6, factor=0.5),
)
# The masks of the class data lie to the left of and above the nuclei, by means over the images of
# 0.4 and 0.6 px (docs/ablations.md). Trained with turns and flips, a model can't learn that; so its
# nuclei are moved there to be scored.
test_rcnn_moved = dict(test_rcnn, truth_offset=(-0.4, -0.6))  # px

default_hooks = dict(checkpoint=dict(interval=250))
run_hooks = _base_.custom_hooks
# Averages over about the last 500 iterations; the early ones fade faster.
ema = dict(type='EMAHook', ema_type='ExpMomentumEMA', momentum=0.002, gamma=300)
custom_hooks = [*run_hooks, ema]
# The statistics of batch norm averaged as well, so that they are those of the weights: for a
# network, or a backbone, that is trained already. Such a backbone learns at half the rate.
ema_with_statistics = dict(ema, update_buffers=True)
pretrained_hooks = [*run_hooks, dict(type='ChannelsLastHook'), ema_with_statistics]
pretrained_rates = dict(custom_keys=dict(backbone=dict(lr_mult=0.5)))

train_cfg = dict(type='IterBasedTrainLoop', max_iters=2_000, val_interval=2_000)
val_cfg = None
test_cfg = dict(type='TestLoop')

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='AdamW', lr=0.001, weight_decay=0.05, fused=True),
    paramwise_cfg=dict(norm_decay_mult=0.0),
    clip_grad=dict(max_norm=10.0),
)
warm_up = dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=100)
# Flat for the first half, so that a run can be made longer from there.
decay = dict(type='CosineAnnealingLR', by_epoch=False, begin=1_000, end=2_000, eta_min=1e-5)
param_scheduler = [warm_up, decay]

# The ``load_from`` of a stage that goes on from another's checkpoint. Without one given, training
# stops with this text and does not start from scratch.
needs_checkpoint = 'CHECKPOINT (give --cfg-options load_from=FILE)'
# A second stage of a pretrained backbone, at half the rate.
second_optimizer = dict(optimizer=dict(lr=0.0005), paramwise_cfg=pretrained_rates)
second_schedule = [dict(warm_up, end=50), dict(decay, begin=50)]
