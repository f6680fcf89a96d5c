"""R-18 at half width on crops of 160 px, enlarged twice, 1,500 iterations.

python tools/train.py configs/dense/ablations/half-width.py --fold 1
"""

_base_ = [
    '../../_base_/models/mask-rcnn_r18_fpn.py',
    '../../_base_/datasets/vrdl_s800.py',
    '../../_base_/schedules/adamw.py',
    '../../_base_/default_runtime.py',
]

# A field of view has up to 1,862 nuclei.
model = dict(
    test_cfg=dict(rpn=dict(nms_pre=3000, max_per_img=3000), rcnn=dict(max_per_img=2000)),
)

crop = dict(type='RandomCrop', crop_size=(160, 160), allow_negative_crop=False, recompute_bbox=True)
enlarge = dict(type='Resize', scale_factor=2.0)
# A nucleus that the crop cuts to a sliver, or to nothing, is none.
whole = dict(type='FilterAnnotations', min_gt_bbox_wh=(4, 4))  # px
flip = dict(
    type='RandomFlip',
    prob=[0.25, 0.25, 0.25],
    direction=['horizontal', 'vertical', 'diagonal'],
)
train_dataloader = dict(
    batch_size=4,
    dataset=dict(
        pipeline=[_base_.load, _base_.load_truth, crop, enlarge, whole, flip, _base_.pack]
    ),
)
test_dataloader = dict(dataset=dict(pipeline=[_base_.load, enlarge, _base_.pack_test]))

default_hooks = dict(checkpoint=dict(interval=250))
train_cfg = dict(max_iters=1_500, val_interval=1_500)
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=50),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=50, end=1_500, eta_min=1e-5),
]
