"""Whether a run card is of the config whose name it bears."""

import copy
import itertools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config

from nucseg_mmdet.engine import config_edits, provenance
from nucseg_mmdet.engine.data_edits import leave_out_truth_offset, use_views
from nucseg_mmdet.engine.model_zoo import find_own_config
from nucseg_mmdet.utils.errors import UserError

# What the name of a run's folder may say that it sets, as in ``half-length_fold1_seed1``.
LENGTH = 'train_cfg.max_iters'
NAMED = {'seed': 'randomness.seed', 'iterations': LENGTH}


def check_card(card: dict[str, Any], run: str, source: Path) -> None:
    """Refuse a card whose settings are not those of the config by its name in this project.

    Settings that the folder's name tells may differ. A card of a config that is none of the
    project's, or of one that its data complete (``finetune``), has nothing to be compared with.

    Args:
        card: as ``run_cards.read_run_card``; one of before there were settings passes.
        run: name of its folder.
        source: the card's path, for the message.

    Raises:
        UserError: the first setting that differs, or scores of another run or config.
    """
    cfg = _read_config(card.get('config'))
    if cfg and card.get('settings'):
        _compare(card['settings'], _trained(cfg, card, run), cfg, source)
    for name, scored in card['scores'].items():
        for key in ('config', 'run'):
            if card.get(key) and scored.get(key) and card[key] != scored[key]:
                raise UserError(
                    f'{source}: the scores of {name} are of {key} {scored[key]}, expected '
                    f'{card[key]}, as of the training'
                )
        cfg = _read_config(scored.get('config'))
        if cfg and scored.get('settings'):
            has_views = 'TestTimeAug' in scored['settings'].values()
            _compare(scored['settings'], _tested(cfg, has_views), cfg, source)


def proof(card: dict[str, Any], scored: dict[str, Any]) -> str | None:
    """The commit that a row of the table is of; None where the card proves too little.

    Args:
        card: that ``check_card`` passed.
        scored: one of its ``scores``, empty for a run without.
    """
    is_trained = 'iteration' in card
    if is_trained and ('settings' not in card or card.get('resumed_otherwise')):
        return None
    if scored and 'data_sha256' not in scored:
        return None
    return scored.get('commit') or card.get('commit')


def _read_config(name: str | None) -> Config | None:
    """The project's config of a name; None if it has none, or one that the data complete."""
    path = find_own_config(name) if name else None
    cfg = Config.fromfile(path) if path else None
    return None if cfg and 'finetune' in cfg else cfg


def _trained(cfg: Config, card: dict[str, Any], run: str) -> list[dict[str, Any]]:
    """What a training with a config may set, but for what its card and folder say.

    Where the folder says another length, the schedule may end with it or as in the config.
    """
    cfg = copy.deepcopy(cfg)
    if card.get('from_scratch'):
        config_edits.set_initial_weights(cfg, 'none')
    expected = provenance.settings(cfg, provenance.TRAINING)
    ends = [
        key
        for key, value in expected.items()
        if re.fullmatch(r'param_scheduler\.\d+\.end', key) and value == expected[LENGTH]
    ]
    for kind, number in re.findall(rf'_({"|".join(NAMED)})(\d+)(?=_|$)', run):
        expected[NAMED[kind]] = int(number)
    return [expected, expected | dict.fromkeys(ends, expected[LENGTH])]


def _tested(cfg: Config, has_views: bool) -> list[dict[str, Any]]:
    """What a test with a config may set: with all views or the first of them, or without.

    In a test on data of another kind ``truth_offset`` is left out.
    """
    choices = []
    for every, has_offset in itertools.product((True, False) if has_views else (None,), (1, 0)):
        chosen = copy.deepcopy(cfg)
        if not has_offset:
            leave_out_truth_offset(chosen)
        if every is not None:
            use_views(chosen, Path(cfg.filename), every, others=[])
        choices.append(provenance.test_settings(chosen))
    return choices


def _compare(
    found: dict[str, Any], choices: Sequence[dict[str, Any]], cfg: Config, source: Path
) -> None:
    """Refuse settings that are none of the choices."""
    expected = min(choices, key=lambda one: len(provenance.differing_keys(found, one)))
    keys = provenance.differing_keys(found, expected)
    if cfg.get('fold_colors'):  # which are measured on the images of the fold
        keys = [key for key in keys if not {'target', 'slides'} & set(key.split('.'))]
    if keys:
        more = f' ({len(keys) - 1} more differ)' if len(keys) > 1 else ''
        was, is_now = (one.get(keys[0], 'not set') for one in (found, expected))
        raise UserError(
            f'{source}: {keys[0]} is {was!r}, expected {is_now!r} as in {Path(cfg.filename).name}'
            f'{more}; other settings take a config of their own'
        )
