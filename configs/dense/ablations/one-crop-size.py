"""``half-length.py`` without a change of scale: crops of 144 px only.

python tools/train.py configs/dense/ablations/one-crop-size.py --amp --fold 1
"""

_base_ = [
    '../../_base_/models/mask-rcnn_r18-c4_fpn.py',
    '../../_base_/datasets/vrdl_crop-stain.py',
    '../../_base_/recipes/dense.py',
]

model = dict(test_cfg=dict(rpn=_base_.test_rpn, rcnn=_base_.test_rcnn))

crop = dict(_base_.crop, crop_size=(144, 144))
train_dataloader = dict(
    dataset=dict(
        pipeline=[
            *(_base_.load_once, _base_.load_truth, crop, _base_.slide_colors),
            *(_base_.enlarge, _base_.whole, _base_.turn, _base_.flip, _base_.stain, _base_.pack),
        ]
    )
)
