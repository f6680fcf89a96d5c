"""Runtime: registered modules, hooks, log."""

default_scope = 'mmdet'
custom_imports = dict(imports=['nucseg_mmdet.registration'], allow_failed_imports=False)

default_hooks = dict(
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=20, log_metric_by_epoch=False),
    param_scheduler=dict(type='ParamSchedulerHook'),
    checkpoint=dict(
        type='CheckpointHook',
        by_epoch=False,
        interval=1_000,
        max_keep_ckpts=3,
        backend_args=dict(backend='WholeFiles'),  # a killed run leaves whole checkpoints
    ),
    sampler_seed=dict(type='DistSamplerSeedHook'),
)
custom_hooks = [
    dict(type='StopAtNonFiniteLossHook'),
    dict(type='RefuseUnfitCheckpointHook'),
    dict(type='SyncBuffersHook'),
    dict(type='RandomStateHook'),
    dict(type='RunCardHook'),
]
model_wrapper_cfg = dict(type='MMDistributedDataParallel', broadcast_buffers=True)

env_cfg = dict(
    cudnn_benchmark=False,
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl'),
)
visualizer = dict(type='DetLocalVisualizer', vis_backends=[dict(type='LocalVisBackend')])
log_processor = dict(type='LogProcessor', window_size=20, by_epoch=False)
log_level = 'INFO'
randomness = dict(seed=0)
load_from = None
resume = False
