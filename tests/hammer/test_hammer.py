"""A fixed part of the hammer, small enough for every run of the tests; `make hammer` runs all."""

import pytest
import torch

from tests.hammer import damaged, faults, hostile

pytestmark = [pytest.mark.hammer, pytest.mark.slow]


@pytest.fixture(autouse=True)
def _one_thread():
    """A fork must not need the threads of its parent."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def failures(verdicts):
    return [verdict for verdict in verdicts if verdict.complaint]


@pytest.mark.parametrize('name', damaged.SUBJECTS)
def test_damaged_files_are_read_rightly_or_refused(name, tmp_path):
    assert failures(damaged.damage(tmp_path, 8, names=[name])) == []


@pytest.mark.parametrize('kind', ['code', 'text', 'array', 'weights', 'link', 'config'])
def test_hostile_files_are_refused_and_do_nothing(kind, tmp_path):
    assert failures(hostile.attack(tmp_path, [kind])) == []


def test_full_disk_leaves_nothing_half_written(tmp_path):
    assert failures(faults.fill(tmp_path)) == []
