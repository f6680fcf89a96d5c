"""Mask R-CNN with X-101-32x8d and FPN: ``mask-rcnn_r101_fpn.py`` with another backbone."""

_base_ = './mask-rcnn_r101_fpn.py'

model = dict(
    data_preprocessor=dict(std=[57.375, 57.12, 58.395]),  # BGR
    backbone=dict(
        type='ResNeXt',
        groups=32,
        base_width=8,
        style='pytorch',  # stride in the 3 x 3 convolution
        init_cfg=dict(checkpoint='open-mmlab://detectron2/resnext101_32x8d'),
    ),
)
