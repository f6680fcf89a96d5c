"""The command that repeats the experiments, with tools that only write their files."""

import json
import os
import shutil
import signal

import pytest

from tools.analysis_tools import reproduce

ROOT = reproduce.ROOT
TRAIN = """
import json, pathlib, sys
words = sys.argv
folder = pathlib.Path(words[words.index('--work-dir') + 1])
number = int(next(word for word in words if word.startswith('train_cfg.max_iters=')).split('=')[1])
with open(folder.parent / 'calls.txt', 'a') as calls:
    calls.write(f'train {folder.name} {number}\\n')
if 'e03' in folder.name and 'measured' not in folder.parts:
    print('no such weights\\n')
    sys.exit(2)
steps = folder / 'now/vis_data/scalars.json'
steps.parent.mkdir(parents=True, exist_ok=True)
steps.write_text('{"time": 9.0}\\n{"time": 0.5}\\n{"time": 0.5}\\n')
card = dict(run='a', iteration=number, peak_memory_bytes=10**9, config=folder.name)
(folder / 'run_card.json').write_text(json.dumps(card))
(folder / f'iter_{number}.pth').touch()
"""
TEST = """
import json, pathlib, sys, zipfile
words = sys.argv
folder = pathlib.Path(words[words.index('--work-dir') + 1])
with open(folder.parent / 'calls.txt', 'a') as calls:
    calls.write(f'test {folder.name}\\n')
card = json.loads((folder / 'run_card.json').read_text())
card['scores'] = {'test.json': dict(config=folder.name)}
(folder / 'run_card.json').write_text(json.dumps(card))
with zipfile.ZipFile(folder / 'answer.zip', 'w') as file:
    file.writestr('answer.json', '[]')
"""
SCORE = """
import pathlib, sys
text = '{"scores": {"AP50@100": 0.25}}'
pathlib.Path(sys.argv[sys.argv.index('--json') + 1]).write_text(text)
"""

TRUTH = dict(
    images=[dict(id=1, file_name='a.png', height=9, width=9)],
    annotations=[],
    categories=[dict(id=1, name='nucleus')],
)
STOPPED = """
import os, pathlib, signal, sys, time
def stop(*_):
    pathlib.Path({note!r}).write_text(str(os.getpid()))
    if {obeys}:
        sys.exit(1)
signal.signal(signal.SIGTERM, stop)
os.kill(os.getppid(), signal.SIGTERM)
while True:
    time.sleep(0.1)
"""


@pytest.fixture
def out(tmp_path, monkeypatch):
    """The folder of the experiments, in one where the tools write files and compute nothing."""
    (tmp_path / 'configs').symlink_to(ROOT / 'configs')
    analysis = tmp_path / 'tools/analysis_tools'
    analysis.mkdir(parents=True)
    for name, text in dict(train=TRAIN, test=TEST, score=SCORE).items():
        (tmp_path / f'tools/{name}.py').write_text(text)
    (analysis / 'results_table.py').touch()
    (tmp_path / 'data/annotations').mkdir(parents=True)
    for name in ('annotations/train.json', 'annotations/test.json', 'truth.json'):
        (tmp_path / 'data' / name).write_text(json.dumps(TRUTH))
    monkeypatch.setattr(reproduce, 'ROOT', tmp_path)
    monkeypatch.setattr(reproduce.submission, 'main', lambda arguments: 0)
    return tmp_path / 'out'


def run(out, *arguments):
    given = ['--data-root', out.parent / 'data', '--initial-weights', 'none', '--out', out]
    return reproduce.main([str(word) for word in (*given, *arguments)])


def calls(out):
    return sorted((out / 'calls.txt').read_text().split('\n'))


def folder(out, number):
    return next(out.glob(f'*_e{number:02d}_*'))


def test_each_is_trained_tested_and_scored_once(out, tmp_path, capsys):
    truth = tmp_path / 'data/truth.json'
    assert run(out, 1, 8, '--iterations', 3, '--truth', truth) == 0
    said = capsys.readouterr().out
    assert 'experiment  1: 3 iterations of 0.50 s, 0.0 h, 1.0 GB a process' in said
    made = calls(out)
    assert [call.split()[0] for call in made if call] == ['test', 'test', 'train', 'train']
    card = json.loads((folder(out, 8) / 'run_card.json').read_text())
    assert card['scores']['truth.json']['nuclei/AP50@100'] == 0.25
    assert run(out, 1, 8, '--iterations', 3, '--truth', truth) == 0
    assert calls(out) == made


