"""Types of nuclei in a minute or two of CPU, from the default model, on made-up fields.

python -m nucseg_mmdet.synthetic.fields raw --types
nucseg prepare label-map raw data/demo_types --classes
python tools/train.py configs/demo/mask-rcnn_r18-c4_fpn_demo_types.py --fold 1

As ``nucseg train finetune``, but short: small crops, and none of the colors that real slides vary
in. The classes are the categories of the data.
"""

_base_ = [
    '../_base_/models/mask-rcnn_r18-c4_fpn.py',
    '../_base_/datasets/vrdl_crop-stain.py',
    '../_base_/recipes/dense.py',
]

data_root = 'data/demo_types/'
finetune = dict(model='dense-r18', iterations=80, lr=2e-3, fold=None)

model = dict(test_cfg=dict(rpn=_base_.test_rpn, rcnn=_base_.test_rcnn))
custom_hooks = [*_base_.run_hooks, dict(_base_.ema, update_buffers=True)]

b = _base_
crop = dict(b.crop, crop_size=(112, 112))
enlarge = dict(type='Resize', scale=(256, 256), keep_ratio=True)  # 2.3 times, as in tests
train_dataloader = dict(
    batch_size=2,
    dataset=dict(
        data_root=data_root,
        pipeline=[b.load_once, b.load_truth, crop, enlarge, b.whole, b.turn, b.flip, b.pack],
    ),
)
test_dataloader = dict(dataset=dict(data_root=data_root))
test_evaluator = dict(ann_file=data_root + 'annotations/test.json')
