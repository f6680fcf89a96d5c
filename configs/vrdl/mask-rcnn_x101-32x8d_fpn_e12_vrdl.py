"""Experiment 12 of the original table: the X-101-32x8d backbone, 1000 px.

python tools/train.py configs/vrdl/mask-rcnn_x101-32x8d_fpn_e12-roi128-s1000-a32to512-50k_nuclei.py
Published mAP 0.228375.
"""

_base_ = [
    '../_base_/mask-rcnn_x101-32x8d_fpn.py',
    '../_base_/nuclei_s1000.py',
    '../_base_/schedule.py',
    '../_base_/runtime.py',
]

train_cfg = dict(max_iters=50_000)
