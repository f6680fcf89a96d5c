"""The class data in square crops of 112 to 176 px, enlarged to 320 px, half of them in the colors
of a made-up slide; whole images, normalized and enlarged, to test.

Enlarged, because masks read off a map with a stride of 4 px are too coarse for nuclei of 25 px.
The crop varies and not the image made of it: a batch is one shape, without padding, which would
be a quarter of all pixels and would count in the statistics of batch norm.

Nothing is held out; ``--fold N`` of the tools trains on three quarters of the 24 images and
validates on the fourth. Written out rather than derived from ``vrdl_s800.py``, so that all the
default model is trained on stands in one file.
"""

dataset_type = 'NucleiDataset'
data_root = 'data/vrdl/'

# To train.
load_once = dict(type='LoadImageOnce')
# Polygons and not bitmaps (poly2mask): 1,862 bitmaps of an image take 1.9 GB.
load_truth = dict(type='LoadAnnotations', with_bbox=True, with_mask=True, poly2mask=False)
crop = dict(type='RandomCrop', crop_size=(160, 160), allow_negative_crop=False, recompute_bbox=True)
crops = dict(
    type='RandomChoice',
    transforms=[
        [dict(crop, crop_size=(112, 112))],  # px
        [dict(crop, crop_size=(128, 128))],
        [dict(crop, crop_size=(144, 144))],
        [dict(crop, crop_size=(160, 160))],
        [dict(crop, crop_size=(176, 176))],
    ],
)
# Before the crop is enlarged, when it has a fifth of the pixels.
slide_colors = dict(type='RandomApply', transforms=[dict(type='ReinhardJitter')], prob=0.5)
# 0 smooths with a kernel of 3 px, 1 does nothing, 2 sharpens; twice, for a wider range: images
# differ by a factor of 20 in the variance of their Laplacian. Not in the default model's recipe.
sharpness = dict(type='Sharpness', min_mag=0.0, max_mag=2.0)
some_sharpness = dict(type='RandomApply', transforms=[sharpness, sharpness], prob=0.5)
enlarge = dict(type='Resize', scale=(320, 320), keep_ratio=True)  # 1.8 to 2.9 times
# A nucleus that the crop cuts to a sliver, or to nothing, is none.
whole = dict(type='FilterAnnotations', min_gt_bbox_wh=(4, 4))  # px
turn = dict(type='RandomQuarterTurn')
flip = dict(type='RandomFlip', prob=0.5)
stain = dict(type='StainJitter', sigma=0.25)
pack = dict(type='PackDetInputs')

# The truth moved onto the nuclei; a model's ``truth_offset`` of (-0.4, -0.6) takes that back.
move = dict(type='MoveTruth', offset=(0.4, 0.6))  # px
moved_crops = [
    *(load_once, load_truth, crops, move, slide_colors),
    *(enlarge, whole, turn, flip, stain, pack),
]
# The same, and half of the crops are blurred or sharpened.
sharpness_crops = [
    *(load_once, load_truth, crops, move, slide_colors, some_sharpness),
    *(enlarge, whole, turn, flip, stain, pack),
]

# To test. Of a stain unlike those trained on, the model finds half the nuclei; normalized, as
# many as of others.
load = dict(type='LoadImageFromFile')
normalize = dict(type='ReinhardNormalize')
enlarge_test = dict(type='Resize', scale_factor=2.25)  # 2.5 finds more and errs more
meta_keys = ('img_id', 'img_path', 'ori_shape', 'img_shape', 'scale_factor')
pack_test = dict(type='PackDetInputs', meta_keys=meta_keys)

train_dataloader = dict(
    batch_size=4,
    num_workers=2,
    persistent_workers=True,
    sampler=dict(type='InfiniteSampler', shuffle=True),
    dataset=dict(
        type=dataset_type,
        data_root=data_root,
        ann_file='annotations/train.json',
        data_prefix=dict(img='train/'),
        filter_cfg=dict(filter_empty_gt=True),
        pipeline=[
            *(load_once, load_truth, crops, slide_colors),
            *(enlarge, whole, turn, flip, stain, pack),
        ],
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
        pipeline=[load, normalize, enlarge_test, pack_test],
    ),
)

# ``tools/test.py --tta``: the eight orientations of an image.
orientations = [
    dict(type='Orient', flip=False, turns=0),
    dict(type='Orient', flip=False, turns=1),
    dict(type='Orient', flip=False, turns=2),
    dict(type='Orient', flip=False, turns=3),
    dict(type='Orient', flip=True, turns=0),
    dict(type='Orient', flip=True, turns=1),
    dict(type='Orient', flip=True, turns=2),
    dict(type='Orient', flip=True, turns=3),
]
pack_tta = dict(type='PackDetInputs', meta_keys=(*meta_keys, 'orientation'))
tta_model = dict(type='MaskTTAModel')
tta_pipeline = [
    load,
    normalize,
    dict(type='TestTimeAug', transforms=[[enlarge_test], orientations, [pack_tta]]),
]

val_evaluator = None
test_evaluator = dict(
    type='NucleiMetric',
    ann_file=data_root + 'annotations/test.json',
    score_thr=0.7,  # on every fold a higher PQ than with 0.5
)