@pytest.mark.parametrize('obeys', [True, False])
def test_a_training_is_stopped_with_the_command(out, tmp_path, monkeypatch, capsys, obeys):
    note = tmp_path / 'stopped.txt'
    (tmp_path / 'tools/train.py').write_text(STOPPED.format(note=str(note), obeys=obeys))
    monkeypatch.setattr(reproduce, 'PATIENCE', 60 if obeys else 0.5)
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)  # the tests go on
    try:
        assert run(out, 1) == 130
    finally:
        signal.signal(signal.SIGTERM, before)
    assert capsys.readouterr().err == 'reproduce: stopped\n'
    with pytest.raises(ProcessLookupError):
        os.kill(int(note.read_text()), 0)


def test_a_new_checkpoint_makes_the_answer_old(out):
    assert run(out, 1, '--iterations', 3) == 0
    answer = folder(out, 1) / 'answer.zip'
    os.utime(answer, (1, 1))
    assert run(out, 1, '--iterations', 3) == 0
    assert sum('test' in call for call in calls(out)) == 2


def test_the_others_go_on_after_one_that_fails(out, capsys):
    assert run(out, 2, 3, 4, '--iterations', 2) == 1
    assert 'experiment 3: train.py ended with 2, see ' in (said := capsys.readouterr().err)
    assert said.strip().endswith('no such weights')
    assert (folder(out, 4) / 'answer.zip').is_file()


@pytest.mark.parametrize('text', ['[1]', '{"iteration": "3"}', '{', '{"scores": 7}', '[' * 99999])
def test_odd_cards_and_measures_are_none(out, capsys, text):
    assert run(out, 1, '--iterations', 3) == 0
    (folder(out, 1) / 'run_card.json').write_text(text)
    (out / 'measured' / f'{folder(out, 1).name.split("_iter")[0]}/step.json').write_text(text)
    capsys.readouterr()
    assert run(out, 1, '--iterations', 3, '--measure-only') == 0
    assert '3 iterations of 0.50 s' in capsys.readouterr().out


def test_a_step_is_measured_again_where_it_may_take_another_time(out, tmp_path, monkeypatch):
    made = out / 'measured/calls.txt'

    def measured(*options):
        made.unlink(missing_ok=True)
        assert run(out, 1, '--measure-only', *options) == 0
        return made.exists()

    (tmp_path / 'same').symlink_to(tmp_path / 'data')
    shutil.copytree(tmp_path / 'data', tmp_path / 'other')
    assert measured()
    assert not measured('--data-root', tmp_path / 'same')
    assert measured('--data-root', tmp_path / 'other')
    assert measured('--data-root', tmp_path / 'other', '--gpus', 4)
    monkeypatch.setattr(reproduce, 'device', lambda: 'another')
    assert measured('--data-root', tmp_path / 'other', '--gpus', 4)
    assert not measured('--data-root', tmp_path / 'other', '--gpus', 4)


def test_an_answer_of_unknown_origin_is_not_scored(out, tmp_path, capsys):
    assert run(out, 1, '--iterations', 3) == 0
    (folder(out, 1) / 'run_card.json').write_text('{"iteration": 3}')
    assert run(out, 1, '--iterations', 3, '--truth', tmp_path / 'data/truth.json') == 1
    assert 'run_card.json: has no test that made answer.zip' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('arguments', 'problem'),
    [
        ([16], 'experiment 16: expected 1 to 15'),
        ([0], 'experiment 0: expected 1 to 15'),
        ([1, '--iterations', 0], 'expected at least 1'),
        ([1, '--gpus', 0], 'expected at least 1'),
    ],
)
def test_wrong_numbers_are_refused(out, capsys, arguments, problem):
    assert run(out, *arguments) == 2
    assert problem in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize(
    ('name', 'content', 'problem'),
    [
        ('truth.json', None, 'truth.json: No such file or directory, expected a file'),
        ('truth.json', [], 'truth.json: found list, expected a COCO object'),
        ('truth.json', dict(TRUTH, annotations=None), 'annotations is None, expected list'),
        ('annotations/test.json', [dict(id=2, height=9, width=9)], 'truth.json: has no image 2'),
        ('annotations/train.json', None, 'train.json: not there, expected data'),
        ('annotations/test.json', None, 'test.json: not there, expected data'),
    ],
)
def test_truth_and_data_are_checked_first(out, capsys, name, content, problem):
    path = out.parent / 'data' / name
    path.unlink()
    if content is not None:
        path.write_text(json.dumps(content))
    truth = out.parent / 'data/truth.json'
    assert run(out, 1, '--truth', truth, '--measure-only') == 2
    assert problem in capsys.readouterr().err
    assert not out.exists()


def test_a_folder_without_the_weights_is_refused(out, tmp_path, capsys):
    assert run(out, 1, '--initial-weights', tmp_path) == 2
    assert 'R-101.pkl in this folder' in capsys.readouterr().err
