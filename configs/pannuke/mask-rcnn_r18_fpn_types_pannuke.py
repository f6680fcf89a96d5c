"""The small model, from scratch, on PanNuke with its five types of nuclei, enlarged twice.

python tools/prepare_data.py pannuke RAW data/pannuke --classes
python tools/train.py configs/pannuke/mask-rcnn_r18_fpn_types_pannuke.py

What several classes need: their names in the order of the data's categories, as many in the heads,
and one type for each nucleus. ``nucseg train finetune --data data/pannuke`` does that by itself and
starts from the default model; docs/classes.md has the way from there.
"""

_base_ = [
    '../_base_/models/mask-rcnn_r18_fpn.py',
    '../_base_/datasets/vrdl_s800.py',
    '../_base_/schedules/adamw.py',
    '../_base_/default_runtime.py',
]

data_root = 'data/pannuke/'
metainfo = dict(
    classes=('connective', 'dead', 'epithelial', 'inflammatory', 'neoplastic'),
    palette=[(0, 210, 255), (245, 245, 245), (255, 130, 0), (0, 205, 80), (255, 225, 0)],  # RGB
)
num_classes = 5

model = dict(
    roi_head=dict(
        bbox_head=dict(type='OneTypeBBoxHead', num_classes=num_classes, reg_class_agnostic=True),
        mask_head=dict(num_classes=num_classes, class_agnostic=True),
    ),
    test_cfg=dict(rcnn=dict(nms=dict(class_agnostic=True))),
)

enlarge = dict(type='Resize', scale_factor=2.0)
flip = dict(
    type='RandomFlip',
    prob=[0.25, 0.25, 0.25],
    direction=['horizontal', 'vertical', 'diagonal'],
)
train_dataloader = dict(
    batch_size=4,
    dataset=dict(
        data_root=data_root,
        ann_file='annotations/fold1_train.json',
        metainfo=metainfo,
        pipeline=[_base_.load, _base_.load_truth, enlarge, flip, _base_.pack],
    ),
)
held_out = 'annotations/fold1_val.json'
test_dataloader = dict(
    _delete_=True,
    batch_size=1,
    num_workers=2,
    persistent_workers=True,
    drop_last=False,
    sampler=dict(type='DefaultSampler', shuffle=False),
    dataset=dict(
        type='NucleiDataset',
        data_root=data_root,
        ann_file=held_out,
        data_prefix=dict(img='train/'),
        metainfo=metainfo,
        test_mode=True,
        pipeline=[_base_.load, enlarge, _base_.pack_test],
    ),
)
val_dataloader = test_dataloader
test_evaluator = dict(
    _delete_=True,
    type='NucleiMetric',
    ann_file=data_root + held_out,
)
val_evaluator = test_evaluator

train_cfg = dict(max_iters=5_000, val_interval=5_000)
val_cfg = dict(_delete_=True, type='ValLoop')
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=50, end=5_000, eta_min=1e-5),
]
