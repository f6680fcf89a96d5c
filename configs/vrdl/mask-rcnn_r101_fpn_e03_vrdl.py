"""Experiment 3 of the original table: 1200 px instead of 800.

python tools/train.py configs/vrdl/mask-rcnn_r101_fpn_e03_vrdl.py
Published mAP 0.208042.
"""

_base_ = [
    '../_base_/models/mask-rcnn_r101_fpn.py',
    '../_base_/datasets/vrdl_s1200.py',
    '../_base_/schedules/sgd.py',
    '../_base_/default_runtime.py',
]

train_cfg = dict(max_iters=300_000)
