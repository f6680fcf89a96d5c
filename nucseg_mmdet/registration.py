"""Import every class that configs name: the one entry of ``custom_imports``."""

import nucseg_mmdet.datasets.nuclei_dataset
import nucseg_mmdet.datasets.transforms.copy_paste
import nucseg_mmdet.datasets.transforms.geometric
import nucseg_mmdet.datasets.transforms.loading
import nucseg_mmdet.datasets.transforms.stain
import nucseg_mmdet.datasets.transforms.truth_offset
import nucseg_mmdet.engine.checkpoint
import nucseg_mmdet.engine.hooks.channels_last
import nucseg_mmdet.engine.hooks.ensemble
import nucseg_mmdet.engine.hooks.fill_stages
import nucseg_mmdet.engine.hooks.inference_precision
import nucseg_mmdet.engine.hooks.non_finite_loss
import nucseg_mmdet.engine.hooks.outlines
import nucseg_mmdet.engine.hooks.random_state
import nucseg_mmdet.engine.hooks.run_card
import nucseg_mmdet.engine.hooks.spread_class_layer
import nucseg_mmdet.engine.hooks.unfit_checkpoint
import nucseg_mmdet.engine.optim_wrapper
import nucseg_mmdet.engine.work_dir
import nucseg_mmdet.evaluation.metrics
import nucseg_mmdet.models.efficientnet_lite
import nucseg_mmdet.models.mask_ensemble
import nucseg_mmdet.models.mask_tta
import nucseg_mmdet.models.one_type_bbox_head
import nucseg_mmdet.models.rle_mask_head
import nucseg_mmdet.models.roi_extractor
import nucseg_mmdet.models.rpn_head
import nucseg_mmdet.models.sparse_assigner
import nucseg_mmdet.models.wide_mask_roi_head  # noqa: F401
