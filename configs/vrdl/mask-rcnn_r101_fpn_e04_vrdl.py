"""Experiment 4 of the original table: 500,000 iterations.

python tools/train.py configs/vrdl/mask-rcnn_r101_fpn_e04-roi128-s1200-a32to512-500k_nuclei.py
Published mAP 0.221926.
"""

_base_ = [
    '../_base_/mask-rcnn_r101_fpn.py',
    '../_base_/nuclei_s1200.py',
    '../_base_/schedule.py',
    '../_base_/runtime.py',
]

train_cfg = dict(max_iters=500_000)
