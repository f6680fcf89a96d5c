"""As its base, with stains made weaker and stronger at random.

python tools/train.py \
    configs/dense/mask-rcnn_r18_fpn_crop160-x2-a16to256-jitter-1500_nuclei.py --fold 1
"""

_base_ = './mask-rcnn_r18_fpn_crop160-x2-a16to256-1500_nuclei.py'

pipeline = _base_.train_dataloader.dataset.pipeline
jitter = dict(type='StainJitter', sigma=0.25)  # before enlarging: a quarter of the pixels
train_dataloader = dict(dataset=dict(pipeline=[*pipeline[:3], jitter, *pipeline[3:]]))
