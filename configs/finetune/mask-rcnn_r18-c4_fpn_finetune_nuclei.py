"""The default model, trained on, on a few fields of your own.

python tools/train.py configs/finetune/mask-rcnn_r18-c4_fpn_finetune_nuclei.py --data data/mine

``nucseg train finetune --data data/mine`` is the same. Length, rate and held-out fold follow from
the number of fields (nucseg_mmdet/engine/finetune.py), classes from the data's categories;
docs/finetune.md has the commands before and after.
"""

_base_ = [
    '../_base_/models/mask-rcnn_r18-c4_fpn.py',
    '../_base_/datasets/vrdl_crop-stain.py',
    '../_base_/recipes/dense.py',
]

# None follows from the number of fields; --cfg-options finetune.iterations=500 has its own way.
# fold 0 holds nothing out.
finetune = dict(model='dense-r18', iterations=None, lr=None, fold=None)

model = dict(test_cfg=dict(rpn=_base_.test_rpn, rcnn=_base_.test_rcnn))
custom_hooks = [*_base_.run_hooks, _base_.ema_with_statistics]
