"""The runs under results/: each card is of the config whose name it bears."""

import json
import re
from pathlib import Path

import pytest
from mmengine.config import Config

ROOT = Path(__file__).parents[1]
CARDS = {
    path.parent.name: card
    for path in sorted(ROOT.glob('results/*/run_card.json'))
    if 'config' in (card := json.loads(path.read_text()))
}


def test_there_are_cards():
    assert len(CARDS) > 10


@pytest.mark.parametrize('name', CARDS)
def test_a_card_is_of_its_config(name):
    """The folder's name says what differs, as ``_seed1`` does, and nothing else may."""
    card = CARDS[name]
    (path,) = ROOT.glob(f'configs/**/{card["config"]}.py')
    cfg = Config.fromfile(path)
    seed = re.search(r'_seed(\d+)$', name)
    expected = dict(
        seed=int(seed[1]) if seed else cfg.randomness.seed,
        max_iterations=cfg.train_cfg.max_iters,
        batch_size=cfg.train_dataloader.batch_size,
    )
    assert {key: card[key] for key in expected} == expected
    assert name.startswith(card['config'])
