"""Which model segment takes, whatever lies in the folder that it is started in."""

from pathlib import Path

import pytest

from nucseg_mmdet.commands.segment import model_options, parse_args
from nucseg_mmdet.engine.model_zoo import find_file, model_files


def files_of(*options):
    found = model_options(parse_args(['a.png', '--out', 'out', *options]))
    return model_files(found['config'], found['checkpoint'])


@pytest.mark.parametrize(
    ('name', 'options', 'config'),
    [
        ('dense-lite0', ['--model', 'dense-lite0'], 'dense/mask-rcnn_lite0_fpn_dense_nuclei.py'),
        (
            'finetune',
            ['--config', 'finetune', '--checkpoint', 'mine.pth'],
            'finetune/mask-rcnn_r18-c4_fpn_finetune_nuclei.py',
        ),
    ],
)
def test_a_folder_of_the_name_of_a_model_is_no_config(tmp_path, monkeypatch, name, options, config):
    """Such as the results of a run with ``--model dense-lite0 --out dense-lite0``."""
    monkeypatch.chdir(tmp_path)
    Path(name).mkdir()
    Path('mine.pth').touch()
    assert files_of(*options)[0] == find_file(f'configs/{config}')


def test_files_are_named_by_their_whole_path(tmp_path, monkeypatch):
    """Workers start in other folders."""
    monkeypatch.chdir(tmp_path)
    Path('mine.py').touch()
    Path('mine.pth').touch()
    found = files_of('--config', 'mine.py', '--checkpoint', 'mine.pth')
    assert found == (tmp_path / 'mine.py', tmp_path / 'mine.pth')
