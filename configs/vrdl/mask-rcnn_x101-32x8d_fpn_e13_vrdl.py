"""Experiment 13 of the original table: 128 RoIs, 1000 px, anchors 32 to 512 px, 100,000 iterations.

Changed: the length of training.

python tools/train.py configs/vrdl/mask-rcnn_x101-32x8d_fpn_e13_vrdl.py
Published mAP 0.225095.
"""

_base_ = [
    '../_base_/models/mask-rcnn_x101-32x8d_fpn.py',
    '../_base_/datasets/vrdl_s1000.py',
    '../_base_/schedules/sgd.py',
    '../_base_/default_runtime.py',
]

train_cfg = dict(max_iters=100_000)
