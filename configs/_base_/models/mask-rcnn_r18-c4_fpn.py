"""The small Mask R-CNN for a CPU, from scratch: the first three stages of R-18, FPN and heads at a
quarter.

The fourth stage has three quarters of R-18's weights, for objects larger than any nucleus.
FPN's coarser levels are pooled from the third.
"""

_base_ = './mask-rcnn_r101_fpn.py'

channels = 64  # of the FPN and the heads

model = dict(
    data_preprocessor=dict(std=[57.375, 57.12, 58.395]),  # BGR
    backbone=dict(
        depth=18,
        base_channels=64,
        num_stages=3,
        strides=(1, 2, 2),
        dilations=(1, 1, 1),
        out_indices=(0, 1, 2),
        frozen_stages=-1,
        norm_cfg=dict(requires_grad=True),
        norm_eval=False,
        style='pytorch',
        init_cfg=None,
    ),
    neck=dict(in_channels=[64, 128, 256], out_channels=channels),
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
