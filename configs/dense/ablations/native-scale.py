"""``half-length.py`` with nothing enlarged: crops of 320 px, smaller anchors, 1x to test.

python tools/train.py configs/dense/ablations/native-scale.py --amp --fold 1
"""

_base_ = [
    '../../_base_/models/mask-rcnn_r18-c4_fpn.py',
    '../../_base_/datasets/vrdl_crop-stain.py',
    '../../_base_/recipes/dense.py',
]

model = dict(
    rpn_head=dict(anchor_generator=dict(scales=[2, 3])),  # x stride: 8 to 192 px
    test_cfg=dict(rpn=_base_.test_rpn, rcnn=_base_.test_rcnn),
)

crop = dict(_base_.crop, crop_size=(320, 320))
whole = dict(_base_.whole, min_gt_bbox_wh=(2, 2))  # px; as large in the tissue as 4 px enlarged
train_dataloader = dict(
    dataset=dict(
        pipeline=[
            *(_base_.load_once, _base_.load_truth, crop, _base_.slide_colors),
            *(whole, _base_.turn, _base_.flip, _base_.stain, _base_.pack),
        ]
    )
)
as_is = dict(type='Resize', scale_factor=1.0)
test_dataloader = dict(
    dataset=dict(pipeline=[_base_.load, _base_.normalize, as_is, _base_.pack_test])
)
tta_pipeline = [
    _base_.load,
    _base_.normalize,
    dict(type='TestTimeAug', transforms=[[as_is], _base_.orientations, [_base_.pack_tta]]),
]
