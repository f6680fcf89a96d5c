"""As its base, the truth moved onto the nuclei before turns and flips."""

_base_ = './mask-rcnn_r18-c4_fpn_crop112to176-s320-reinhard-a16to384-ema-4k-2x2k_nuclei.py'

pipeline = _base_.train_dataloader.dataset.pipeline
move = dict(type='MoveTruth', offset=(0.4, 0.6))  # what truth_offset takes back
train_dataloader = dict(dataset=dict(pipeline=[*pipeline[:2], move, *pipeline[2:]]))
