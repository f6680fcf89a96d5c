"""Nuclei data at 1000 px: ``nuclei_s800.py`` with another resize step."""

_base_ = './nuclei_s800.py'

image_size = 1000
# Whole step, not a partial one: dicts inside a list are replaced, never merged.
resize = dict(type='Resize', scale=(1500, image_size), keep_ratio=True)  # long, short side, px
train_dataloader = dict(dataset=dict(pipeline=[*_base_.load, resize, *_base_.augment]))
test_dataloader = dict(dataset=dict(pipeline=[_base_.load[0], resize, _base_.pack]))
