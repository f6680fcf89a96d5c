"""As its base, nothing enlarged: crops of 320 px, smaller anchors, 1x to test."""

_base_ = './mask-rcnn_r18-c4_fpn_crop112to176-s320-reinhard-a16to384-ema-2k_nuclei.py'

model = dict(rpn_head=dict(anchor_generator=dict(scales=[2, 3])))  # x stride: 8 to 192 px

pipeline = _base_.train_dataloader.dataset.pipeline
crop = dict(_base_.crop, crop_size=(320, 320))
whole = dict(_base_.whole, min_gt_bbox_wh=(2, 2))  # px; as large in the tissue as 4 px enlarged
train_dataloader = dict(
    dataset=dict(pipeline=[*pipeline[:2], crop, pipeline[3], whole, *pipeline[6:]])
)
as_is = dict(type='Resize', scale_factor=1.0)
test_dataloader = dict(
    dataset=dict(pipeline=[_base_.load[0], _base_.normalize, as_is, _base_.pack])
)
augment_to_test = _base_.tta_pipeline[2]
tta_pipeline = [
    *_base_.tta_pipeline[:2],
    dict(augment_to_test, transforms=[[as_is], *augment_to_test['transforms'][1:]]),
]
