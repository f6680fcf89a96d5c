"""``dense-lite2-mended``: EfficientNet-Lite2 on truth that models have mended.

nucseg test dense-r18 --with dense-lite0 --annotations data/vrdl/annotations/train.json \
    --images data/vrdl/train --precision bf16 --work-dir O \
    --cfg-options model.test_cfg.rcnn.truth_offset=-0.4,-0.6
cp -r data/vrdl data/mended
python tools/analysis_tools/mend_truth.py data/vrdl/annotations/train.json O/train_results.json \
    data/mended/annotations/train.json --score-thr 0.8
python tools/train.py configs/dense/mask-rcnn_lite2_fpn_dense_mended.py --amp \
    --data-root data/mended --work-dir work_dirs/seed51 --cfg-options load_from=CHECKPOINT

The last of six stages, trained twice, with seeds 51 and 52; the model is the mean of their
weights. The stages before it are of ``ablations/lite2.py``, ``ablations/lite2-sharpness_stage2.py``
and ``ablations/lite2-cascade_stage3.py``, with masks of the boxes themselves. models/README.md has
all commands, docs/ablations.md what mending, means, cascades and wide masks are worth.
"""

_base_ = [
    '../_base_/models/mask-rcnn_efficientnet-lite2_fpn.py',
    '../_base_/datasets/vrdl_crop-stain.py',
    '../_base_/recipes/dense.py',
]

model = dict(
    # Outlines that the box would cut; 7.5 % of its sides more at each end.
    roi_head=dict(type='WideMaskRoIHead', mask_scale=1.15),
    test_cfg=dict(rpn=_base_.test_rpn, rcnn=_base_.test_rcnn_moved),
)

train_dataloader = dict(dataset=dict(pipeline=_base_.sharpness_crops))

load_from = _base_.needs_checkpoint
randomness = dict(seed=51)  # the stages before had 0, 1, 2, 11, 12, 41 and 42
custom_hooks = _base_.pretrained_hooks
optim_wrapper = _base_.second_optimizer
train_cfg = dict(max_iters=1_200, val_interval=1_200)
param_scheduler = [dict(_base_.warm_up, end=50), dict(_base_.decay, begin=50, end=1_200)]

fold_colors = True  # with --fold, no held-out image has a part in the training
