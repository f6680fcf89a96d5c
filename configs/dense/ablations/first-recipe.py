"""The small model's first recipe: crops of 160 px, enlarged about twice, 5,000 iterations.

No colors of made-up slides, no normalization, boxes' NMS alone, weights not averaged.

python tools/train.py configs/dense/ablations/first-recipe.py --amp
"""

_base_ = [
    '../../_base_/models/mask-rcnn_r18-c4_fpn.py',
    '../../_base_/datasets/vrdl_crop-stain.py',
    '../../_base_/schedules/adamw.py',
    '../../_base_/default_runtime.py',
]

model = dict(
    test_cfg=dict(rpn=dict(nms_pre=8000, max_per_img=8000), rcnn=dict(max_per_img=3000)),
)

enlarge = dict(type='RandomResize', scale=(320, 320), ratio_range=(0.8, 1.25), keep_ratio=True)
train_dataloader = dict(
    dataset=dict(
        pipeline=[
            *(_base_.load_once, _base_.load_truth, _base_.crop, enlarge, _base_.whole),
            *(_base_.turn, _base_.flip, _base_.stain, _base_.pack),
        ]
    )
)
enlarge_test = dict(type='Resize', scale_factor=2.0)
test_dataloader = dict(dataset=dict(pipeline=[_base_.load, enlarge_test, _base_.pack_test]))
tta_pipeline = [
    _base_.load,
    dict(type='TestTimeAug', transforms=[[enlarge_test], _base_.orientations, [_base_.pack_tta]]),
]
test_evaluator = dict(_delete_=True, type='NucleiMetric', ann_file=_base_.test_evaluator.ann_file)

default_hooks = dict(checkpoint=dict(interval=250))
train_cfg = dict(max_iters=5_000, val_interval=2_500)
optim_wrapper = dict(optimizer=dict(weight_decay=0.05))
param_scheduler = [
    dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=100),
    dict(type='CosineAnnealingLR', by_epoch=False, begin=100, end=5_000, eta_min=1e-5),
]
