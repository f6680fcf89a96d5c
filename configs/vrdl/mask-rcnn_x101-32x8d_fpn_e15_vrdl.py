"""Experiment 15 of the original table: 3,000 iterations.

python tools/train.py configs/vrdl/mask-rcnn_x101-32x8d_fpn_e15-roi128-s1000-a32to512-3k_nuclei.py
Published mAP 0.231643.
"""

_base_ = [
    '../_base_/mask-rcnn_x101-32x8d_fpn.py',
    '../_base_/nuclei_s1000.py',
    '../_base_/schedule.py',
    '../_base_/runtime.py',
]

train_cfg = dict(max_iters=3_000)
