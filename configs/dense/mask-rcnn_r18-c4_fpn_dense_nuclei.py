"""The default model: the cycle of its base twice, the second from the checkpoint of the first.

models/README.md has the commands.
"""

_base_ = './mask-rcnn_r18-c4_fpn_crop112to176-s320-reinhard-a16to384-ema-4k-2k_nuclei.py'

# The masks of the class data lie to the left of and above the nuclei, by means over the images of
# 0.4 and 0.6 px (README). Trained with turns and flips, a model can't learn that.
model = dict(test_cfg=dict(rcnn=dict(truth_offset=(-0.4, -0.6))))

randomness = dict(seed=2)  # of the second cycle; the first had 1
