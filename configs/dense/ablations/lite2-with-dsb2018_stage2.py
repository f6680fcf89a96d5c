"""``lite2-sharpness_stage2.py`` on the class data and the 106 CC0 images of ``dsb2018`` together.

python tools/train.py configs/dense/ablations/lite2-with-dsb2018_stage2.py --amp --fold 2 \
    --cfg-options load_from=CHECKPOINT

``--fold`` holds class images out; of the others all are trained on. Not for the competition, which
knows the class data alone.
"""

_base_ = [
    '../../_base_/models/mask-rcnn_efficientnet-lite0_fpn.py',
    '../../_base_/datasets/vrdl_crop-stain.py',
    '../../_base_/recipes/dense.py',
]

model = dict(
    backbone=dict(variant=2, init_cfg=dict(checkpoint='efficientnet-lite2-9656183e.pth')),
    neck=dict(in_channels=[144, 288, 720]),
    test_cfg=dict(
        rpn=_base_.test_rpn,
        rcnn=dict(_base_.test_rcnn, truth_offset=(-0.4, -0.6)),
    ),
)

load_once, load_truth, crops, move, slide_colors, *others = _base_.moved_crops
sharpness = dict(type='Sharpness', min_mag=0.0, max_mag=2.0)
some_sharpness = dict(type='RandomApply', transforms=[sharpness, sharpness], prob=0.5)
varied = [slide_colors, some_sharpness, *others]
class_images = dict(
    type=_base_.dataset_type,
    data_root=_base_.data_root,
    ann_file='annotations/train.json',
    data_prefix=dict(img='train/'),
    filter_cfg=dict(filter_empty_gt=True),
    pipeline=[load_once, load_truth, crops, move, *varied],
)
cc0_images = dict(
    class_images,
    data_root='data/dsb/',
    pipeline=[load_once, load_truth, crops, *varied],  # this truth lies on its nuclei
)
# A class image has twelve times the area of one of the others. So two of three crops are of the
# class data, and of each set about as many as it has area.
train_dataloader = dict(
    dataset=dict(
        _delete_=True,
        type='ConcatDataset',
        datasets=[dict(type='RepeatDataset', times=12, dataset=class_images), cc0_images],
    )
)

# Without a checkpoint given, training stops with this text and does not start from scratch.
load_from = 'CHECKPOINT (give --cfg-options load_from=FILE)'
randomness = dict(seed=1)  # with the seed of the first run it would see the same crops again
custom_hooks = _base_.pretrained_hooks
optim_wrapper = dict(
    optimizer=dict(lr=0.0005),
    paramwise_cfg=_base_.pretrained_rates,
)
param_scheduler = [dict(_base_.warm_up, end=50), dict(_base_.decay, begin=50)]

fold_colors = True  # with --fold, no held-out image has a part in the training
