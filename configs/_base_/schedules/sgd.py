"""Schedule of the original project: SGD, warm-up, a constant rate below 210k iterations."""

train_cfg = dict(type='IterBasedTrainLoop', max_iters=5_000, val_interval=1_000)
val_cfg = None
test_cfg = dict(type='TestLoop')

optim_wrapper = dict(
    type='OptimWrapper',
    optimizer=dict(type='SGD', lr=0.00025, momentum=0.9, weight_decay=0.0001),
    paramwise_cfg=dict(norm_decay_mult=0.0),
)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.001, by_epoch=False, begin=0, end=1_000),
    dict(type='MultiStepLR', by_epoch=False, milestones=[210_000, 250_000], gamma=0.1),
]
