"""The default model's first stage at half its length: the other ablations are compared with it.

python tools/train.py configs/dense/ablations/half-length.py --amp --fold 1
"""

_base_ = [
    '../../_base_/models/mask-rcnn_r18-c4_fpn.py',
    '../../_base_/datasets/vrdl_crop-stain.py',
    '../../_base_/recipes/dense.py',
]

model = dict(test_cfg=dict(rpn=_base_.test_rpn, rcnn=_base_.test_rcnn))
