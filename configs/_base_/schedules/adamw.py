"""AdamW and clipped gradients; an experiment brings its own ``param_scheduler``."""

_base_ = './sgd.py'

optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='AdamW', lr=0.001, weight_decay=0.01),
    clip_grad=dict(max_norm=10.0),
)
