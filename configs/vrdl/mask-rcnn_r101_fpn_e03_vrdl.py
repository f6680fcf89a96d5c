"""Experiment 3 of the original table: 128 RoIs, 1200 px, anchors 32 to 512 px, 300,000 iterations.

Changed: the size of images, from 800 px.

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
