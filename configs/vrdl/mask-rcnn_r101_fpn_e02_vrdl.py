"""Experiment 2 of the original table: 512 RoIs, 800 px, anchors 32 to 512 px, 300,000 iterations.

Changed: RoIs per image, from 128.

python tools/train.py configs/vrdl/mask-rcnn_r101_fpn_e02_vrdl.py
Published mAP 0.219256.
"""

_base_ = [
    '../_base_/models/mask-rcnn_r101_fpn.py',
    '../_base_/datasets/vrdl_s800.py',
    '../_base_/schedules/sgd.py',
    '../_base_/default_runtime.py',
]

model = dict(
    train_cfg=dict(rcnn=dict(sampler=dict(num=512))),  # RoIs per image
)
train_cfg = dict(max_iters=300_000)
