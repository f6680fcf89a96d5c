"""The small Mask R-CNN: the first three stages of R-18, FPN and heads at a quarter.

The fourth stage has three quarters of R-18's weights, for objects larger than any nucleus.
FPN's coarser levels are pooled from the third.
"""

_base_ = './mask-rcnn_r18_fpn.py'

model = dict(
    backbone=dict(
        base_channels=64,
        num_stages=3,
        strides=(1, 2, 2),
        dilations=(1, 1, 1),
        out_indices=(0, 1, 2),
    ),
    neck=dict(in_channels=[64, 128, 256]),
    rpn_head=dict(anchor_generator=dict(scales=[4, 6])),  # x stride: 16 to 384 px
    train_cfg=dict(
        rpn_proposal=dict(nms_pre=500),
        # Half the RoIs on nuclei: a crop has enough of them, and masks learn from these alone.
        rcnn=dict(sampler=dict(pos_fraction=0.5)),
    ),
    # A field of view has up to 1,862 nuclei; 3,000 proposals are too few for
    # them: AP50 0.686 against 0.736 on fold 1.
    test_cfg=dict(rpn=dict(nms_pre=8000, max_per_img=8000), rcnn=dict(max_per_img=3000)),
)
