"""The tools as a user calls them: train, resume, test, several processes, wrong input."""

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import cv2
import pytest
import torch

from nucseg_mmdet.commands import report, score, segment, test, train
from nucseg_mmdet.engine.data_edits import check_evaluators
from nucseg_mmdet.utils.errors import UserError
from nucseg_mmdet.utils.ownership import owned_folder
from tools.analysis_tools import browse_data, results_table
from tools.model_converters import detectron2_to_mmdet, publish_model

ROOT = Path(__file__).parents[2]
CONFIG = str(ROOT / 'configs/demo/mask-rcnn_r18_fpn_demo_nuclei.py')
ITERATIONS = 6
# As little as still has every part: two crops an iteration, a checkpoint after each.
TINY = [
    f'train_cfg.max_iters={ITERATIONS}',
    'train_dataloader.batch_size=2',
    'train_dataloader.num_workers=0',
    'train_dataloader.persistent_workers=False',
    'test_dataloader.num_workers=0',
    'test_dataloader.persistent_workers=False',
    'default_hooks.checkpoint.interval=1',
    'default_hooks.checkpoint.max_keep_ckpts=20',
    'default_hooks.logger.interval=1',
]
TESTED = [CONFIG, 'model.pth', '--data-root', 'data']
# One thread, so that sums are made in the same order everywhere.
ENV = {**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': str(ROOT)}
ENV['PATH'] = f'{Path(sys.executable).parent}:{ENV["PATH"]}'


def tool(name, *arguments, **kwargs):
    command = [sys.executable, str(ROOT / 'tools' / f'{name}.py'), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=ENV, **kwargs)


def shell(name, *arguments):
    command = ['bash', str(ROOT / 'tools' / name), *map(str, arguments)]
    env = {**ENV, 'PORT': str(29600 + os.getpid() % 1000)}
    return subprocess.run(command, capture_output=True, text=True, env=env)


def options(data_root, work_dir):
    return ['--data-root', data_root, '--work-dir', work_dir, '--cfg-options', *TINY]


def weights(work_dir, iteration=ITERATIONS):
    path = work_dir / f'iter_{iteration}.pth'
    return torch.load(path, map_location='cpu', weights_only=False)['state_dict']


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@pytest.fixture(scope='module')
def trained(data_root, tmp_path_factory):
    """The work folder of a short training on one process."""
    work_dir = tmp_path_factory.mktemp('work')
    done = tool('train', CONFIG, *options(data_root, work_dir))
    assert done.returncode == 0, done.stderr
    return work_dir


@pytest.mark.parametrize('text', [None, 'no weights'])
def test_weights_that_cannot_be_read_leave_no_folder(data_root, tmp_path, capsys, text):
    path = tmp_path / 'first.pth'
    if text:
        path.write_text(text)
    arguments = [CONFIG, *map(str, options(data_root, tmp_path / 'work')), f'load_from={path}']
    assert train.main(arguments) == 2
    assert capsys.readouterr().err.startswith(f'train: {path}: ')
    assert not (tmp_path / 'work').exists()


def test_training_leaves_card_and_checkpoints(trained):
    card = json.loads((trained / 'run_card.json').read_text())
    assert (card['iteration'], card['max_iterations']) == (ITERATIONS, ITERATIONS)
    assert card['images'] == 5
    assert card['processes'] == 1
    assert card['settings']['train_cfg.max_iters'] == ITERATIONS
    assert (card['precision'], card['resumed_otherwise']) == ('fp32', [])
    assert str(trained) not in json.dumps(card)
    assert len(card['data_sha256']) == 64
    assert not same(weights(trained, 1), weights(trained))


def test_one_training_at_a_time_in_a_work_folder(trained, data_root):
    before = {path: path.stat().st_mtime_ns for path in trained.rglob('*')}
    with owned_folder(trained):
        done = tool('train', CONFIG, *options(data_root, trained))
    assert (done.returncode, done.stderr.count('\n')) == (2, 1), done.stderr
    assert f'{trained}: another run writes there, expected one at a time' in done.stderr
    assert {path: path.stat().st_mtime_ns for path in trained.rglob('*')} == before


def test_a_training_replaces_none_of_an_earlier_one_unless_asked(trained, data_root, tmp_path):
    work_dir = tmp_path / 'work'
    shutil.copytree(trained, work_dir)
    before = {path: path.read_bytes() for path in work_dir.rglob('*') if path.is_file()}
    arguments = [CONFIG, *options(data_root, work_dir)]
    done = tool('train', *arguments)
    assert (done.returncode, done.stderr.count('\n')) == (2, 1), done.stderr
    assert f'{work_dir}: has iter_1.pth, ' in done.stderr
    assert '--resume, another --work-dir, or --overwrite' in done.stderr
    after = {path: path.read_bytes() for path in work_dir.rglob('*') if path.is_file()}
    assert after == before
    both = ['resume=True', f'load_from={work_dir}/iter_1.pth']
    done = tool('train', *arguments, *both)
    assert done.returncode == 2, done.stdout
    assert '--resume, another --work-dir, or --overwrite' in done.stderr
    other = json.loads(before[work_dir / 'run_card.json'])['run']
    done = tool('train', *arguments[:1], '--overwrite', *arguments[1:])
    assert done.returncode == 0, done.stderr
    assert json.loads((work_dir / 'run_card.json').read_text())['run'] != other


def test_a_training_is_not_gone_on_with_on_other_images(trained, data_root, tmp_path):
    """As ``--fold 2 --resume`` in the folder of fold 1: it would learn what fold 1 held out."""
    work_dir = tmp_path / 'work'
    shutil.copytree(trained, work_dir)
    before = {path: path.read_bytes() for path in work_dir.rglob('*') if path.is_file()}
    arguments = options(data_root, work_dir)
    done = tool(
        'train',
        CONFIG,
        '--resume',
        *arguments,
        'train_dataloader.dataset.ann_file=annotations/fold1_train.json',
    )
    assert (done.returncode, done.stderr.count('\n')) == (2, 1), done.stderr
    assert 'run_card.json: the run was trained on other data' in done.stderr
    after = {path: path.read_bytes() for path in work_dir.rglob('*') if path.is_file()}
    assert after == before


@pytest.mark.slow
def test_killed_and_resumed_training_is_the_same(trained, data_root, tmp_path):
    command = [sys.executable, str(ROOT / 'tools/train.py'), CONFIG]
    command += map(str, options(data_root, tmp_path))
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=ENV
    ) as process:
        while not (tmp_path / 'last_checkpoint').is_file():
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
    assert not (tmp_path / f'iter_{ITERATIONS}.pth').is_file()
    done = tool('train', CONFIG, '--resume', *options(data_root, tmp_path))
    assert done.returncode == 0, done.stderr
    assert same(weights(tmp_path), weights(trained))
    card = json.loads((tmp_path / 'run_card.json').read_text())
    assert (card['iteration'], card['resumed_otherwise']) == (ITERATIONS, [])


