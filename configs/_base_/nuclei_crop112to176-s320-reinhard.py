"""Nuclei data in crops of 112 to 176 px, half of them in the colours of a made-up slide."""

_base_ = './nuclei_crop112to176-s320.py'

pipeline = _base_.train_dataloader.dataset.pipeline
# Before the crop is enlarged, when it has a fifth of the pixels.
colours = dict(type='RandomApply', transforms=[dict(type='ReinhardJitter')], prob=0.5)
train_dataloader = dict(dataset=dict(pipeline=[*pipeline[:3], colours, *pipeline[3:]]))
