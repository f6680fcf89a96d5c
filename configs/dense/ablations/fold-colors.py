"""Half length with color targets of the images trained on, and not of all 24.

python tools/train.py configs/dense/ablations/fold-colors.py --amp --fold 1

Not run yet. Without ``--fold`` it is ``half-length.py``.
"""

_base_ = [
    '../../_base_/models/mask-rcnn_r18-c4_fpn.py',
    '../../_base_/datasets/vrdl_crop-stain.py',
    '../../_base_/recipes/dense.py',
]

model = dict(test_cfg=dict(rpn=_base_.test_rpn, rcnn=_base_.test_rcnn))

fold_colors = True
