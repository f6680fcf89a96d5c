"""The default model trained on, on a few fields."""

import glob
import json
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from mmengine.config import Config

from nucseg_mmdet import cli
from nucseg_mmdet.commands import train
from nucseg_mmdet.engine import config_edits, finetune, model_zoo
from nucseg_mmdet.structures.polygons import mask_to_polygons
from nucseg_mmdet.synthetic import fields
from nucseg_mmdet.utils.errors import UserError

ROOT = Path(__file__).parents[2]
PAGE = ROOT / 'docs/finetune.md'
CONFIG = model_zoo.find_file('configs/finetune/mask-rcnn_r18-c4_fpn_finetune_nuclei.py')


def write_truth(folder, counts):
    """Annotations of images with so many nuclei each."""
    (folder / 'annotations').mkdir(parents=True)
    owners = [number for number, count in enumerate(counts, start=1) for _ in range(count)]
    size = dict(width=30, height=20)
    shape = dict(bbox=[1, 1, 4, 4], area=16, iscrowd=0, segmentation=[[1, 1, 5, 1, 5, 5, 1, 5]])
    truth = dict(
        images=[
            dict(id=number, file_name=f'{number}.png', **size)
            for number in range(1, len(counts) + 1)
        ],
        annotations=[
            dict(id=number, image_id=owner, category_id=1, **shape)
            for number, owner in enumerate(owners, start=1)
        ],
        categories=[dict(id=1, name='nucleus')],
    )
    (folder / 'annotations/train.json').write_text(json.dumps(truth))
    return folder


@pytest.mark.parametrize(
    ('fields', 'iterations', 'fold'), [(1, 100, 0), (3, 100, 0), (4, 100, 1), (40, 1_000, 1)]
)
def test_the_recipe_follows_from_the_number_of_fields(tmp_path, fields, iterations, fold):
    cfg = Config.fromfile(CONFIG)
    config_edits.set_data_root(cfg, write_truth(tmp_path, [2] * fields + [0, 0]))
    recipe = finetune.fit_to_data(cfg)
    assert (recipe.iterations, recipe.fold) == (iterations, fold)
    assert cfg.train_cfg.max_iters == iterations
    assert cfg.default_hooks.checkpoint.interval == iterations  # docs/finetune.md: iter_*.pth
    assert cfg.optim_wrapper.optimizer.lr == recipe.lr
    assert [step.end for step in cfg.param_scheduler] == [iterations // 10, iterations]
    assert cfg.load_from == str(model_zoo.model_files('dense-r18')[1])
    held_out = 'annotations/fold1_train.json' if fold else 'annotations/train.json'
    assert cfg.train_dataloader.dataset.ann_file == held_out
    assert (cfg.val_dataloader is None) == (not fold)


def test_what_the_user_gives_holds(tmp_path):
    options = {'finetune.iterations': 30, 'finetune.lr': 1e-3, 'finetune.fold': 0}
    cfg = config_edits.load_config(CONFIG, options, tmp_path)
    config_edits.set_data_root(cfg, write_truth(tmp_path / 'a', [5] * 8))
    assert finetune.fit_to_data(cfg) == finetune.Recipe(30, 1e-3, 0)
    assert finetune.fit_to_data(cfg, fold=3).fold == 3
    assert cfg.train_dataloader.dataset.ann_file == 'annotations/fold3_train.json'


def test_weights_of_the_user_are_trained_on_and_checkpoints_kept(tmp_path):
    options = {'load_from': 'mine.pth', 'default_hooks.checkpoint.interval': 20}
    options |= {'param_scheduler.1.eta_min': 1e-6}
    finetune.check_options(options)
    cfg = config_edits.load_config(CONFIG, options, tmp_path)
    config_edits.set_data_root(cfg, write_truth(tmp_path / 'a', [5] * 8))
    finetune.fit_to_data(cfg, options=options)
    assert cfg.load_from == 'mine.pth'
    assert cfg.default_hooks.checkpoint.interval == 20
    assert cfg.param_scheduler[1].eta_min == 1e-6


@pytest.mark.parametrize(
    ('option', 'instead'),
    [
        ('train_cfg.max_iters=40', 'iterations'),
        ('param_scheduler.0.end=40', 'iterations'),
        ('param_scheduler.1.end=40', 'iterations'),
        ('optim_wrapper.optimizer.lr=1e-5', 'lr'),
    ],
)
def test_what_would_be_set_to_something_else_is_refused(tmp_path, capsys, option, instead):
    data = str(write_truth(tmp_path / 'a', [5] * 8))
    assert train.main(['finetune', '--data', data, '--cfg-options', option]) == 2
    assert f'follows from finetune.{instead}, expected that' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('options', 'told'),
    [
        (
            ['finetune.iteration=50'],
            'finetune.iteration: expected finetune.model, finetune.iterations, ',
        ),
        (
            ['finetune.fold=3', '--fold', '2'],
            '--fold 2, --cfg-options finetune.fold=3: expected one',
        ),
        (['finetune.fold=1.5'], 'finetune.fold=1.5: expected the number of a fold'),
        (['finetune.fold=9'], '--fold 9: '),
    ],
)
def test_options_that_cannot_be_followed_are_refused_before_all(tmp_path, capsys, options, told):
    data = str(write_truth(tmp_path / 'a', [5] * 8))
    assert train.main(['finetune', '--data', data, '--cfg-options', *options]) == 2
    said = capsys.readouterr()
    assert told in said.err
    assert 'is held out' not in said.out


