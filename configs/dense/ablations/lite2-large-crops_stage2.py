"""``lite2-sharpness_stage2.py`` on crops of twice the area, two instead of four an iteration.

python tools/train.py configs/dense/ablations/lite2-large-crops_stage2.py --amp --fold 2 \
    --cfg-options load_from=CHECKPOINT

The borders of these crops cut 30 in 100 of their nuclei, those of the recipe 40.
"""

_base_ = [
    '../../_base_/models/mask-rcnn_efficientnet-lite2_fpn.py',
    '../../_base_/datasets/vrdl_crop-stain.py',
    '../../_base_/recipes/dense.py',
]

model = dict(
    # As many of all as two crops of half the area have.
    train_cfg=dict(
        rpn=dict(sampler=dict(num=512)),
        rpn_proposal=dict(nms_pre=1000, max_per_img=1000),
        rcnn=dict(sampler=dict(num=256)),
    ),
    test_cfg=dict(rpn=_base_.test_rpn, rcnn=_base_.test_rcnn_moved),
)

crops = dict(
    type='RandomChoice',
    transforms=[
        [dict(_base_.crop, crop_size=(160, 160))],  # px
        [dict(_base_.crop, crop_size=(180, 180))],
        [dict(_base_.crop, crop_size=(200, 200))],
        [dict(_base_.crop, crop_size=(224, 224))],
        [dict(_base_.crop, crop_size=(248, 248))],
    ],
)
enlarge = dict(_base_.enlarge, scale=(448, 448))  # 1.8 to 2.8 times
train_dataloader = dict(
    batch_size=2,
    dataset=dict(
        pipeline=[
            *(_base_.load_once, _base_.load_truth, crops, _base_.move, _base_.slide_colors),
            *(_base_.some_sharpness, enlarge, _base_.whole, _base_.turn, _base_.flip),
            *(_base_.stain, _base_.pack),
        ]
    ),
)

load_from = _base_.needs_checkpoint
randomness = dict(seed=1)  # with the seed of the first run it would see the same crops again
custom_hooks = _base_.pretrained_hooks
optim_wrapper = _base_.second_optimizer
param_scheduler = _base_.second_schedule

fold_colors = True  # with --fold, no held-out image has a part in the training
