"""Experiment 12 of the original table: 128 RoIs, 1000 px, anchors 32 to 512 px, 50,000 iterations.

Changed: the backbone, X-101-32x8d, and the size of images.

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