@pytest.mark.parametrize(
    ('option', 'problem'),
    [
        ('finetune.model=5', 'finetune.model=5: expected the name of a model\n'),
        ('finetune.fold=True', 'finetune.fold=True: expected the number of a fold, or 0 for '),
    ],
)
def test_what_is_no_name_and_no_number_is_refused(tmp_path, capsys, option, problem):
    data = str(write_truth(tmp_path / 'a', [5] * 8))
    assert train.main(['finetune', '--data', data, '--cfg-options', option]) == 2
    assert capsys.readouterr().err.startswith(f'train: {problem}')


@pytest.mark.parametrize('rate', [0, -1e-4, 5, 'fast'])
def test_odd_rates_are_refused(tmp_path, rate):
    cfg = Config.fromfile(CONFIG)
    cfg.finetune.lr = rate
    config_edits.set_data_root(cfg, write_truth(tmp_path, [5] * 8))
    with pytest.raises(UserError, match=f'finetune.lr={rate}: expected a number between 0 and 1'):
        finetune.fit_to_data(cfg)


@pytest.mark.parametrize(
    'content', [[], dict(images=[]), dict(images=[], annotations=[dict(id=1)], categories=[])]
)
def test_what_is_no_truth_is_refused_by_its_name(tmp_path, capsys, content):
    path = write_truth(tmp_path / 'a', [5]) / 'annotations/train.json'
    path.write_text(json.dumps(content))
    assert train.main(['finetune', '--data', str(tmp_path / 'a')]) == 2
    assert capsys.readouterr().err.startswith(f'train: {path}: ')


@pytest.mark.parametrize('iterations', [0, 1, 9, -20, 30.5, 'many'])
def test_too_few_iterations_are_refused(tmp_path, iterations):
    cfg = Config.fromfile(CONFIG)
    cfg.finetune.iterations = iterations
    config_edits.set_data_root(cfg, write_truth(tmp_path, [5] * 8))
    with pytest.raises(UserError, match=f'iterations={iterations}: expected a number from 10 on'):
        finetune.fit_to_data(cfg)


def test_data_without_nuclei_is_refused(tmp_path):
    cfg = Config.fromfile(CONFIG)
    config_edits.set_data_root(cfg, tmp_path / 'missing')
    with pytest.raises(UserError, match=r'not there; nucseg prepare makes the data'):
        finetune.fit_to_data(cfg)
    config_edits.set_data_root(cfg, write_truth(tmp_path / 'a', [0, 0]))
    with pytest.raises(UserError, match='no nucleus in it'):
        finetune.fit_to_data(cfg)


