"""The default model's first cycle at half its length: what its parts are worth is measured on it.

python tools/train.py \
    configs/dense/mask-rcnn_r18-c4_fpn_crop112to176-s320-reinhard-a16to384-ema-2k_nuclei.py \
    --amp --fold 1
"""

_base_ = './mask-rcnn_r18-c4_fpn_crop112to176-s320-reinhard-a16to384-ema-4k_nuclei.py'

train_cfg = dict(max_iters=2_000, val_interval=2_000)
param_scheduler = [
    _base_.param_scheduler[0],
    dict(_base_.param_scheduler[1], begin=1_000, end=2_000),
]
