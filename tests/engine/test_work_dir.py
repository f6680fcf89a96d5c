"""Checkpoints in a work folder: whole, of this run, and never none."""

import json
from pathlib import Path

import pytest
import torch

from nucseg_mmdet.engine.checkpoint import load_weights_only
from nucseg_mmdet.engine.work_dir import (
    WholeFiles,
    check_resumed,
    find_last_checkpoint,
    find_resumed,
    owned_by_this_run,
    read_card,
)
from nucseg_mmdet.evaluation.run_cards import CARD
from nucseg_mmdet.utils.errors import UserError


def save(folder, iteration, run='this'):
    content = dict(meta=dict(iter=iteration, run=run), state_dict=dict(weight=torch.ones(2_000)))
    torch.save(content, folder / f'iter_{iteration}.pth')
    return folder / f'iter_{iteration}.pth'


@pytest.fixture
def work_dir(tmp_path):
    (tmp_path / CARD).write_text(json.dumps(dict(run='this')))
    save(tmp_path, 9)
    save(tmp_path, 10)
    return tmp_path


def test_newest_checkpoint_is_found_without_the_file_last_checkpoint(work_dir):
    (work_dir / 'last_checkpoint').write_text('')  # torn
    assert find_last_checkpoint(work_dir) == work_dir / 'iter_10.pth'


def test_checkpoint_that_is_not_whole_is_passed_over(work_dir):
    path = work_dir / 'iter_10.pth'
    path.write_bytes(path.read_bytes()[:-100])
    assert find_last_checkpoint(work_dir) == work_dir / 'iter_9.pth'


def test_files_that_are_no_checkpoint_by_name_or_content_are_passed_over(work_dir):
    save(work_dir, 30).rename(work_dir / 'iter_30.pth.pth')
    torch.save(dict(state_dict=dict(weight=torch.ones(1)), meta={}), work_dir / 'iter_20.pth')
    torch.save(dict(weight=torch.ones(1), meta=torch.ones(1)), work_dir / 'epoch_21.pth')
    assert find_last_checkpoint(work_dir) == work_dir / 'iter_10.pth'


def test_checkpoints_of_an_earlier_run_are_not_taken(work_dir):
    (work_dir / CARD).write_text(json.dumps(dict(run='new')))
    assert find_last_checkpoint(work_dir) is None
    assert find_last_checkpoint(save(work_dir, 3, 'new').parent) == work_dir / 'iter_3.pth'


def test_checkpoints_that_no_card_speaks_of_are_not_trained_over(work_dir, capsys):
    (work_dir / CARD).write_text(json.dumps(dict(run='new')))
    assert find_resumed(work_dir) is None
    assert 'iter_10.pth, iter_9.pth' in capsys.readouterr().out
    for damage in (
        lambda card: card.write_text('{"run": '),
        lambda card: card.write_text('{"config": "a"}'),
        Path.unlink,
    ):
        damage(work_dir / CARD)
        with pytest.raises(UserError, match=r'has iter_10\.pth, iter_9\.pth and no run_card\.json'):
            find_resumed(work_dir)


def test_only_a_state_of_a_training_is_gone_on_from(tmp_path):
    path, meta = tmp_path / 'a.pth', dict(iter=3, epoch=0, run='this')
    whole = dict(meta=meta, state_dict=dict(a=torch.ones(1)), optimizer={}, message_hub={})
    for change in (
        *(dict(meta={}), dict(optimizer=None), dict(message_hub=None)),
        *(
            dict(meta=dict(meta, **wrong))
            for wrong in (dict(iter='3'), dict(iter=-1), dict(iter=True))
        ),
        dict(meta=dict(iter=3)),
    ):
        torch.save({**whole, **change}, path)
        with pytest.raises(UserError, match=r'a\.pth: has no state of a training'):
            check_resumed(str(path), tmp_path)
    torch.save(whole, path)
    check_resumed(str(path), tmp_path)
    (tmp_path / CARD).write_text(json.dumps(dict(run='this')))
    check_resumed(str(path), tmp_path)
    (tmp_path / CARD).write_text(json.dumps(dict(run='other')))
    with pytest.raises(UserError, match=r'a\.pth: is of run this, expected other as in'):
        check_resumed(str(path), tmp_path)


