"""A small Mask R-CNN for a CPU, from scratch on random crops: what ``make demo`` trains.

python tools/train.py configs/demo/mask-rcnn_r18_fpn_demo_nuclei.py
"""

_base_ = [
    '../_base_/mask-rcnn_r101_fpn.py',
    '../_base_/nuclei_s1000.py',
    '../_base_/schedule.py',
    '../_base_/runtime.py',
]

data_root = 'data/demo/'
channels = 64  # of the FPN and the heads

model = dict(
    data_preprocessor=dict(std=[57.375, 57.12, 58.395]),  # BGR
    backbone=dict(
        depth=18,
        base_channels=32,
        frozen_stages=-1,
        norm_cfg=dict(requires_grad=True),
        norm_eval=False,
        style='pytorch',
        init_cfg=None,
    ),
    neck=dict(in_channels=[32, 64, 128, 256], out_channels=channels),
    rpn_head=dict(
        in_channels=channels,
        feat_channels=channels,
        anchor_generator=dict(scales=[4]),  # x stride: 16 to 256 px
    ),
    roi_head=dict(
        bbox_roi_extractor=dict(out_channels=channels),
        bbox_head=dict(in_channels=channels, fc_out_channels=256),
        mask_roi_extractor=dict(out_channels=channels),
        mask_head=dict(in_channels=channels, conv_out_channels=channels),
    ),
    train_cfg=dict(rpn_proposal=dict(nms_pre=1000, max_per_img=500)),  # a crop is small
)

crop = dict(type='RandomCrop', crop_size=(256, 256), allow_negative_crop=False)
train_dataloader = dict(
    batch_size=4,
    dataset=dict(
        data_root=data_root,
        pipeline=[
            *_base_.load,
            crop,
            dict(
                type='RandomFlip',
                prob=[0.25, 0.25, 0.25],
                direction=['horizontal', 'vertical', 'diagonal'],
            ),
            dict(type='PackDetInputs'),
        ],
    ),
)
test_dataloader = dict(
    dataset=dict(data_root=data_root, pipeline=[_base_.load[0], _base_.resize, _base_.pack])
)
test_evaluator = dict(ann_file=data_root + 'annotations/test.json')

optim_wrapper = dict(
    optimizer=dict(_delete_=True, type='AdamW', lr=0.001, weight_decay=0.01),
    clip_grad=dict(max_norm=10.0),
)
train_cfg = dict(max_iters=200)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=20),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=20, end=200, eta_min=1e-5),
]
