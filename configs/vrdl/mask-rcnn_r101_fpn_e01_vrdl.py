"""Experiment 1 of the original table: the first run.

python tools/train.py configs/vrdl/mask-rcnn_r101_fpn_e01-roi128-s800-a32to512-300k_nuclei.py
Published mAP 0.223274.
"""

_base_ = [
    '../_base_/mask-rcnn_r101_fpn.py',
    '../_base_/nuclei_s800.py',
    '../_base_/schedule.py',
    '../_base_/runtime.py',
]

train_cfg = dict(max_iters=300_000)
