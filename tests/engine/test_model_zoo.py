"""Names of models and configs, of today and of the release before; files in a wheel."""

import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from nucseg_mmdet.commands import segment
from nucseg_mmdet.engine import model_zoo, old_names
from nucseg_mmdet.engine.model_zoo import find_config, model_files
from nucseg_mmdet.utils.errors import UserError

ROOT = Path(__file__).parents[2]
CONFIG = ROOT / 'configs/dense/mask-rcnn_r18-c4_fpn_dense_nuclei.py'
WEIGHTS = ROOT / 'models/mask-rcnn_r18-c4_fpn_dense_nuclei.pth'
OLD_DEFAULT = 'mask-rcnn_r18-c4_fpn_crop112to176-s320-reinhard-a16to384-ema-4k-2x2k_nuclei'


def test_weights_are_the_published_ones():
    for name in model_zoo.MODELS:
        model_zoo.check_weights(name)


def test_means_of_two_folds_are_rounded_once():
    """To the three places that ``nucseg models`` shows."""
    name = 'mask-rcnn_lite0_fpn_dense_stage2_iterations1500_seed2_fold{0}'
    runs = []
    for fold in (1, 2):
        card = json.loads((ROOT / 'results' / name.format(fold) / 'run_card.json').read_text())
        runs.append(card['scores'][f'fold{fold}_val.json'])
    shown = model_zoo.MODELS['dense-lite0'].scores[0].values
    for key in ('AP', 'AP50', 'AJI', 'PQ', 'recall'):
        mean = sum(run[f'nuclei/{key}'] for run in runs) / 2
        assert f'{shown[key]:.3f}' == f'{mean:.3f}', key


def test_other_weights_are_told(monkeypatch):
    changed = dataclasses.replace(model_zoo.MODELS['dense-r18'], sha256='0' * 64)
    monkeypatch.setitem(model_zoo.MODELS, 'changed', changed)
    with pytest.raises(UserError, match=r'\.pth: SHA-256 is [0-9a-f]{64}, expected 0{64}'):
        model_zoo.check_weights('changed')


@pytest.mark.parametrize(
    'config', [None, 'dense-r18', Path('dense-r18'), CONFIG, str(CONFIG), CONFIG.stem, CONFIG.name]
)
def test_default_model_by_any_name(config, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert model_files(config) == (CONFIG, WEIGHTS)
    assert capsys.readouterr().err == ''


def test_a_path_from_elsewhere_is_the_same_config(monkeypatch):
    monkeypatch.chdir(ROOT / 'configs')
    assert model_files(f'dense/{CONFIG.name}')[1] == WEIGHTS


@pytest.mark.parametrize(
    ('old', 'new'),
    [
        (OLD_DEFAULT, 'dense/mask-rcnn_r18-c4_fpn_dense_nuclei'),
        (f'configs/dense/{OLD_DEFAULT}.py', 'dense/mask-rcnn_r18-c4_fpn_dense_nuclei'),
        (
            'configs/vrdl/mask-rcnn_r101_fpn_e08-roi128-s1200-a32to512-5k_nuclei.py',
            'vrdl/mask-rcnn_r101_fpn_e08_vrdl',
        ),
        (
            'mask-rcnn_x101-32x8d_fpn_e12-roi128-s1000-a32to512-50k_nuclei',
            'vrdl/mask-rcnn_x101-32x8d_fpn_e12_vrdl',
        ),
        ('mask-rcnn_r18-c4_fpn_crop160-x2-a16to384-5k_nuclei', 'dense/ablations/first-recipe'),
        (
            'configs/dense/mask-rcnn_r18_fpn_x2-a16to256-5k_pannuke-types.py',
            'pannuke/mask-rcnn_r18_fpn_types_pannuke',
        ),
    ],
)
def test_an_old_name_leads_to_the_config_with_a_line(old, new, capsys):
    path = find_config(old)
    assert path == ROOT / f'configs/{new}.py'
    assert path.is_file()
    assert capsys.readouterr().err == f'{old}: is configs/{new}.py now\n'


def test_every_old_name_leads_somewhere(capsys):
    for old in old_names.OTHERS:
        assert find_config(old).is_file()


def test_old_weights_lead_to_todays(capsys, tmp_path):
    old = f'models/{OLD_DEFAULT}.pth'
    assert model_files('dense-r18', old) == (CONFIG, WEIGHTS)
    assert capsys.readouterr().err == f'{old}: is models/{WEIGHTS.name} now\n'
    kept = tmp_path / f'{OLD_DEFAULT}.pth'
    kept.touch()  # a file of this name is the file
    assert model_files('dense-r18', kept) == (CONFIG, kept)


@pytest.mark.parametrize(
    'name',
    ['nowhere.py', 'dense-r19', 'configs', 'mask-rcnn_r101_fpn', 'elsewhere/first-recipe',
     'mask-rcnn_r101_fpn_e16-roi128-s800-a32to512-300k_nuclei'],
)  # fmt: skip
def test_an_unknown_name_is_refused(name):
    with pytest.raises(UserError, match=f'^{name}: no such config, expected .*, dense-r18, '):
        find_config(name)


def test_model_without_weights_of_its_own():
    with pytest.raises(UserError, match=r'e08_vrdl\.py: no checkpoint given; only dense-r18, '):
        model_files('mask-rcnn_r101_fpn_e08_vrdl')
    with pytest.raises(UserError, match=r'^x\.pth: no config given'):
        model_files(checkpoint='x.pth')
    with pytest.raises(UserError, match=r'^x\.pth: no such checkpoint'):
        model_files('dense-r18', 'x.pth')


def test_an_installed_package_has_files_of_its_own(tmp_path):
    """As in a wheel: no checkout around the package, configs and weights in ``.mim``."""
    package, empty = tmp_path / 'site/nucseg_mmdet', tmp_path / 'empty'
    empty.mkdir()
    for name in ('engine', 'utils'):
        shutil.copytree(ROOT / 'nucseg_mmdet' / name, package / name)
    shutil.copy(ROOT / 'nucseg_mmdet/__init__.py', package)
    for path in (CONFIG, WEIGHTS):
        copy = package / '.mim' / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True)
        shutil.copy(path, copy)
    code = (
        'import sys; from nucseg_mmdet.engine import model_zoo as zoo; '
        'zoo.check_weights("dense-r18"); print(*zoo.model_files()); '
        'print(*(name for name in sys.modules if name in ("torch", "mmengine", "mmcv", "mmdet")))'
    )
    done = subprocess.run(
        [sys.executable, '-c', code],
        cwd=empty,
        env=dict(PYTHONPATH=str(package.parent)),
        capture_output=True,
        text=True,
        check=True,
    )
    files, heavy = done.stdout.splitlines()
    assert files.split() == [
        str(package / '.mim' / path.relative_to(ROOT)) for path in (CONFIG, WEIGHTS)
    ]
    assert heavy == ''


def test_segment_takes_a_model_by_name():
    arguments = ['image.png', '--out', 'out', '--model', 'dense-r18']
    assert segment.parse_args(arguments).model == 'dense-r18'
    with pytest.raises(UserError, match='--config: not allowed with argument --model'):
        segment.parse_args([*arguments, '--config', 'mine.py'])
