"""Experiment 12 of the original table: the X-101-32x8d backbone, 1000 px.

python tools/train.py configs/vrdl/mask-rcnn_x101-32x8d_fpn_e12_vrdl.py
Published mAP 0.228375.
"""

_base_ = [
    '../_base_/models/mask-rcnn_x101-32x8d_fpn.py',
    '../_base_/datasets/vrdl_s1000.py',
    '../_base_/schedules/sgd.py',
    '../_base_/default_runtime.py',
]

train_cfg = dict(max_iters=50_000)
