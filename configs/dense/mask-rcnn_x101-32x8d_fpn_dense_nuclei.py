"""The dense recipe for X-101-32x8d: as for R-101, with another backbone. Not run yet.

python tools/train.py \
    configs/dense/mask-rcnn_x101-32x8d_fpn_crop112to176-s320-reinhard-roi512-ema-20k_nuclei.py \
    --amp --initial-weights fetch
"""

_base_ = './mask-rcnn_r101_fpn_crop112to176-s320-reinhard-roi512-ema-20k_nuclei.py'

model = dict(
    data_preprocessor=dict(std=[57.375, 57.12, 58.395]),  # BGR
    backbone=dict(
        type='ResNeXt',
        groups=32,
        base_width=8,
        style='pytorch',
        init_cfg=dict(checkpoint='open-mmlab://detectron2/resnext101_32x8d'),
    ),
)
