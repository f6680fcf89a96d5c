"""As its base without a change of scale: crops of 144 px only."""

_base_ = './mask-rcnn_r18-c4_fpn_crop112to176-s320-reinhard-a16to384-ema-2k_nuclei.py'

pipeline = _base_.train_dataloader.dataset.pipeline
crop = dict(_base_.crop, crop_size=(144, 144))
train_dataloader = dict(dataset=dict(pipeline=[*pipeline[:2], crop, *pipeline[3:]]))