def test_a_run_goes_on_with_the_data_that_it_began_with(tmp_path):
    path, meta = tmp_path / 'a.pth', dict(iter=3, epoch=0, run='this')
    torch.save(
        dict(meta=meta, state_dict=dict(a=torch.ones(1)), optimizer={}, message_hub={}), path
    )
    card = dict(run='this', annotations='fold1_train.json')
    for known in dict(card), dict(card, data_sha256='one'):
        (tmp_path / CARD).write_text(json.dumps(known))
        check_resumed(str(path), tmp_path, 'one')
    with pytest.raises(UserError, match=r'json: the run was trained on other data \(fold1_train'):
        check_resumed(str(path), tmp_path, 'two')


@pytest.mark.parametrize('text', ['', '{"run": ', '[]', '{"run": ' + '[' * 200_000])
def test_torn_card_is_none(text, tmp_path):
    (tmp_path / CARD).write_text(text)
    assert read_card(tmp_path) == {}


def test_an_old_file_stays_until_the_next_is_written(tmp_path):
    files = WholeFiles()
    files.put(b'one', tmp_path / 'one')
    files.remove(tmp_path / 'one')
    assert (tmp_path / 'one').read_bytes() == b'one'
    WholeFiles().put(b'two', tmp_path / 'two')
    assert [path.name for path in tmp_path.iterdir()] == ['two']


def test_only_old_files_go_and_all_of_them(tmp_path):
    """Also one that is gone already; not the one that was just written again."""
    files = WholeFiles()
    for name in ('one', 'two', 'best'):
        files.put(b'old', tmp_path / name)
    for name in ('one', 'gone', 'two', 'best'):
        files.remove(tmp_path / name)
    files.put(b'new', tmp_path / 'best')
    assert [path.name for path in tmp_path.iterdir()] == ['best']
    assert (tmp_path / 'best').read_bytes() == b'new'


@pytest.mark.parametrize(
    ('launcher', 'name'),
    [
        ('none', None),
        ('pytorch', 'RANK'),
        ('slurm', 'SLURM_PROCID'),
        ('mpi', 'OMPI_COMM_WORLD_RANK'),
    ],
)
def test_the_first_process_of_a_launcher_owns_the_folder(tmp_path, monkeypatch, launcher, name):
    for other in ('RANK', 'SLURM_PROCID', 'OMPI_COMM_WORLD_RANK'):
        monkeypatch.setenv(other, '5')  # left by something else
    if name:
        monkeypatch.setenv(name, '0')
    with owned_by_this_run(tmp_path, launcher):
        expected = pytest.raises(UserError, match='another run writes there')
        with expected, owned_by_this_run(tmp_path, 'none'):
            pass
        if name:
            monkeypatch.setenv(name, '1')
            with owned_by_this_run(tmp_path, launcher):
                pass


def change(path, old, new):
    data = path.read_bytes()
    assert old in data
    path.write_bytes(data.replace(old, new, 1))


WEIGHT = torch.ones(4).numpy().tobytes()
DAMAGES = {
    'changed': lambda path: change(path, WEIGHT, bytes(len(WEIGHT))),
    'cut': lambda path: path.write_bytes(path.read_bytes()[:-1]),
    'NaN': lambda path: torch.save(dict(state_dict=dict(a=torch.tensor([torch.nan]))), path),
    'expanded': lambda path: torch.save(
        dict(state_dict=dict(a=torch.zeros(1).expand(10**12))), path
    ),
    'no weights': lambda path: torch.save(dict(state_dict=None), path),
    'weights by number': lambda path: torch.save(dict(state_dict={1: torch.ones(1)}), path),
}


@pytest.mark.parametrize('name', DAMAGES)
def test_damaged_weights_are_refused(name, tmp_path):
    path = save(tmp_path, 1)
    assert load_weights_only(str(path))['meta']['iter'] == 1
    DAMAGES[name](path)
    with pytest.raises(UserError, match=r'iter_1\.pth'):
        load_weights_only(str(path))