@pytest.mark.slow
def test_two_processes_end_with_the_same_weights(data_root, tmp_path):
    probe = tmp_path / 'probe.py'
    probe.write_text(
        'import torch\n'
        'from mmengine.hooks import Hook\n'
        'from mmengine.registry import HOOKS\n'
        '@HOOKS.register_module()\n'
        'class SaveEveryRank(Hook):\n'
        '    priority = "LOWEST"\n'
        '    def after_train(self, runner):\n'
        '        state = runner.model.module.state_dict()\n'
        f'        torch.save(state, f"{tmp_path}/rank{{runner.rank}}.pth")\n'
    )
    config = tmp_path / 'config.py'
    config.write_text(
        f'_base_ = {CONFIG!r}\n'
        'custom_imports = dict(imports=[*_base_.custom_imports["imports"], "probe"])\n'
        'custom_hooks = [*_base_.custom_hooks, dict(type="SaveEveryRank")]\n'
    )
    ENV['PYTHONPATH'] = f'{ROOT}:{tmp_path}'
    done = shell('dist_train.sh', config, 2, *options(data_root, tmp_path / 'work'))
    assert done.returncode == 0, done.stderr[-2000:]
    ranks = [torch.load(tmp_path / f'rank{rank}.pth') for rank in (0, 1)]
    assert same(*ranks)
    assert not same(ranks[0], weights(tmp_path / 'work', 1))
    assert json.loads((tmp_path / 'work/run_card.json').read_text())['processes'] == 2


