"""EfficientNet-Lite0 for 1,000 iterations, half the length of the other ablations.

python tools/train.py configs/dense/ablations/lite0.py --fold 1 --initial-weights FILE
"""

_base_ = '../mask-rcnn_lite0_fpn_dense_nuclei.py'

train_cfg = dict(max_iters=1_000, val_interval=1_000)
param_scheduler = [_base_.warm_up, dict(_base_.decay, begin=500, end=1_000)]
