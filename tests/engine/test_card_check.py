"""Whether a run card is of its config: cards as the tools would write them, and wrong ones."""

import json
from pathlib import Path

import pytest

from nucseg_mmdet.engine import card_check, config_edits, data_edits, folds, provenance
from nucseg_mmdet.utils.errors import UserError

DENSE = 'mask-rcnn_r18-c4_fpn_dense_nuclei'
E08 = 'mask-rcnn_r101_fpn_e08_vrdl'
LITE0 = 'mask-rcnn_lite0_fpn_dense_nuclei'
SHORTER = {'train_cfg.max_iters': 1500, 'param_scheduler.1.end': 1500}
SOURCE = Path('results/a/run_card.json')


def trained(config, fold=None, options=(), from_scratch=False):
    """The card of a training, from the config as ``nucseg train`` makes it."""
    cfg = config_edits.load_config(config, dict(options), Path('/home/me/work'), fold)
    if fold:
        folds.hold_out_fold(cfg, fold)
    config_edits.set_mixed_precision(cfg)
    config_edits.set_initial_weights(cfg, 'none' if from_scratch else 'fetch')
    card = dict(
        config=config,
        run='1a',
        from_scratch=cfg.get('from_scratch', False),
        iteration=cfg.train_cfg.max_iters,
        settings=provenance.settings(cfg, provenance.TRAINING),
        commit='c0ffee',
        scores={},
    )
    return json.loads(json.dumps(card))


def scored(config, options=(), tta=None, others=(), offset=True, **facts):
    """The scores of a test, from the config as ``nucseg test`` makes it."""
    cfg = config_edits.load_config(config, dict(options), None)
    if not offset:
        data_edits.leave_out_truth_offset(cfg)
    if tta is not None:
        data_edits.use_views(cfg, Path(config), tta, [(cfg.model, path) for path in others])
    settings = provenance.test_settings(cfg)
    return json.loads(json.dumps(dict(facts, config=config, settings=settings, data_sha256='d')))


def test_models_are_averaged_in_the_view_that_is_tested():
    options = {'test_dataloader.dataset.pipeline.2.scale_factor': 2.5}
    with pytest.raises(UserError, match=r'first view .* is not what test_dataloader does'):
        scored(DENSE, options, tta=False, others=[Path('b.pth')])


@pytest.mark.parametrize(
    ('card', 'run'),
    [
        (trained(DENSE), DENSE),
        (trained(DENSE, fold=3), 'any_name'),
        (trained(E08), E08),
        (trained(E08, from_scratch=True), E08),
        (trained(LITE0, fold=1, from_scratch=True), LITE0),
        (trained(DENSE, options={'train_dataloader.num_workers': 0, 'log_level': 'INFO'}), DENSE),
        (trained(DENSE, options={'train_dataloader.dataset.data_root': '/home/me'}), DENSE),
        (trained(DENSE, options={'randomness.seed': 7}), f'{DENSE}_fold1_seed7'),
        (trained(E08, options={'train_cfg.max_iters': 2}), f'{E08}_iterations2'),
        (trained(DENSE, options=SHORTER), f'{DENSE}_iterations1500'),
        (dict(config=DENSE, seed=1, scores={'test.json': {'nuclei/PQ': 0.5}}), 'of before'),
        (dict(config='a', settings=dict(a=1), scores={}), 'config from elsewhere'),
        (dict(scores=dict(a=scored(DENSE))), 'tested alone'),
        (dict(scores=dict(a=scored(DENSE, tta=True))), 'tta'),
        (dict(scores=dict(a=scored(DENSE, offset=False))), 'other data'),
        (dict(scores=dict(a=scored(DENSE, tta=True, offset=False))), 'other data, tta'),
        (dict(scores=dict(a=scored(DENSE, tta=False, others=['b.pth']))), 'ensemble'),
    ],
)
def test_card_of_its_config(card, run):
    card_check.check_card(card, run, SOURCE)