@pytest.fixture(scope='module')
def answer(trained, data_root, tmp_path_factory):
    """answer.json of the trained model on one process, and the overlays beside it."""
    folder = tmp_path_factory.mktemp('answer')
    done = tool(
        *('test', CONFIG, trained / f'iter_{ITERATIONS}.pth', '--format-only'),
        *('--answer', folder / 'answer.json', '--show-dir', folder / 'overlays'),
        *('--show-score-thr', '0', *answer_options(data_root, folder)),
    )
    assert done.returncode == 0, done.stderr
    return folder


def answer_options(data_root, work_dir):
    # A model after six iterations is sure of nothing: take what it has.
    low = ['model.test_cfg.rcnn.score_thr=0.0', 'model.test_cfg.rcnn.max_per_img=20']
    return [*options(data_root, work_dir), *low]


def test_answer_has_every_image_in_order(answer, data_root):
    results = json.loads((answer / 'answer.json').read_text())
    images = json.loads((data_root / 'annotations/test.json').read_text())['images']
    assert list(dict.fromkeys(result['image_id'] for result in results)) == [
        image['id'] for image in images
    ]
    with zipfile.ZipFile(answer / 'answer.zip') as archive:
        assert archive.namelist() == ['answer.json']


def test_overlays_are_as_many_and_twice_as_large(answer, data_root):
    names = sorted(path.name for path in (data_root / 'test').iterdir())
    assert sorted(path.name for path in (answer / 'overlays').iterdir()) == names
    assert cv2.imread(str(answer / 'overlays' / names[0])).shape == (192, 192, 3)


@pytest.mark.slow
@pytest.mark.parametrize('processes', [2, 4])
def test_several_processes_write_the_same_answer(answer, trained, data_root, tmp_path, processes):
    done = shell(
        *('dist_test.sh', CONFIG, trained / f'iter_{ITERATIONS}.pth', processes, '--format-only'),
        *('--answer', tmp_path / 'answer.json', *answer_options(data_root, tmp_path)),
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / 'answer.json').read_text() == (answer / 'answer.json').read_text()


