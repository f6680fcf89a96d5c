"""``lite2.py`` with a second stage of boxes and masks, from an IoU of 0.6 on (Cascade Mask R-CNN).

python tools/train.py configs/dense/ablations/lite2-cascade.py --fold 2 --initial-weights FILE
"""

_base_ = [
    '../../_base_/models/mask-rcnn_efficientnet-lite0_fpn.py',
    '../../_base_/datasets/vrdl_crop-stain.py',
    '../../_base_/recipes/dense.py',
]

head = _base_.model.roi_head.bbox_head
coarse = dict(head, reg_class_agnostic=True)
fine = dict(coarse, bbox_coder=dict(head.bbox_coder, target_stds=[0.05, 0.05, 0.1, 0.1]))
rcnn = _base_.model.train_cfg.rcnn
fine_assigner = dict(rcnn.assigner, pos_iou_thr=0.6, neg_iou_thr=0.6, min_pos_iou=0.6)
model = dict(
    _base_.lite2,
    roi_head=dict(
        type='CascadeRoIHead',
        num_stages=2,
        stage_loss_weights=[1.0, 0.5],
        bbox_head=[coarse, fine],
    ),
    train_cfg=dict(rcnn=[rcnn, dict(rcnn, assigner=fine_assigner)]),
    test_cfg=dict(
        rpn=_base_.test_rpn,
        rcnn=dict(_base_.test_rcnn, truth_offset=(-0.4, -0.6)),
    ),
)

train_dataloader = dict(dataset=dict(pipeline=_base_.moved_crops))

custom_hooks = _base_.pretrained_hooks
optim_wrapper = dict(paramwise_cfg=_base_.pretrained_rates)
train_cfg = dict(max_iters=1_000, val_interval=1_000)
param_scheduler = [_base_.warm_up, dict(_base_.decay, begin=500, end=1_000)]

fold_colors = True  # with --fold, no held-out image has a part in the training
