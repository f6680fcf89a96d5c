"""What ran, how far, and its scores, as a file in the work folder."""

import platform
import resource
import secrets
import time
from pathlib import Path

import mmcv
import mmdet
import mmengine
import numpy
import torch
from mmdet.registry import HOOKS
from mmengine.dist import master_only
from mmengine.hooks import Hook
from mmengine.runner import Runner

from nucseg_mmdet.engine.config_edits import score_threshold
from nucseg_mmdet.engine.work_dir import CARD, read_card
from nucseg_mmdet.utils.files import without_nan, write_json


@HOOKS.register_module()
class RunCardHook(Hook):
    """Keep ``run_card.json`` in the work folder: what ran, how far, and its scores.

    ``scores`` is keyed by the annotation file that was scored; a test of a trained model
    adds its own beside those of the training. A training that starts anew starts a new card.
    ``tools/analysis_tools/results_table.py`` reads these files.
    """

    priority = 'LOWEST'  # after every hook that may still change the scores

    def __init__(self) -> None:
        self.run: str | None = None  # which run this is, for its checkpoints to say

    def before_train(self, runner: Runner) -> None:
        self.started = time.monotonic()
        self.seconds_before = 0.0
        if runner.iter:
            before = read_card(runner.work_dir).get('train_seconds')
            self.seconds_before = before if isinstance(before, int | float) else 0.0
        else:  # a new run, to which an earlier one's scores and checkpoints do not belong
            self.run = secrets.token_hex(8)
            self._remove_earlier(runner)
        self._write(runner, self._training_facts(runner))

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        checkpoint['meta']['run'] = self.run

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        if runner._resume:
            self.run = checkpoint['meta'].get('run')

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
            run=self.run,
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
                module.__name__: module.__version__
                for module in (torch, mmengine, mmcv, mmdet, numpy)
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
    @master_only
    def _remove_earlier(runner: Runner) -> None:
        for name in (CARD, 'last_checkpoint'):
            Path(runner.work_dir, name).unlink(missing_ok=True)

    @master_only
    def _write(self, runner: Runner, facts: dict) -> None:
        card = read_card(runner.work_dir)
        before = card.get('scores')
        facts['scores'] = {
            **(before if isinstance(before, dict) else {}),
            **facts.get('scores', {}),
        }
        card.update(facts)
        write_json(Path(runner.work_dir, CARD), without_nan(card))
