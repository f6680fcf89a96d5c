"""``half-length.py`` with copies of a crop's own nuclei pasted where it has none.

python tools/train.py configs/dense/ablations/copy-paste.py --amp --fold 1
"""

_base_ = [
    '../../_base_/models/mask-rcnn_r18-c4_fpn.py',
    '../../_base_/datasets/vrdl_crop-stain.py',
    '../../_base_/recipes/dense.py',
]

model = dict(test_cfg=dict(rpn=_base_.test_rpn, rcnn=_base_.test_rcnn))

paste = dict(type='PasteNuclei', number=5)
train_dataloader = dict(
    dataset=dict(
        pipeline=[
            *(_base_.load_once, _base_.load_truth, _base_.crops, paste, _base_.slide_colors),
            *(_base_.enlarge, _base_.whole, _base_.turn, _base_.flip, _base_.stain, _base_.pack),
        ]
    )
)
