"""Experiment 13 of the original table: 100,000 iterations.

python tools/train.py configs/vrdl/mask-rcnn_x101-32x8d_fpn_e13-roi128-s1000-a32to512-100k_nuclei.py
Published mAP 0.225095.
"""

_base_ = [
    '../_base_/mask-rcnn_x101-32x8d_fpn.py',
    '../_base_/nuclei_s1000.py',
    '../_base_/schedule.py',
    '../_base_/runtime.py',
]

train_cfg = dict(max_iters=100_000)
