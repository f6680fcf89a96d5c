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

from nucseg_mmdet.engine import provenance
from nucseg_mmdet.engine.config_parts import score_threshold
from nucseg_mmdet.engine.work_dir import read_card
from nucseg_mmdet.evaluation.run_cards import CARD
from nucseg_mmdet.utils.files import without_nan, write_json
from nucseg_mmdet.utils.wrapped import parts


@HOOKS.register_module()
class RunCardHook(Hook):
    """Keep ``run_card.json`` in the work folder: what ran, how far, and its scores.

    ``scores`` is keyed by the annotation file that was scored; a test of a trained model
    adds its own beside those of the training. A training that starts anew starts a new card.
    ``tools/analysis_tools/results_table.py`` reads these files, and refuses one whose
    ``settings`` are not those of its config.
    """

    priority = 'LOWEST'  # after every hook that may still change the scores

    def __init__(self) -> None:
        self.run: str | None = None  # which run this is, for its checkpoints to say
        self.loaded: str | None = None  # which one the weights that were loaded are of

    def before_train(self, runner: Runner) -> None:
        self.started = time.monotonic()
        self.seconds_before = 0.0
        if runner.iter:
            before = read_card(runner.work_dir).get('train_seconds')
            self.seconds_before = before if isinstance(before, int | float) else 0.0
        else:  # a new run, to which an earlier one's scores and checkpoints do not belong
            self.run = secrets.token_hex(8)
            self._remove_earlier(runner)
        facts = self._training_facts(runner)
        before = read_card(runner.work_dir)
        facts['resumed_otherwise'] = changes_of_run(before, facts)
        if runner.iter and not before:  # nothing says what it began with
            facts['resumed_otherwise'] = ['settings']
        self._write(runner, facts)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        checkpoint['meta']['run'] = self.run

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        self.loaded = checkpoint.get('meta', {}).get('run')
        if runner._resume:
            self.run = self.loaded

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
        checkpoint = Path(runner.work_dir, f'iter_{runner.iter}.pth')
        scored = dict(
            iteration=runner.iter,
            checkpoint_sha256=provenance.digest(checkpoint),
            data_sha256=provenance.digest_dataloader(runner.cfg.val_dataloader),
            **_with_threshold(runner, metrics or {}),
        )
        self._write(runner, dict(scores={self._name(runner.val_dataloader): scored}))

    def after_test_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        if not metrics:
            return
        scored = dict(self._test_facts(runner), **_with_threshold(runner, metrics))
        self._write(runner, dict(scores={self._name(runner.test_dataloader): scored}))

    @staticmethod
    def _name(dataloader: torch.utils.data.DataLoader) -> str:
        files = [Path(part.ann_file) for part in parts(dataloader.dataset)]
        if len(files) == 1:
            return files[0].name
        return ' + '.join('/'.join([*file.parts[-3:-2], file.name]) for file in files)

    def _training_facts(self, runner: Runner) -> dict:
        cfg = runner.cfg
        backbone = (cfg.model.backbone.get('init_cfg') or {}).get('checkpoint', 'none')
        load_from = cfg.get('load_from')
        return dict(
            run=self.run,
            config=Path(cfg.filename).stem,
            commit=provenance.commit(),
            command=provenance.command(),
            started=time.strftime('%Y-%m-%d %H:%M'),
            annotations=self._name(runner.train_dataloader),
            images=sum(len(part) for part in parts(runner.train_dataloader.dataset)),
            batch_size=runner.train_dataloader.batch_size * runner.world_size,
            max_iterations=runner.max_iters,
            initial_weights=provenance.short_path(backbone),
            from_scratch=cfg.get('from_scratch', False),
            load_from=load_from and provenance.short_path(load_from),
            weights_sha256=provenance.digest(load_from or backbone),
            data_sha256=provenance.digest_dataloader(cfg.get('train_dataloader')),
            seed=runner.seed,
            precision=provenance.precision(cfg),
            device=provenance.device(),
            processes=runner.world_size,
            python=platform.python_version(),
            versions={
                module.__name__: module.__version__
                for module in (torch, mmengine, mmcv, mmdet, numpy)
            },
            iteration=runner.iter,
            settings=provenance.settings(cfg, provenance.TRAINING),
        )

    def _test_facts(self, runner: Runner) -> dict:
        cfg, dataset = runner.cfg, runner.test_dataloader.dataset
        images = dataset.data_prefix['img']
        hooks = {hook['type']: hook for hook in cfg.get('custom_hooks') or []}
        others = hooks.get('EnsembleHook', {}).get('checkpoints', [])
        return dict(
            run=self.loaded,
            config=Path(cfg.filename).stem,
            commit=provenance.commit(),
            command=provenance.command(),
            checkpoint=provenance.short_path(runner._load_from),
            checkpoint_sha256=provenance.digest(runner._load_from),
            others_sha256=[provenance.digest(path) for path in others],
            # Reports read these: what lies elsewhere keeps its folder.
            annotations=provenance.inner_path(dataset.ann_file) or dataset.ann_file,
            images=provenance.inner_path(images) or images,
            data_sha256=provenance.digest_dataloader(cfg.test_dataloader),
            precision=hooks.get('InferencePrecisionHook', {}).get('precision', 'fp32'),
            settings=provenance.test_settings(cfg),
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


def _with_threshold(runner: Runner, metrics: dict[str, float]) -> dict[str, float]:
    """Scores, and where they are of label maps the score from which on these show a nucleus."""
    if not any(name.startswith('nuclei/') for name in metrics):
        return metrics
    return dict(metrics, score_thr=score_threshold(runner.cfg))


def changes_of_run(before: dict, now: dict) -> list[str]:
    """Name what a run goes on with otherwise than it began: settings, code, data or precision.

    Args:
        before: the card so far; empty for a new run.
        now: its new facts.
    """
    if not before:
        return []
    if not isinstance(before.get('settings'), dict):
        return ['settings']
    facts = ('commit', 'data_sha256', 'precision', 'seed')
    changed = [key for key in facts if before.get(key) != now[key]]
    changed += provenance.differing_keys(before['settings'], now['settings'])
    return sorted({*(before.get('resumed_otherwise') or []), *changed})
