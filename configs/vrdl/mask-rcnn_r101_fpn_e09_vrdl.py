"""Experiment 9 of the original table: 128 RoIs, 1200 px, anchors 32 to 512 px, 4,000 iterations.

Changed: the length of training.

python tools/train.py configs/vrdl/mask-rcnn_r101_fpn_e09_vrdl.py
Published mAP 0.232426.
"""

_base_ = [
    '../_base_/models/mask-rcnn_r101_fpn.py',
    '../_base_/datasets/vrdl_s1200.py',
    '../_base_/schedules/sgd.py',
    '../_base_/default_runtime.py',
]

train_cfg = dict(max_iters=4_000)