@pytest.mark.parametrize(
    ('card', 'run', 'message'),
    [
        (
            trained(DENSE, options={'randomness.seed': 1}),
            f'{DENSE}_fold1',
            f'randomness.seed is 1, expected 2 as in {DENSE}.py; other settings',
        ),
        (trained(DENSE, options={'randomness.seed': 1}), f'{DENSE}_seed3', 'is 1, expected 3'),
        (trained(DENSE, options=SHORTER), f'{DENSE}_iterations1600', 'is 1500, expected'),
        (
            trained(DENSE, options={**SHORTER, 'param_scheduler.1.end': 900}),
            f'{DENSE}_iterations1500',
            'param_scheduler.1.end is 900, expected',
        ),
        (
            trained(E08, options={'train_cfg.max_iters': 2}),
            E08,
            'train_cfg.max_iters is 2, expected 5000',
        ),
        (
            trained(DENSE, options={'optim_wrapper.optimizer.lr': 1.0, 'model.x': 1}),
            DENSE,
            r"model.x is 1, expected 'not set' as in .* \(1 more differ\)",
        ),
        (
            dict(trained(E08), from_scratch=True),
            E08,
            r'model.backbone.frozen_stages is 1, expected -1',
        ),
        (
            dict(scores=dict(a=scored(DENSE, {'model.test_cfg.rcnn.truth_offset': [0, 0]}))),
            DENSE,
            r'truth_offset is \[0, 0\], expected \[-0.4, -0.6\]',
        ),
        (
            dict(scores=dict(a=scored(DENSE, {'tta_pipeline.1.type': 'Odd'}, tta=True))),
            DENSE,
            "pipeline.1.type is 'Odd', expected 'ReinhardNormalize'",
        ),
        (
            dict(trained(DENSE), scores=dict(a=scored(DENSE, run='2b'))),
            DENSE,
            'scores of a are of run 2b, expected 1a',
        ),
        (
            dict(trained(DENSE), scores=dict(a=scored(E08, run='1a'))),
            DENSE,
            f'scores of a are of config {E08}, expected {DENSE}',
        ),
    ],
)
def test_wrong_card_is_refused(card, run, message):
    with pytest.raises(UserError, match=f'^{SOURCE}: .*{message}'):
        card_check.check_card(card, run, SOURCE)


def test_fold_colors_are_measured_and_not_of_the_config():
    card = trained(LITE0, fold=1, from_scratch=True)
    normalize = 'test_dataloader.dataset.pipeline.1'
    assert card['settings'][f'{normalize}.type'] == 'ReinhardNormalize'
    card['settings'][f'{normalize}.target.mean'] = [0.5, 0.5, 0.5]
    card_check.check_card(card, LITE0, SOURCE)
    card = trained(DENSE, fold=1)
    card['settings'][f'{normalize}.target.mean'] = [0.5, 0.5, 0.5]
    with pytest.raises(UserError, match=r'target\.mean is .*, expected \'not set\''):
        card_check.check_card(card, DENSE, SOURCE)


@pytest.mark.parametrize(
    ('card', 'entry', 'expected'),
    [
        (trained(DENSE), {}, 'c0ffee'),
        (trained(DENSE), dict(data_sha256='d'), 'c0ffee'),
        (trained(DENSE), dict(data_sha256='d', commit='beef'), 'beef'),
        (trained(DENSE), {'nuclei/PQ': 0.5}, None),
        (dict(trained(DENSE), resumed_otherwise=['commit']), {}, None),
        (dict(config=DENSE, iteration=5), dict(data_sha256='d', commit='beef'), None),
        (dict(config=DENSE, iteration=5), {}, None),
        ({}, dict(data_sha256='d', commit='beef'), 'beef'),
    ],
)
def test_what_a_card_proves(card, entry, expected):
    assert card_check.proof(card, entry) == expected
