"""A cycle of 2,000 iterations more, from a checkpoint of its base and at half its rate.

python tools/train.py \
    configs/dense/mask-rcnn_r18-c4_fpn_crop112to176-s320-reinhard-a16to384-ema-4k-2k_nuclei.py \
    --amp --cfg-options load_from=CHECKPOINT
"""

_base_ = './mask-rcnn_r18-c4_fpn_crop112to176-s320-reinhard-a16to384-ema-4k_nuclei.py'

# Without a checkpoint given, training stops with this text and does not start from scratch.
load_from = 'CHECKPOINT (give --cfg-options load_from=FILE)'
train_cfg = dict(max_iters=2_000, val_interval=2_000)
randomness = dict(seed=1)  # with the seed of its base it would see the same crops again
optim_wrapper = dict(optimizer=dict(lr=0.0005))
custom_hooks = [
    *_base_.custom_hooks[:-1],
    # The statistics of batch norm averaged as well, so that they are those of the weights.
    dict(_base_.custom_hooks[-1], update_buffers=True),
]
param_scheduler = [
    dict(_base_.param_scheduler[0], end=50),
    dict(_base_.param_scheduler[1], begin=50, end=2_000),
]
