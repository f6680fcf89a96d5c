"""EfficientNet-Lite0 from ImageNet weights, truth on the nuclei from the start, 2,000 iterations.

python tools/train.py configs/dense/mask-rcnn_lite0_fpn_dense_nuclei.py --fold 1 \
    --cfg-options model.backbone.init_cfg.checkpoint=FILE
"""

_base_ = [
    '../_base_/models/mask-rcnn_efficientnet-lite0_fpn.py',
    '../_base_/datasets/vrdl_crop-stain.py',
    '../_base_/recipes/dense.py',
]

model = dict(
    # Up to a stride of 4 px, as Detectron2 freezes a ResNet: a third of the time, too.
    backbone=dict(frozen_stages=3),
    test_cfg=dict(
        rpn=_base_.test_rpn,
        rcnn=dict(_base_.test_rcnn, truth_offset=(-0.4, -0.6)),
    ),
)

b = _base_
move = dict(type='MoveTruth', offset=(0.4, 0.6))  # what truth_offset takes back
train_dataloader = dict(
    dataset=dict(
        pipeline=[
            *(b.load_once, b.load_truth, b.crops, move, b.slide_colors),
            *(b.enlarge, b.whole, b.turn, b.flip, b.stain, b.pack),
        ]
    )
)

# The statistics of batch norm averaged as well, so that they are those of the weights.
custom_hooks = [
    *_base_.run_hooks,
    dict(type='ChannelsLastHook'),
    dict(_base_.ema, update_buffers=True),
]
# The backbone is trained already.
optim_wrapper = dict(paramwise_cfg=dict(custom_keys=dict(backbone=dict(lr_mult=0.5))))
