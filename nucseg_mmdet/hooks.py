"""Hooks that run beside training and testing."""

import json
import os
import platform
import random
import resource
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import cv2
import numpy as np
import torch
from mmdet.registry import HOOKS
from mmengine.dist import master_only
from mmengine.hooks import Hook
from mmengine.runner import Runner, find_latest_checkpoint
from pycocotools import mask as coco_mask

from nucseg_mmdet.engine.checkpoint import refuse_unfit
from nucseg_mmdet.engine.config_edits import score_threshold
from nucseg_mmdet.imaging.draw import draw_outlines
from nucseg_mmdet.structures.polygons import mask_to_outlines
from nucseg_mmdet.utils.errors import UserError


@HOOKS.register_module()
class StopAtNonFiniteLossHook(Hook):
    """Stop training at a loss that is infinite or NaN.

    Checked at every iteration, before the hook that saves checkpoints, so that the
    last checkpoint is from before the damage.
    """

    priority = 'VERY_HIGH'

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | None = None,
        outputs: dict | None = None,
    ) -> None:
        if torch.isfinite(outputs['loss']):
            return
        parts = ', '.join(f'{name} {value.item():.4g}' for name, value in outputs.items())
        images = ', '.join(Path(sample.img_path).name for sample in data_batch['data_samples'])
        raise UserError(
            f'iteration {runner.iter + 1}: loss is not finite ({parts}) on {images}; '
            'lower the learning rate or look at these images, then --resume'
        )


@HOOKS.register_module()
class RefuseUnfitCheckpointHook(Hook):
    """Refuse a checkpoint whose keys or shapes differ from the model's.

    mmengine loads what fits and goes on, so a wrong config would give random nuclei.
    Class layers that the loader of a Detectron2 file dropped may be missing.
    """

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        model = runner.model.module if hasattr(runner.model, 'module') else runner.model
        # A resumed run that was told of no file takes the last one of its work folder.
        path = runner._load_from or find_latest_checkpoint(runner.work_dir)
        refuse_unfit(model, checkpoint, path)


@HOOKS.register_module()
class RandomStateHook(Hook):
    """Keep the state of the random generators in the checkpoints, and go on from it.

    With ``num_workers=0`` and one process a resumed training then equals an
    uninterrupted one bit for bit on a CPU. Data loading workers are no part of a
    checkpoint: with them the order of the images goes on and crops and flips are drawn anew.
    """

    priority = 'LOWEST'  # draws of other hooks come before

    def __init__(self) -> None:
        self.state: dict | None = None

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        _, keys, position, has_gauss, cached = np.random.get_state()
        checkpoint['random_state'] = dict(
            torch=torch.get_rng_state(),
            cuda=torch.cuda.get_rng_state_all() if torch.cuda.is_available() else [],
            numpy=(torch.from_numpy(keys.astype(np.int64)), position, has_gauss, cached),
            python=random.getstate(),
        )

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        if runner._resume and runner.world_size == 1:
            self.state = checkpoint.get('random_state')

    def before_train_epoch(self, runner: Runner) -> None:
        if self.state is None:
            return
        keys, *rest = self.state['numpy']  # which the first batch is drawn with
        np.random.set_state(('MT19937', keys.cpu().numpy().astype(np.uint32), *rest))
        random.setstate(self.state['python'])

    def before_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | None = None
    ) -> None:
        if self.state is None:
            return
        # Only now: the data loader has drawn a seed for its workers, as it did at the start.
        torch.set_rng_state(self.state['torch'].cpu())
        if torch.cuda.is_available() and len(self.state['cuda']) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all([part.cpu() for part in self.state['cuda']])
        self.state = None


