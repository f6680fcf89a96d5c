"""The default model's first stage: from scratch on a CPU, 4,000 iterations, weights averaged.

python tools/train.py configs/dense/mask-rcnn_r18-c4_fpn_dense_stage1.py --amp
"""

_base_ = [
    '../_base_/models/mask-rcnn_r18-c4_fpn.py',
    '../_base_/datasets/vrdl_crop-stain.py',
    '../_base_/recipes/dense.py',
]

model = dict(test_cfg=dict(rpn=_base_.test_rpn, rcnn=_base_.test_rcnn))

train_cfg = dict(max_iters=4_000, val_interval=2_000)
param_scheduler = [_base_.warm_up, dict(_base_.decay, begin=2_000, end=4_000)]
