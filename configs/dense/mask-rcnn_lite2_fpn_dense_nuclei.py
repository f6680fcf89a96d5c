"""EfficientNet-Lite2 on normalized colors: 2,500 iterations after those of ``ablations/lite2.py``.

python tools/train.py configs/dense/mask-rcnn_lite2_fpn_dense_nuclei.py --amp \
    --cfg-options load_from=CHECKPOINT
"""

_base_ = [
    '../_base_/models/mask-rcnn_efficientnet-lite2_fpn.py',
    '../_base_/datasets/vrdl_crop-stain.py',
    '../_base_/recipes/dense.py',
]

model = dict(test_cfg=dict(rpn=_base_.test_rpn, rcnn=_base_.test_rcnn_moved))

load_normalized = dict(_base_.load_once, steps=[_base_.normalize])
train_dataloader = dict(
    dataset=dict(
        pipeline=[
            *(load_normalized, _base_.load_truth, _base_.crops, _base_.move, _base_.slide_colors),
            *(_base_.enlarge, _base_.whole, _base_.turn, _base_.flip, _base_.stain, _base_.pack),
        ]
    )
)

load_from = _base_.needs_checkpoint
randomness = dict(seed=1)  # with the seed of the first run it would see the same crops again
custom_hooks = _base_.pretrained_hooks
optim_wrapper = _base_.second_optimizer
train_cfg = dict(max_iters=2_500, val_interval=2_500)
param_scheduler = [dict(_base_.warm_up, end=50), dict(_base_.decay, begin=50, end=2_500)]

fold_colors = True  # with --fold, no held-out image has a part in the training
