"""What a run card says to prove its row."""

import hashlib
import json
import subprocess

import pytest
from mmengine.config import Config

from nucseg_mmdet import __version__
from nucseg_mmdet.engine import provenance


def test_settings_are_flat_plain_and_without_places():
    cfg = Config(
        dict(
            model=dict(
                backbone=dict(depth=18, init_cfg=dict(checkpoint='/home/me/weights.pth')),
                heads=[dict(scale=(2, 4)), None],
                empty={},
            ),
            train_dataloader=dict(num_workers=2, dataset=dict(data_root='/home/me', ann_file='a')),
            optim_wrapper=dict(type='AmpOptimWrapper', optimizer=dict(lr=0.1)),
            custom_hooks=[dict(type='RunCardHook'), dict(type='EMAHook', momentum=float('inf'))],
            param_scheduler=None,
            work_dir='/home/me/work',
        )
    )
    found = provenance.settings(cfg, provenance.TRAINING)
    assert found == {
        'model.backbone.depth': 18,
        'model.heads.0.scale': [2, 4],
        'model.heads.1': None,
        'model.empty': {},
        'optim_wrapper.optimizer.lr': 0.1,
        'custom_hooks.0.type': 'EMAHook',
        'custom_hooks.0.momentum': 'inf',
    }
    assert json.loads(json.dumps(found)) == found
    assert provenance.precision(cfg) == 'fp16'


def test_keys_that_differ_or_are_missing():
    found, expected = dict(a=1, b=None, c=3), dict(a=1, c=4, d=None)
    assert provenance.differing_keys(found, expected) == ['b', 'c', 'd']


@pytest.mark.parametrize(
    ('argument', 'expected'),
    [
        ('{here}/work_dirs/a', 'work_dirs/a'),
        ('/home/me/big/data', 'data'),
        ('../elsewhere/data', 'data'),
        ('open-mmlab://resnet18', 'open-mmlab://resnet18'),
    ],
)
def test_paths_say_nothing_of_the_machine(tmp_path, monkeypatch, argument, expected):
    monkeypatch.chdir(tmp_path)
    assert provenance.short_path(argument.format(here=tmp_path)) == expected


def test_command_without_folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    argv = [f'{tmp_path}/tools/train.py', 'a.py', '--work-dir', '/home/me/b', 'load_from=/x/c.pth']
    expected = 'tools/train.py a.py --work-dir b load_from=c.pth'
    assert provenance.command(argv) == expected


@pytest.fixture
def checkout(tmp_path):
    def git(*arguments):
        command = ['git', '-C', str(tmp_path), '-c', 'user.name=a', '-c', 'user.email=a@b']
        return subprocess.run([*command, *arguments], check=True, capture_output=True, text=True)

    (tmp_path / 'configs').mkdir()
    (tmp_path / 'configs/a.py').write_text('a = 1\n')
    (tmp_path / 'pyproject.toml').touch()
    git('init')
    git('add', '.')
    git('commit', '-m', 'first')
    return tmp_path, git('rev-parse', 'HEAD').stdout.strip()


@pytest.mark.parametrize(
    ('changed', 'content', 'end'),
    [
        ('README.md', 'text', ''),
        ('configs/a.py', 'a = 1\n', ''),
        ('configs/a.py', 'a = 2\n', '+changes'),
        ('configs/new.py', '', '+changes'),
    ],
)
def test_commit_of_a_checkout(checkout, changed, content, end):
    root, head = checkout
    (root / changed).write_text(content)
    assert provenance.commit(root) == head + end


def test_version_where_there_is_no_checkout(checkout):
    root, _ = checkout
    (root / 'pyproject.toml').unlink()  # a package that is installed in a repository of others
    assert provenance.commit(root) == f'version {__version__}'
    (root / 'none').mkdir()
    (root / 'none/pyproject.toml').touch()
    assert len(provenance.commit(root / 'none')) >= 40  # a folder of a repository


@pytest.fixture
def dataloader(tmp_path):
    root = tmp_path / 'data'
    (root / 'train').mkdir(parents=True)
    (root / 'train/a.png').write_bytes(b'12345')
    (root / 'train.json').write_text(json.dumps(dict(images=[dict(file_name='a.png')])))
    dataset = dict(data_root=str(root), ann_file='train.json', data_prefix=dict(img='train/'))
    return Config(dict(loader=dict(dataset=dataset))).loader, root


def test_data_digest(dataloader):
    loader, root = dataloader
    content = (root / 'train.json').read_bytes() + b'["a.png", 5]'
    expected = hashlib.sha256(content).hexdigest()
    assert provenance.digest_dataloader(loader) == expected
    moved = root.rename(root.with_name('moved'))
    loader.dataset.data_root = str(moved)
    assert provenance.digest_dataloader(loader) == expected


@pytest.mark.parametrize(
    ('name', 'content'),
    [('train/a.png', '123456'), ('train.json', '{"images": [ {"file_name": "a.png"}]}')],
)
def test_data_digest_of_other_data(dataloader, name, content):
    loader, root = dataloader
    before = provenance.digest_dataloader(loader)
    (root / name).write_text(content)
    assert provenance.digest_dataloader(loader) != before


def test_data_digest_without_annotations():
    assert provenance.digest_dataloader(None) is None


def test_digest_of_weights(tmp_path):
    path = tmp_path / 'a.pth'
    path.write_bytes(b'weights')
    assert provenance.digest(path) == hashlib.sha256(b'weights').hexdigest()
    assert provenance.digest(tmp_path / 'b.pth') is None
    assert provenance.digest('none') is None
    assert provenance.digest('odd://a') is None
