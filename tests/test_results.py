"""The runs under results/: each card is of the config whose name it bears."""

import re
from pathlib import Path

import pytest
from mmengine.config import Config

from nucseg_mmdet.engine import card_check
from nucseg_mmdet.evaluation.run_cards import read_run_card

ROOT = Path(__file__).parents[1]
PATHS = {path.parent.name: path for path in sorted(ROOT.glob('results/*/run_card.json'))}


def check(name, card):
    """The folder's name says what differs, as ``_seed1`` does, and nothing else may.

    Cards of before they had settings tell three of them.
    """
    card_check.check_card(card, name, PATHS[name])
    if 'config' not in card:  # a test alone
        return
    (path,) = ROOT.glob(f'configs/**/{card["config"]}.py')
    cfg = Config.fromfile(path)
    said = dict(re.findall(r'_(seed|iterations)(\d+)(?=_|$)', name))
    expected = dict(
        seed=int(said.get('seed', cfg.randomness.seed)),
        max_iterations=int(said.get('iterations', cfg.train_cfg.max_iters)),
        batch_size=cfg.train_dataloader.batch_size,
    )
    assert {key: card[key] for key in expected} == expected
    assert name.startswith(card['config'])


def test_there_are_cards():
    assert len(PATHS) > 10


@pytest.mark.parametrize('name', PATHS)
def test_a_card_is_of_its_config(name):
    check(name, read_run_card(PATHS[name]))


@pytest.mark.parametrize('name', PATHS)
def test_a_card_names_no_folder_of_a_machine(name):
    assert not re.search(r'"\.?\.?/|[ =]/|/home/', PATHS[name].read_text())


@pytest.mark.parametrize('wrong', [dict(seed=9), dict(max_iterations=9), dict(config='half-width')])
def test_a_wrong_card_is_found(wrong):
    name = 'half-length_fold1_seed1'
    card = dict(read_run_card(PATHS[name]), **wrong)
    with pytest.raises(AssertionError):
        check(name, card)