def as_qupath(labels):
    """The nuclei as annotations, and a region around all of them."""

    def annotation(ring, name):
        shape = dict(type='Polygon', coordinates=[[*ring, ring[0]]])
        kind = dict(name=name, color=[0, 0, 0])
        return dict(
            type='Feature',
            geometry=shape,
            properties=dict(objectType='annotation', classification=kind),
        )

    height, width = labels.shape
    corners = [[0, 0], [width, 0], [width, height], [0, height]]
    rings = [
        np.reshape(mask_to_polygons(labels == number)[0], (-1, 2)).tolist()
        for number in range(1, labels.max() + 1)
    ]
    features = [annotation(corners, 'Region*'), *(annotation(ring, 'Nucleus') for ring in rings)]
    return dict(type='FeatureCollection', features=features)


def documented_commands():
    """The words of each command of docs/finetune.md, without `nucseg`."""
    block = PAGE.read_text(encoding='utf-8').partition('```bash\n')[2].partition('```')[0]
    lines = block.replace('\\\n', ' ').splitlines()
    commands = [shlex.split(line, comments=True) for line in lines]
    return [words[1:] for words in commands if words]


def shortened(words):
    """A command for fields of 160 px and the time of a test: a tenth of the recipe's length."""
    if words[0] == 'prepare':
        words = [*words, '--workers', '1']
    if words[0] in ('train', 'test'):
        words = [*words, *([] if '--cfg-options' in words else ['--cfg-options'])]
        words += [f'{words[0]}_dataloader.num_workers=0']
        words += [f'{words[0]}_dataloader.persistent_workers=False']
    if words[0] == 'train':
        words += ['test_dataloader.num_workers=0', 'test_dataloader.persistent_workers=False']
        words += ['finetune.iterations=20', 'finetune.lr=5e-4', 'train_dataloader.batch_size=2']
    return ['0,0,160,160' if word == '20000,12000,4000,4000' else word for word in words]


def run_as_shell(words):
    """Run a command as a shell would, with its patterns; the viewer until it has an address."""
    words = [one for word in words for one in (sorted(glob.glob(word)) or [word])]
    if words[0] != 'view':
        assert cli.main(words) == 0, words
        return
    command = [sys.executable, '-m', 'nucseg_mmdet.cli', *words]
    env = {**os.environ, 'PYTHONPATH': str(ROOT)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env) as server:
        assert server.stdout.readline().startswith('4 slides: http://127.0.0.1:')
        server.send_signal(signal.SIGINT)
        assert server.wait(60) == 0


@pytest.mark.slow
def test_the_ten_commands_teach_a_new_color(tmp_path, monkeypatch):
    """docs/finetune.md, on made-up slides whose stroma is green and whose nuclei are brown."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, 'argv', ['nucseg'])  # the commands change it
    for folder in ('slides', 'corrected'):
        Path(folder).mkdir()
    for number in range(4):
        image, labels = fields.synthesize(100 + number, 160, 160)
        brown = np.ascontiguousarray(image[..., [2, 0, 1]])
        tags = dict(resolution=(40_000, 40_000), resolutionunit='CENTIMETER')  # 0.25 microns a px
        tifffile.imwrite(f'slides/field{number}.tif', brown, photometric='rgb', **tags)
        truth = json.dumps(as_qupath(labels))
        Path(f'corrected/field{number}.geojson').write_text(truth)
    commands = documented_commands()
    assert [words[0] for words in commands] == [
        *('segment', 'view', 'prepare', 'test', 'train', 'test', 'report', 'train'),
        *('segment', 'view'),
    ]
    for words in commands:
        run_as_shell(shortened(words))

    before, after = (
        json.loads(Path(folder, 'run_card.json').read_text())['scores']['fold1_val.json']
        for folder in ('work_dirs/before', 'work_dirs/mine')
    )
    assert after['nuclei/PQ'] > before['nuclei/PQ'] + 0.05, (before, after)
    found = {path.name for path in Path('second').glob('*.geojson')}
    assert found == {f'field{number}.geojson' for number in range(4)}
