"""The default model's last stage with the truth moved onto the nuclei before turns and flips.

python tools/train.py configs/dense/ablations/move-truth.py --amp --fold 1 \
    --cfg-options load_from=CHECKPOINT
"""

_base_ = [
    '../../_base_/models/mask-rcnn_r18-c4_fpn.py',
    '../../_base_/datasets/vrdl_crop-stain.py',
    '../../_base_/recipes/dense.py',
]

model = dict(test_cfg=dict(rpn=_base_.test_rpn, rcnn=_base_.test_rcnn_moved))

train_dataloader = dict(
    dataset=dict(
        pipeline=[
            *(_base_.load_once, _base_.load_truth, _base_.move, _base_.crops, _base_.slide_colors),
            *(_base_.enlarge, _base_.whole, _base_.turn, _base_.flip, _base_.stain, _base_.pack),
        ]
    )
)

# All below as in the last stage.
load_from = _base_.needs_checkpoint
randomness = dict(seed=2)
custom_hooks = [*_base_.run_hooks, _base_.ema_with_statistics]
optim_wrapper = dict(optimizer=dict(lr=0.0005))
param_scheduler = [dict(_base_.warm_up, end=50), dict(_base_.decay, begin=50)]
