"""``dense-lite2-mended``: EfficientNet-Lite2 on truth that models have mended.

nucseg test dense-r18 --with dense-lite0 --annotations data/vrdl/annotations/train.json \
    --images data/vrdl/train --precision bf16 --work-dir O \
    --cfg-options model.test_cfg.rcnn.truth_offset=-0.4,-0.6
cp -r data/vrdl data/mended
python tools/analysis_tools/mend_truth.py data/vrdl/annotations/train.json O/train_results.json \
    data/mended/annotations/train.json --score-thr 0.8
python tools/train.py configs/dense/mask-rcnn_lite2_fpn_dense_mended.py --amp \
    --data-root data/mended --work-dir work_dirs/seed11 --cfg-options load_from=CHECKPOINT

CHECKPOINT: after ``ablations/lite2.py`` on the truth as it is, two stages with this config, seeds 1
and 2, of 1,200 and 1,500 iterations. This stage is trained twice, with seeds 11 and 12, and from
the mean of their weights ``ablations/lite2-cascade_stage3.py``, twice again. models/README.md has
all commands, docs/ablations.md what mending, means and cascades are worth.
"""

_base_ = [
    '../_base_/models/mask-rcnn_efficientnet-lite2_fpn.py',
    '../_base_/datasets/vrdl_crop-stain.py',
    '../_base_/recipes/dense.py',
]

model = dict(test_cfg=dict(rpn=_base_.test_rpn, rcnn=_base_.test_rcnn_moved))

train_dataloader = dict(dataset=dict(pipeline=_base_.sharpness_crops))

load_from = _base_.needs_checkpoint
randomness = dict(seed=11)  # the stages before had 0, 1 and 2
custom_hooks = _base_.pretrained_hooks
optim_wrapper = _base_.second_optimizer
train_cfg = dict(max_iters=1_200, val_interval=1_200)
param_scheduler = [dict(_base_.warm_up, end=50), dict(_base_.decay, begin=50, end=1_200)]

fold_colors = True  # with --fold, no held-out image has a part in the training
