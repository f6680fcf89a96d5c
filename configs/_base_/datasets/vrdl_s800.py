"""The class data, short side 800 px: 24 images to train on, 6 to predict.

Nothing is held out, as in the original project; ``--fold N`` of the tools trains on
three quarters of the 24 and validates on the fourth.
"""

dataset_type = 'NucleiDataset'
data_root = 'data/vrdl/'

load = dict(type='LoadImageFromFile')
# Polygons and not bitmaps (poly2mask): 1,862 bitmaps of an image take 1.9 GB.
load_truth = dict(type='LoadAnnotations', with_bbox=True, with_mask=True, poly2mask=False)
resize = dict(type='Resize', scale=(1500, 800), keep_ratio=True)  # long, short side, px
flip = dict(type='RandomFlip', prob=0.5)
pack = dict(type='PackDetInputs')
pack_test = dict(
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
        pipeline=[load, load_truth, resize, flip, pack],
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
        pipeline=[load, resize, pack_test],
    ),
)

val_evaluator = None
test_evaluator = dict(type='NucleiMetric', ann_file=data_root + 'annotations/test.json')
