"""Folds: which images a training does not see, so that it can be scored on them."""

import copy
import re
from pathlib import Path

from mmengine.config import Config, ConfigDict

from nucseg_mmdet.engine.config_parts import as_list, find_datasets
from nucseg_mmdet.structures.coco import load_json
from nucseg_mmdet.utils.errors import UserError

WHOLE = re.compile(r'annotations/(fold\d+_)?train\.json')


def hold_out_fold(cfg: Config, fold: int) -> None:
    """Train on the other folds and validate or test on this one, in place.

    Of several training sets those in ``cfg.data_root`` have folds; the others are trained on whole.

    Args:
        cfg: with ``test_dataloader`` and ``test_evaluator``, which serve for the fold.
        fold: number, from 1, of ``annotations/fold<N>_{train,val}.json``.

    Raises:
        UserError: the number is below 1, of several training sets none has folds, or one has other
            annotations; ``check_files`` tells of files that are not there.
    """
    if fold < 1:
        raise UserError(f'--fold {fold}: folds count from 1')
    for key in 'train_dataloader', 'test_dataloader', 'test_evaluator':
        if not cfg.get(key):
            raise UserError(f'{cfg.filename}: --fold {fold} without {key}, expected it')
    held_out = f'annotations/fold{fold}_val.json'
    sets = with_folds(cfg)
    for dataset in sets:
        if not WHOLE.fullmatch(str(dataset.ann_file)):
            raise UserError(
                f'{cfg.filename}: --fold {fold} of {dataset.data_root}{dataset.ann_file}, '
                'expected annotations/train.json; other annotations go to a folder of their own'
            )
        dataset.ann_file = f'annotations/fold{fold}_train.json'
    loader = cfg.test_dataloader
    loader.dataset.ann_file = held_out
    loader.dataset.data_prefix = dict(img='train/')
    evaluators = as_list(cfg.test_evaluator)
    for evaluator in evaluators:
        evaluator.ann_file = str(Path(loader.dataset.get('data_root') or '', held_out))
    cfg.val_dataloader = copy.deepcopy(loader)
    cfg.val_evaluator = copy.deepcopy(cfg.test_evaluator)
    cfg.val_cfg = dict(type='ValLoop')
    has_pq = any(evaluator.type == 'NucleiMetric' for evaluator in evaluators)
    cfg.default_hooks.checkpoint.save_best = 'nuclei/PQ' if has_pq else 'coco/segm_mAP'
    cfg.default_hooks.checkpoint.rule = 'greater'


def with_folds(cfg: Config) -> list[ConfigDict]:
    """The training sets that have folds: the only one, or those in ``cfg.data_root``.

    Raises:
        UserError: there are several, and none in this folder.
    """
    found = find_datasets(cfg.train_dataloader)
    if len(found) == 1:
        return found
    own = [dataset for dataset in found if _root(dataset) == Path(cfg.data_root).resolve()]
    if not own:
        raise UserError(
            f'{cfg.filename}: no training set has data_root {cfg.data_root}, expected one of '
            'which a fold is held out'
        )
    return own


def check_held_out(cfg: Config) -> None:
    """Refuse to train on an image of the fold that is held out.

    Args:
        cfg: after ``hold_out_fold``, with files that ``check_files`` found good.

    Raises:
        UserError: as said.
    """
    shared = sorted(_images(cfg.get('val_dataloader')) & _images(cfg.train_dataloader))
    if shared:
        raise UserError(
            f'{shared[0]}: is held out and in the training, like {len(shared) - 1} others, '
            'expected no image in both'
        )


def _images(dataloader: dict | None) -> set[Path]:
    return {
        (_root(dataset) / dataset.data_prefix.img / image['file_name']).resolve()
        for dataset in find_datasets(dataloader)
        for image in load_json(_root(dataset) / dataset.ann_file)['images']
    }


def _root(dataset: ConfigDict) -> Path:
    return Path(dataset.get('data_root') or '').resolve()
