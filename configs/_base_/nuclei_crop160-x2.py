"""Nuclei data in crops of 160 px, enlarged about twice; whole images, enlarged twice, to test.

Enlarged, because masks read off a map with a stride of 4 px are too coarse for nuclei of 25 px.
"""

_base_ = './nuclei_s800.py'

crop = dict(type='RandomCrop', crop_size=(160, 160), allow_negative_crop=False, recompute_bbox=True)
enlarge = dict(type='RandomResize', scale=(320, 320), ratio_range=(0.8, 1.25), keep_ratio=True)
# A nucleus that the crop cuts to a sliver, or to nothing, is none.
whole = dict(type='FilterAnnotations', min_gt_bbox_wh=(4, 4))  # px
train_dataloader = dict(
    batch_size=4,
    dataset=dict(
        pipeline=[
            dict(type='LoadImageOnce'),
            _base_.load[1],
            crop,
            enlarge,
            whole,
            dict(type='RandomQuarterTurn'),
            dict(type='RandomFlip', prob=0.5),
            dict(type='StainJitter', sigma=0.25),
            dict(type='PackDetInputs'),
        ]
    ),
)
enlarge_twice = dict(type='Resize', scale_factor=2.0)
test_dataloader = dict(dataset=dict(pipeline=[_base_.load[0], enlarge_twice, _base_.pack]))

tta_model = dict(type='MaskTTAModel')
tta_pipeline = [
    _base_.load[0],
    dict(
        type='TestTimeAug',
        transforms=[
            [enlarge_twice],
            [
                dict(type='Orient', flip=False, turns=0),
                dict(type='Orient', flip=False, turns=1),
                dict(type='Orient', flip=False, turns=2),
                dict(type='Orient', flip=False, turns=3),
                dict(type='Orient', flip=True, turns=0),
                dict(type='Orient', flip=True, turns=1),
                dict(type='Orient', flip=True, turns=2),
                dict(type='Orient', flip=True, turns=3),
            ],
            [dict(type='PackDetInputs', meta_keys=(*_base_.pack['meta_keys'], 'orientation'))],
        ],
    ),
]
