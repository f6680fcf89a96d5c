"""The default model's first cycle as it was before: no colours of made-up slides, boxes' NMS alone.

python tools/train.py \
    configs/dense/mask-rcnn_r18-c4_fpn_crop112to176-s320-a16to384-ema-4k_nuclei.py --amp
"""

_base_ = './mask-rcnn_r18-c4_fpn_crop112to176-s320-reinhard-a16to384-ema-4k_nuclei.py'

model = dict(test_cfg=dict(rcnn=dict(nms=dict(iou_threshold=0.5), mask_nms=None)))

pipeline = _base_.train_dataloader.dataset.pipeline
train_dataloader = dict(dataset=dict(pipeline=[*pipeline[:3], *pipeline[4:]]))
