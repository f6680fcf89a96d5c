"""Experiment 3 of the original table: 1200 px instead of 800.

python tools/train.py configs/vrdl/mask-rcnn_r101_fpn_e03-roi128-s1200-a32to512-300k_nuclei.py
Published mAP 0.208042.
"""

_base_ = [
    '../_base_/mask-rcnn_r101_fpn.py',
    '../_base_/nuclei_s1200.py',
    '../_base_/schedule.py',
    '../_base_/runtime.py',
]

train_cfg = dict(max_iters=300_000)
