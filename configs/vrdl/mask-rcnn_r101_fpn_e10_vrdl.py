"""Experiment 10 of the original table: anchors of 8 to 128 px.

python tools/train.py configs/vrdl/mask-rcnn_r101_fpn_e10-roi128-s1200-a8to128-5k_nuclei.py
Published mAP 0.233071.
"""

_base_ = [
    '../_base_/mask-rcnn_r101_fpn.py',
    '../_base_/nuclei_s1200.py',
    '../_base_/schedule.py',
    '../_base_/runtime.py',
]

model = dict(
    rpn_head=dict(anchor_generator=dict(scales=[2])),  # x stride: 8 to 128 px
)
train_cfg = dict(max_iters=5_000)
