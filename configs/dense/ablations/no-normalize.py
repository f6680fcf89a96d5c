"""To test with: colors as they are.

python tools/test.py configs/dense/ablations/no-normalize.py CHECKPOINT --fold 3
"""

_base_ = [
    '../../_base_/models/mask-rcnn_r18-c4_fpn.py',
    '../../_base_/datasets/vrdl_crop-stain.py',
    '../../_base_/recipes/dense.py',
]

model = dict(test_cfg=dict(rpn=_base_.test_rpn, rcnn=_base_.test_rcnn))

test_dataloader = dict(dataset=dict(pipeline=[_base_.load, _base_.enlarge_test, _base_.pack_test]))
tta_pipeline = [
    _base_.load,
    dict(
        type='TestTimeAug',
        transforms=[[_base_.enlarge_test], _base_.orientations, [_base_.pack_tta]],
    ),
]
