"""A small model on small crops for a few minutes of CPU: what ``make demo`` trains.

python tools/train.py configs/demo/mask-rcnn_r18_fpn_demo_nuclei.py
"""

_base_ = [
    '../_base_/models/mask-rcnn_r18_fpn.py',
    '../_base_/datasets/vrdl_s800.py',
    '../_base_/schedules/adamw.py',
    '../_base_/default_runtime.py',
]

data_root = 'data/demo/'

crop = dict(type='RandomCrop', crop_size=(256, 256), allow_negative_crop=False, recompute_bbox=True)
native = dict(type='Resize', scale_factor=1.0)  # crops are not resized either
# A nucleus that the crop cuts to a sliver, or to nothing, is none.
whole = dict(type='FilterAnnotations', min_gt_bbox_wh=(2, 2))  # px
flip = dict(
    type='RandomFlip',
    prob=[0.25, 0.25, 0.25],
    direction=['horizontal', 'vertical', 'diagonal'],
)
train_dataloader = dict(
    batch_size=4,
    dataset=dict(
        data_root=data_root,
        pipeline=[_base_.load, _base_.load_truth, crop, whole, flip, _base_.pack],
    ),
)
test_dataloader = dict(
    dataset=dict(data_root=data_root, pipeline=[_base_.load, native, _base_.pack_test])
)
test_evaluator = dict(ann_file=data_root + 'annotations/test.json')

train_cfg = dict(max_iters=200)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=20),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=20, end=200, eta_min=1e-5),
]
