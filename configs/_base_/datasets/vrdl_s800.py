"""Nuclei data, short side 800 px: the 24 class images to train on, the 6 to predict.

Nothing is held out, as in the original project; ``--fold N`` of the tools trains on
three quarters of the 24 and validates on the fourth.
"""

dataset_type = 'NucleiDataset'
data_root = 'data/vrdl/'
image_size = 800

# Polygons and not bitmaps (poly2mask): 1,862 bitmaps of an image take 1.9 GB.
load = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations', with_bbox=True, with_mask=True, poly2mask=False),
]
resize = dict(type='Resize', scale=(1500, image_size), keep_ratio=True)  # long, short side, px
augment = [dict(type='RandomFlip', prob=0.5), dict(type='PackDetInputs')]
pack = dict(
    type='PackDetInputs', meta_keys=('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')
)

train_dataloader = dict(
    batch_size=2,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        ann_file='annotations/train.json',
        data_prefix=dict(img='train/'),
        filter_cfg=dict(filter_empty_gt=True),
        pipeline=[*load, resize, *augment],
    ),
)
val_dataloader = None

test_dataloader = dict(
    batch_size=1,
    num_workers=2,
    persistent_workers=True,
    drop_last=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        ann_file='annotations/test.json',
        data_prefix=dict(img='test/'),
        test_mode=True,
        pipeline=[load[0], resize, pack],
    ),
)

val_evaluator = None
test_evaluator = dict(type='NucleiMetric', ann_file=data_root + 'annotations/test.json')
