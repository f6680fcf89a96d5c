"""To test with: images enlarged 2 times and not 2.25.

python tools/test.py configs/dense/ablations/enlarge-2.py CHECKPOINT --fold 3
"""

_base_ = [
    '../../_base_/models/mask-rcnn_r18-c4_fpn.py',
    '../../_base_/datasets/vrdl_crop-stain.py',
    '../../_base_/recipes/dense.py',
]

model = dict(test_cfg=dict(rpn=_base_.test_rpn, rcnn=_base_.test_rcnn))

enlarge_test = dict(type='Resize', scale_factor=2.0)
test_dataloader = dict(
    dataset=dict(pipeline=[_base_.load, _base_.normalize, enlarge_test, _base_.pack_test])
)
tta_pipeline = [
    _base_.load,
    _base_.normalize,
    dict(type='TestTimeAug', transforms=[[enlarge_test], _base_.orientations, [_base_.pack_tta]]),
]
