"""Experiment 10 of the original table: 128 RoIs, 1200 px, anchors 8 to 128 px, 5,000 iterations.

Changed: the anchors, from 32 to 512 px.

python tools/train.py configs/vrdl/mask-rcnn_r101_fpn_e10_vrdl.py
Published mAP 0.233071.
"""

_base_ = [
    '../_base_/models/mask-rcnn_r101_fpn.py',
    '../_base_/datasets/vrdl_s1200.py',
    '../_base_/schedules/sgd.py',
    '../_base_/default_runtime.py',
]

model = dict(
    rpn_head=dict(anchor_generator=dict(scales=[2])),  # x stride: 8 to 128 px
)
train_cfg = dict(max_iters=5_000)
