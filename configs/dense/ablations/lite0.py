"""EfficientNet-Lite0 at the length of the other ablations, 2,000 iterations.

python tools/train.py configs/dense/ablations/lite0.py --fold 1 --initial-weights FILE
"""

_base_ = '../mask-rcnn_lite0_fpn_dense_nuclei.py'

train_cfg = dict(max_iters=2_000, val_interval=2_000)
param_scheduler = [_base_.warm_up, dict(_base_.decay, begin=1_000, end=2_000)]
