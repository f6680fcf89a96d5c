"""The recipe for images with hundreds of nuclei, with a backbone that is trained already."""

_base_ = 'dense.py'

# The statistics of batch norm averaged as well, so that they are those of the weights.
custom_hooks = [
    *_base_.run_hooks,
    dict(type='ChannelsLastHook'),
    dict(_base_.ema, update_buffers=True),
]
optim_wrapper = dict(paramwise_cfg=dict(custom_keys=dict(backbone=dict(lr_mult=0.5))))
