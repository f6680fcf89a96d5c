"""The default model: its last stage, 2,000 iterations more from the second one's checkpoint.

python tools/train.py configs/dense/mask-rcnn_r18-c4_fpn_dense_nuclei.py --amp \
    --cfg-options load_from=CHECKPOINT

models/README.md has the commands of all three stages.
"""

_base_ = [
    '../_base_/models/mask-rcnn_r18-c4_fpn.py',
    '../_base_/datasets/vrdl_crop-stain.py',
    '../_base_/recipes/dense.py',
]

model = dict(test_cfg=dict(rpn=_base_.test_rpn, rcnn=_base_.test_rcnn_moved))

load_from = _base_.needs_checkpoint
randomness = dict(seed=2)  # the stages before had 0 and 1
custom_hooks = [*_base_.run_hooks, _base_.ema_with_statistics]
optim_wrapper = dict(optimizer=dict(lr=0.0005))
param_scheduler = [dict(_base_.warm_up, end=50), dict(_base_.decay, begin=50)]
