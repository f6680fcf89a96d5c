"""As its base with copies of a crop's own nuclei pasted where it has none."""

_base_ = './mask-rcnn_r18-c4_fpn_crop112to176-s320-reinhard-a16to384-ema-2k_nuclei.py'

pipeline = _base_.train_dataloader.dataset.pipeline
paste = dict(type='PasteNuclei', number=5)
train_dataloader = dict(dataset=dict(pipeline=[*pipeline[:3], paste, *pipeline[3:]]))