def test_scores_of_a_fold(trained, data_root, tmp_path):
    checkpoint = str(trained / f'iter_{ITERATIONS}.pth')
    arguments = ['--fold', 1, '--data-root', data_root, '--cfg-options', *TINY]
    done = tool('test', CONFIG, checkpoint, *arguments, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    card = tmp_path / 'work_dirs' / f'{Path(CONFIG).stem}_fold1' / 'run_card.json'
    scores = json.loads(card.read_text())['scores']['fold1_val.json']
    assert 0 <= scores['nuclei/AP50'] <= 1
    assert (scores['checkpoint'], scores['score_thr']) == (Path(checkpoint).name, 0.5)
    assert scores['checkpoint_sha256'] == hashlib.sha256(Path(checkpoint).read_bytes()).hexdigest()
    assert scores['run'] == json.loads((trained / 'run_card.json').read_text())['run']


def test_scores_on_any_data(trained, data_root, tmp_path):
    """Truth as another tool writes it, images elsewhere; scored again with no threshold given."""
    truth = json.loads((data_root / 'annotations/fold1_val.json').read_text())
    for image in truth['images']:
        image.update(id=str(image['id']), width=-1, height=None)
    for annotation in truth['annotations']:
        annotation.update(image_id=float(annotation['image_id']), category_id=0)
    truth['categories'] = [dict(id=0, name='Kern')]
    path = tmp_path / 'odd.json'
    path.write_text(json.dumps(truth))
    checkpoint = str(trained / f'iter_{ITERATIONS}.pth')
    arguments = ['--annotations', path, '--images', data_root / 'train', '--work-dir', tmp_path]
    low = ['test_evaluator.score_thr=0.03', 'model.test_cfg.rcnn.score_thr=0.0']
    done = tool('test', CONFIG, checkpoint, *arguments, '--cfg-options', *TINY, *low)
    assert done.returncode == 0, done.stderr
    assert f'{path}: 2 images without width and height' in done.stdout
    card = json.loads((tmp_path / 'run_card.json').read_text())
    (tested,) = card['scores'].values()
    (results,) = tmp_path.glob('*_results.json')
    assert score.main([str(path), str(results), '--json', str(tmp_path / 'scores.json')]) == 2
    # Without the images beside it, the truth says nothing of sizes.
    for image in (data_root / 'train').iterdir():
        (tmp_path / image.name).symlink_to(image)
    assert score.main([str(path), str(results), '--json', str(tmp_path / 'scores.json')]) == 0
    scores = json.loads((tmp_path / 'scores.json').read_text())
    assert scores['score_thr'] == tested['score_thr'] == 0.03
    assert scores['scores']['PQ'] == pytest.approx(tested['nuclei/PQ'], abs=1e-9)


def test_averaged_weights_in_half_precision(data_root, tmp_path):
    """The hook that averages must not swap weights of layers that bfloat16 has changed."""
    config, work_dir = tmp_path / 'averaged.py', tmp_path / 'work'
    config.write_text(
        f"_base_ = '{CONFIG}'\n"
        "custom_hooks = [*_base_.custom_hooks, dict(type='EMAHook', momentum=0.5)]\n"
    )
    short = [*options(data_root, work_dir), 'train_cfg.max_iters=2']
    done = tool('train', config, *short)
    assert done.returncode == 0, done.stderr
    checkpoint = work_dir / 'iter_2.pth'
    done = tool('test', config, checkpoint, '--fold', 1, '--precision', 'bf16', *short)
    assert done.returncode == 0, done.stderr
    done = tool('train', config, '--resume', *short[:-1], 'train_cfg.max_iters=3')
    assert done.returncode == 0, done.stderr
    averaged, resumed = weights(work_dir, 2), weights(work_dir, 3)
    assert averaged.keys() == resumed.keys()
    assert not same(averaged, resumed)


def test_training_images_as_delivered(data_root, tmp_path):
    code = browse_data.main(
        [CONFIG, '--out', str(tmp_path), '--data-root', str(data_root), '--number', '2']
    )
    assert code == 0
    assert len(list(tmp_path.glob('synthetic-train-*.png'))) == 2


class TestWrongInput:
    """One line that names what is wrong, exit code 2."""

    def check(self, capsys, main, arguments, message):
        assert main([str(argument) for argument in arguments]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count('\n') == 1

    def test_no_config(self, capsys):
        self.check(capsys, train.main, ['nowhere.py'], 'train: nowhere.py: no such config')

    @pytest.mark.parametrize(
        ('content', 'message'),
        [
            ("_base_ = './other.py'\n", 'not readable as a config'),
            ('model = nothing\n', "not readable as a config (name 'nothing' is not defined)"),
            ('a = dict(b=1)\nmodel = a.c\n', 'not readable as a config'),
            ('interval = 1\n', 'has no model'),
        ],
    )
    def test_config_of_no_model(self, capsys, tmp_path, content, message):
        config = tmp_path / 'config.py'
        config.write_text(content)
        self.check(capsys, train.main, [config], f'train: {config}: {message}')

    @pytest.mark.parametrize('main', [train.main, test.main, browse_data.main])
    def test_option_that_does_not_fit(self, capsys, tmp_path, main):
        arguments = [CONFIG, '--cfg-options', 'train_dataloader.dataset.pipeline.19.type=Crop']
        if main is browse_data.main:
            arguments += ['--out', tmp_path]
        message = '--cfg-options train_dataloader.dataset.pipeline.19.type: does not fit'
        self.check(capsys, main, arguments, message)
        arguments[2] = 'seed'
        self.check(capsys, main, arguments, '--cfg-options seed: expected KEY=VALUE')

    @pytest.mark.parametrize('main', [train.main, test.main, browse_data.main])
    def test_folder_where_a_file_is(self, capsys, data_root, tmp_path, main):
        (tmp_path / 'file').touch()
        folder = tmp_path / 'file/folder'
        option = '--out' if main is browse_data.main else '--work-dir'
        arguments = [CONFIG, '--data-root', data_root, option, folder]
        if main is test.main:
            (tmp_path / 'model.pth').touch()
            arguments[1:1] = [tmp_path / 'model.pth', '--format-only']
        self.check(capsys, main, arguments, f'{folder}: no folder for results (Not a directory)')

    def test_truth_of_an_evaluator_is_missing(self, data_root, tmp_path):
        config = tmp_path / 'other.py'
        config.write_text(f'_base_ = {str(ROOT / CONFIG)!r}\n')
        cfg = test.config_edits.load_config(config, {}, tmp_path)
        test.config_edits.set_data_root(cfg, data_root)
        test.folds.hold_out_fold(cfg, 1)
        cfg.test_evaluator.ann_file = f'{tmp_path}/nowhere.json'
        with pytest.raises(UserError, match=r'nowhere\.json: No such file'):
            check_evaluators(cfg)

    def test_truth_to_validate_on_is_missing(self, capsys, data_root, tmp_path):
        config = tmp_path / 'other.py'
        config.write_text(
            f'_base_ = {CONFIG!r}\nnew = dict(_delete_=True)\n'
            'val_dataloader = dict(new, **_base_.test_dataloader)\n'
            f"val_evaluator = dict(new, type='NucleiMetric', ann_file='{tmp_path}/nowhere.json')\n"
            "val_cfg = dict(new, type='ValLoop')\n"
        )
        arguments = [config, '--data-root', data_root, '--work-dir', tmp_path / 'work']
        self.check(capsys, train.main, arguments, f'{tmp_path}/nowhere.json: No such file')

    def test_annotations_with_other_options(self, capsys, tmp_path):
        self.check(capsys, test.main, [CONFIG, '--images', tmp_path], 'goes with --annotations')
        arguments = [CONFIG, '--annotations', tmp_path / 'a.json', '--fold', 1]
        self.check(capsys, test.main, arguments, 'a.json: goes without --fold')

    def test_an_answer_has_one_class(self, capsys, data_root, tmp_path):
        config = tmp_path / 'two.py'
        config.write_text(
            f'_base_ = {str(ROOT / CONFIG)!r}\n'
            "test_dataloader = dict(dataset=dict(metainfo=dict(classes=('a', 'b'))))\n"
        )
        (tmp_path / 'model.pth').touch()
        arguments = [config, tmp_path / 'model.pth', '--format-only', '--data-root', data_root]
        self.check(capsys, test.main, arguments, 'two.py: has 2 classes, expected one')

    @pytest.mark.parametrize(
        ('main', 'arguments'),
        [
            (test.main, [CONFIG, '--format-only', '--answer']),
            (test.main, [CONFIG, '--out']),
            (score.main, ['nowhere.json', 'nowhere.json', '--json']),
            (report.main, ['nowhere', '--out']),
            (results_table.main, ['nowhere', '--csv']),
            (publish_model.main, ['nowhere.pth']),
            (detectron2_to_mmdet.main, ['nowhere.pkl']),
        ],
    )
    def test_place_of_the_result_comes_first(self, capsys, tmp_path, main, arguments):
        for name, make, message in (
            ('a.pkl', Path.mkdir, 'is a folder, expected the file to write'),
            ('b.pkl', os.mkfifo, 'is a pipe, expected a place for a file'),
        ):
            make(tmp_path / name)
            self.check(capsys, main, [*arguments, tmp_path / name], f'{tmp_path}/{name}: {message}')
        (tmp_path / 'file').touch()
        arguments = [*arguments, tmp_path / 'file/c.pkl']
        self.check(capsys, main, arguments, f': {tmp_path}/file')
        assert sorted(path.name for path in tmp_path.iterdir()) == ['a.pkl', 'b.pkl', 'file']

    @pytest.mark.parametrize(
        ('main', 'arguments'),
        [
            (publish_model.main, ['model.pth', 'model.pth']),
            (detectron2_to_mmdet.main, ['model.pth', 'link.pth']),
            (browse_data.main, [CONFIG, '--data-root', 'data', '--out', 'data/train']),
            (test.main, [*TESTED, '--format-only', '--answer', 'data/annotations/test.json']),
            (test.main, [*TESTED, '--format-only', '--show-dir', 'data/train/../test']),
            (test.main, [*TESTED, '--fold', '1', '--out', 'model.pkl']),
            (score.main, ['truth.json', 'model.pth', '--json', 'truth.json']),
            (
                score.main,
                ['truth.json', 'data/annotations', '--json', 'data/annotations/test.json'],
            ),
        ],
    )
    def test_nothing_that_is_read_is_written_over(
        self, capsys, random_model, data_root, tmp_path, monkeypatch, main, arguments
    ):
        monkeypatch.chdir(tmp_path)
        shutil.copytree(data_root, 'data')
        shutil.copy('data/annotations/train.json', 'truth.json')
        shutil.copy(random_model[1], 'model.pth')
        for name in ('link.pth', 'model.pkl'):
            Path(name).symlink_to('model.pth')
        before = {path: path.read_bytes() for path in Path().rglob('*') if path.is_file()}
        message = f'{arguments[-1]}: is read as well, expected another place'
        self.check(capsys, main, arguments, message)
        assert before == {path: path.read_bytes() for path in Path().rglob('*') if path.is_file()}

    def test_a_file_is_not_the_folder_of_pictures(self, capsys, tmp_path):
        arguments = [CONFIG, '--out', tmp_path / 'a.pkl', '--show-dir', tmp_path / 'x/../a.pkl']
        self.check(capsys, test.main, arguments, 'a.pkl: is a file that is asked for, expected a')
        assert list(tmp_path.iterdir()) == []

    def test_an_answer_does_not_take_the_place_of_the_card(
        self, capsys, random_model, data_root, tmp_path
    ):
        arguments = [CONFIG, random_model[1], '--data-root', data_root, '--work-dir', tmp_path]
        arguments += ['--format-only', '--answer', tmp_path / 'x/../run_card.json']
        self.check(capsys, test.main, arguments, 'run_card.json: is where the run card goes')
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize(
        ('main', 'arguments', 'message'),
        [
            (report.main, ['nowhere', '--out', 'run_card.json'], 'ends with .html'),
            (results_table.main, ['nowhere', '--csv', 'results.md'], 'ends with .csv'),
            (test.main, [CONFIG, '--format-only', '--answer', 'a.zip'], 'expected a .json file'),
        ],
    )
    def test_name_of_a_result_has_its_ending(self, capsys, tmp_path, main, arguments, message):
        arguments = [*arguments[:-1], tmp_path / arguments[-1]]
        self.check(capsys, main, arguments, f'{arguments[-1]}: expected')
        self.check(capsys, main, arguments, message)

    @pytest.mark.parametrize(
        ('main', 'arguments', 'name'),
        [
            (detectron2_to_mmdet.main, ['nowhere.pkl'], 'new/a.pth'),
            (test.main, ['nowhere.py', '--out'], 'new/a.pkl'),
            (test.main, ['nowhere.py', '--format-only', '--answer'], 'new/answer.json'),
            (test.main, ['nowhere.py', '--show-dir'], 'new'),
            (segment.main, [__file__, '--out'], 'new/deep'),
        ],
    )
    def test_wrong_input_leaves_no_folder(self, capsys, tmp_path, main, arguments, name):
        assert main([*arguments, str(tmp_path / name)]) == 2
        assert capsys.readouterr().err
        assert list(tmp_path.iterdir()) == []

    def test_numbers_out_of_range(self, capsys, tmp_path):
        message = '--show-score-thr 7.0: expected 0 to 1'
        self.check(capsys, test.main, [CONFIG, '--show-score-thr', 7], message)
        arguments = [CONFIG, '--out', tmp_path, '--number', 0]
        self.check(capsys, browse_data.main, arguments, '--number 0: expected 1 or more')
        arguments = [tmp_path, tmp_path, '--score-thr', 'nan']
        self.check(capsys, score.main, arguments, '--score-thr nan: expected 0 to 1')

    def test_no_data(self, capsys, tmp_path):
        arguments = [CONFIG, '--data-root', tmp_path]
        self.check(capsys, train.main, arguments, f'{tmp_path}/annotations/train.json: not there')

    @pytest.mark.parametrize('main', [train.main, test.main])
    @pytest.mark.parametrize(
        ('fold', 'message'),
        [
            (0, '--fold 0: folds count from 1'),
            (-1, '--fold -1: folds count from 1'),
            (9, 'annotations/fold9_'),
        ],
    )
    def test_no_such_fold(self, capsys, tmp_path, main, fold, message):
        weights = tmp_path / 'a.pth'
        weights.touch()
        arguments = [CONFIG, *[weights] * (main is test.main), '--fold', fold]
        arguments += ['--data-root', tmp_path]
        self.check(capsys, main, arguments, message)

    @pytest.mark.parametrize('main', [train.main, test.main])
    @pytest.mark.parametrize(
        ('folds', 'message'),
        [
            (4, '--fold 9: expected 1 to 4, the folds of {root}'),
            (0, '--fold 9: {root} has no folds, which nucseg prepare makes of 4 images or more'),
        ],
    )
    def test_no_such_fold_of_data(self, capsys, tmp_path, main, folds, message):
        (tmp_path / 'annotations').mkdir()
        names = ['train.json', *(f'fold{fold}_val.json' for fold in range(1, folds + 1))]
        for name in names:
            (tmp_path / 'annotations' / name).touch()
        weights = tmp_path / 'a.pth'
        weights.touch()
        arguments = [CONFIG, *[weights] * (main is test.main), '--fold', 9]
        arguments += ['--data-root', tmp_path]
        self.check(capsys, main, arguments, message.format(root=tmp_path))

    @pytest.mark.parametrize(
        ('content', 'message'),
        [
            ('{"images": [{"id"', 'train.json: found no valid JSON'),
            ('[]', 'train.json: found list, expected a COCO object'),
        ],
    )
    def test_broken_annotations(self, capsys, tmp_path, content, message):
        (tmp_path / 'annotations').mkdir()
        (tmp_path / 'train').mkdir()
        (tmp_path / 'annotations/train.json').write_text(content)
        self.check(capsys, train.main, [CONFIG, '--data-root', tmp_path], message)

    @pytest.mark.parametrize(
        ('option', 'message'),
        [
            ('model.type=NoSuchRCNN', 'no run can be made of it, KeyError: '),
            ('train_dataloader.dataset.pipeline=x', 'no run can be made of it, TypeError: '),
        ],
    )
    def test_config_that_does_not_fit(self, capsys, data_root, tmp_path, option, message):
        arguments = [CONFIG, *options(data_root, tmp_path), option, '--initial-weights', 'none']
        self.check(capsys, train.main, arguments, message)

    def test_no_initial_weights(self, capsys, data_root, monkeypatch, tmp_path):
        monkeypatch.setenv('TORCH_HOME', str(tmp_path))
        config = ROOT / 'configs/vrdl/mask-rcnn_r101_fpn_e08_vrdl.py'
        arguments = [config, '--data-root', data_root]
        message = 'resnet101_caffe are not on this machine: --initial-weights FILE'
        self.check(capsys, train.main, arguments, message)

    def test_no_checkpoint(self, capsys, data_root):
        arguments = [CONFIG, 'nowhere.pth', '--format-only', '--data-root', data_root]
        self.check(capsys, test.main, arguments, 'nowhere.pth: no such checkpoint')

    def test_nothing_to_score(self, capsys, trained, data_root):
        arguments = [CONFIG, trained / 'iter_1.pth', '--data-root', data_root]
        self.check(capsys, test.main, arguments, 'test.json: has no nuclei to score against')

    def test_checkpoint_of_another_model(self, capsys, data_root, tmp_path):
        torch.save(dict(state_dict=dict(weight=torch.ones(1))), tmp_path / 'other.pth')
        arguments = [CONFIG, tmp_path / 'other.pth', '--format-only', '--data-root', data_root]
        arguments += ['--work-dir', tmp_path]
        assert test.main([str(argument) for argument in arguments]) == 2
        assert 'other.pth: does not fit this config' in capsys.readouterr().err
        assert not (tmp_path / 'answer.json').exists()
