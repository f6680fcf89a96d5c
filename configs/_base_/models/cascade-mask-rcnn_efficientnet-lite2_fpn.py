"""The small Cascade Mask R-CNN with EfficientNet-Lite2: a second stage of boxes and masks, from an
IoU of 0.6 on (Cai and Vasconcelos 2018).

All else is as in ``mask-rcnn_efficientnet-lite2_fpn.py``.
"""

_base_ = './mask-rcnn_r101_fpn.py'

channels = 64  # of the FPN and the heads
stock_head = _base_.model.roi_head.bbox_head
first_head = dict(stock_head, in_channels=channels, fc_out_channels=256, reg_class_agnostic=True)
finer_coder = dict(stock_head.bbox_coder, target_stds=[0.05, 0.05, 0.1, 0.1])
stock_rcnn = _base_.model.train_cfg.rcnn
# Half the RoIs on nuclei: a crop has enough of them, and masks learn from these alone.
first_rcnn = dict(stock_rcnn, sampler=dict(stock_rcnn.sampler, pos_fraction=0.5))
stricter = dict(stock_rcnn.assigner, pos_iou_thr=0.6, neg_iou_thr=0.6, min_pos_iou=0.6)

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
        type='CascadeRoIHead',
        num_stages=2,
        stage_loss_weights=[1.0, 0.5],
        bbox_roi_extractor=dict(out_channels=channels),
        bbox_head=[first_head, dict(first_head, bbox_coder=finer_coder)],
        mask_roi_extractor=dict(out_channels=channels),
        mask_head=dict(in_channels=channels, conv_out_channels=channels),
    ),
    train_cfg=dict(
        rpn_proposal=dict(nms_pre=500, max_per_img=500),  # a crop is small
        rcnn=[first_rcnn, dict(first_rcnn, assigner=stricter)],
    ),
)