@HOOKS.register_module()
class RunCardHook(Hook):
    """Keep ``run_card.json`` in the work folder: what ran, how far, and its scores.

    ``scores`` is keyed by the annotation file that was scored; a test of a trained model
    adds its own beside those of the training. A training that starts anew starts a new card.
    ``tools/results_table.py`` reads these files.
    """

    priority = 'LOWEST'  # after every hook that may still change the scores

    def before_train(self, runner: Runner) -> None:
        self.started = time.monotonic()
        self.seconds_before = 0.0
        if runner.iter:
            self.seconds_before = self._read(runner).get('train_seconds', 0.0)
        else:  # a new run, to which an earlier one's scores do not belong
            self._remove(runner)
        self._write(runner, self._training_facts(runner))

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | None = None,
        outputs: dict | None = None,
    ) -> None:
        if self.every_n_train_iters(runner, 100):
            self._write(runner, self._progress(runner, runner.iter + 1))

    def after_train(self, runner: Runner) -> None:
        self._write(runner, self._progress(runner, runner.iter))

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        scored = {self._name(runner.val_dataloader): dict(iteration=runner.iter, **(metrics or {}))}
        self._write(runner, dict(scores=scored))

    def after_test_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        if not metrics:
            return
        dataset = runner.test_dataloader.dataset
        scored = dict(
            checkpoint=str(runner._load_from),
            annotations=dataset.ann_file,
            images=dataset.data_prefix['img'],
            **metrics,
        )
        if any(name.startswith('nuclei/') for name in metrics):
            scored.update(score_thr=score_threshold(runner.cfg))
        self._write(runner, dict(scores={self._name(runner.test_dataloader): scored}))

    @staticmethod
    def _name(dataloader: torch.utils.data.DataLoader) -> str:
        return Path(dataloader.dataset.ann_file).name

    def _training_facts(self, runner: Runner) -> dict:
        cfg = runner.cfg
        return dict(
            config=Path(cfg.filename).stem,
            started=time.strftime('%Y-%m-%d %H:%M'),
            annotations=self._name(runner.train_dataloader),
            images=len(runner.train_dataloader.dataset),
            batch_size=runner.train_dataloader.batch_size * runner.world_size,
            max_iterations=runner.max_iters,
            initial_weights=(cfg.model.backbone.get('init_cfg') or {}).get('checkpoint', 'none'),
            from_scratch=cfg.get('from_scratch', False),
            load_from=cfg.get('load_from'),
            seed=runner.seed,
            device=torch.cuda.get_device_name() if torch.cuda.is_available() else 'CPU',
            processes=runner.world_size,
            python=platform.python_version(),
            versions={
                name: version(name)
                for name in ('torch', 'onedl-mmengine', 'onedl-mmcv', 'onedl-mmdetection', 'numpy')
            },
            iteration=runner.iter,
        )

    def _progress(self, runner: Runner, iteration: int) -> dict:
        if torch.cuda.is_available():
            peak = dict(peak_gpu_bytes=torch.cuda.max_memory_allocated())
        else:
            peak = dict(peak_memory_bytes=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
        seconds = self.seconds_before + time.monotonic() - self.started
        return dict(iteration=iteration, train_seconds=round(seconds, 3), **peak)

    @staticmethod
    def _read(runner: Runner) -> dict:
        path = Path(runner.work_dir, 'run_card.json')
        return json.loads(path.read_text()) if path.is_file() else {}

    @master_only
    def _remove(self, runner: Runner) -> None:
        Path(runner.work_dir, 'run_card.json').unlink(missing_ok=True)

    @master_only
    def _write(self, runner: Runner, facts: dict) -> None:
        card = self._read(runner)
        facts['scores'] = {**card.get('scores', {}), **facts.get('scores', {})}
        card.update(facts)
        path = Path(runner.work_dir, 'run_card.json')
        partial = path.with_name('.run_card.json.partial')
        partial.write_text(json.dumps(card, indent=2) + '\n')
        os.replace(partial, path)


@HOOKS.register_module()
class OutlineHook(Hook):
    """Write each tested image with its predicted nuclei outlined.

    Args:
        out_dir: folder of the PNG files, named like the images.
        score_thr: nuclei below this score are not drawn.
    """

    def __init__(self, out_dir: str, score_thr: float = 0.5) -> None:
        self.out_dir = Path(out_dir)
        self.score_thr = score_thr

    def after_test_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: dict | None = None,
        outputs: Sequence | None = None,
    ) -> None:
        self.out_dir.mkdir(parents=True, exist_ok=True)
        for sample in outputs:
            pred = sample.pred_instances
            masks = pred.masks
            if isinstance(masks, torch.Tensor):
                masks = masks.cpu().numpy()
            drawn = [
                masks[index]
                for index in torch.nonzero(pred.scores >= self.score_thr).flatten().tolist()
            ]
            nuclei = [
                mask_to_outlines(
                    mask if isinstance(mask, np.ndarray) else coco_mask.decode(mask) > 0
                )
                for mask in drawn
            ]
            picture = draw_outlines(cv2.imread(sample.img_path), nuclei)
            cv2.imwrite(str(self.out_dir / f'{Path(sample.img_path).stem}.png'), picture)
