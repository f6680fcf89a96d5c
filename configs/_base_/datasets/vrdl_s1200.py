"""The class data, short side 1200 px: ``vrdl_s800.py`` with another resize step."""

_base_ = './vrdl_s800.py'

# Whole step, not a partial one: dicts inside a list are replaced, never merged.
resize = dict(type='Resize', scale=(1500, 1200), keep_ratio=True)  # long, short side, px
train_dataloader = dict(
    dataset=dict(pipeline=[_base_.load, _base_.load_truth, resize, _base_.flip, _base_.pack])
)
test_dataloader = dict(dataset=dict(pipeline=[_base_.load, resize, _base_.pack_test]))
