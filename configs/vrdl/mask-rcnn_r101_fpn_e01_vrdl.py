"""Experiment 1 of the original table: 128 RoIs, 800 px, anchors 32 to 512 px, 300,000 iterations.

The first run.

python tools/train.py configs/vrdl/mask-rcnn_r101_fpn_e01_vrdl.py
Published mAP 0.223274.
"""

_base_ = [
    '../_base_/models/mask-rcnn_r101_fpn.py',
    '../_base_/datasets/vrdl_s800.py',
    '../_base_/schedules/sgd.py',
    '../_base_/default_runtime.py',
]

train_cfg = dict(max_iters=300_000)
