"""Half length with each image's truth moved onto its nuclei, by an offset that the image gives.

python tools/train.py configs/dense/ablations/measured-truth.py --amp --fold 1

Not run yet. The test is as of ``half-length.py``, without ``truth_offset``.
"""

_base_ = [
    '../../_base_/models/mask-rcnn_r18-c4_fpn.py',
    '../../_base_/datasets/vrdl_crop-stain.py',
    '../../_base_/recipes/dense.py',
]

model = dict(test_cfg=dict(rpn=_base_.test_rpn, rcnn=_base_.test_rcnn))

measure = dict(type='MeasureTruthOffset')
move = dict(type='MoveTruth')
train_dataloader = dict(
    dataset=dict(
        pipeline=[
            *(_base_.load_once, _base_.load_truth, measure, _base_.crops, move),
            *(_base_.slide_colors, _base_.enlarge, _base_.whole, _base_.turn, _base_.flip),
            *(_base_.stain, _base_.pack),
        ]
    )
)
