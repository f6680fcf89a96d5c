"""As its base, trained in the colours of made-up slides as well; doubles lose half their score.

python tools/train.py \
    configs/dense/mask-rcnn_r18-c4_fpn_crop112to176-s320-reinhard-a16to384-ema-4k_nuclei.py --amp
"""

_base_ = './mask-rcnn_r18-c4_fpn_crop112to176-s320-a16to384-ema-4k_nuclei.py'

# Doubles lose half their score by their masks; so boxes of nuclei that touch may overlap more.
model = dict(
    test_cfg=dict(
        rcnn=dict(nms=dict(iou_threshold=0.6), mask_nms=dict(iom_thr=0.6, factor=0.5)),
    )
)

pipeline = _base_.train_dataloader.dataset.pipeline
# Before the crop is enlarged, when it has a fifth of the pixels.
colours = dict(type='RandomApply', transforms=[dict(type='ReinhardJitter')], prob=0.5)
train_dataloader = dict(dataset=dict(pipeline=[*pipeline[:3], colours, *pipeline[3:]]))
