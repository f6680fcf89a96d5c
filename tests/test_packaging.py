"""What pip gets: the wheel's files, and ranges that fit the versions that are tested."""

import re
import sys
import zipfile
from pathlib import Path

import pytest
from hatchling.builders.wheel import WheelBuilder
from packaging.requirements import Requirement

from nucseg_mmdet import __version__

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # hatchling has it

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope='module')
def wheel(tmp_path_factory):
    folder = tmp_path_factory.mktemp('wheel')
    (path,) = WheelBuilder(str(ROOT)).build(directory=str(folder))
    with zipfile.ZipFile(path) as archive:
        yield archive


def test_wheel_holds_every_config_and_model(wheel):
    names = set(wheel.namelist())
    for folder, pattern in (('configs', '*.py'), ('models', '*.pth')):
        files = [path.relative_to(ROOT) for path in (ROOT / folder).rglob(pattern)]
        assert files
        missing = {f'nucseg_mmdet/.mim/{file.as_posix()}' for file in files} - names
        assert not missing


def test_wheel_holds_the_package_and_no_tests(wheel):
    names = set(wheel.namelist())
    files = {path.relative_to(ROOT).as_posix() for path in ROOT.glob('nucseg_mmdet/**/*.py')}
    assert files <= names
    assert 'nucseg_mmdet/evaluation/report_page.html' in names
    assert 'nucseg_mmdet/commands/check_image.jpg' in names
    assert {name.split('/')[0] for name in names} == {
        'nucseg_mmdet',
        f'nucseg_mmdet-{__version__}.dist-info',
    }


def test_wheel_has_the_command_and_both_licenses(wheel):
    info = f'nucseg_mmdet-{__version__}.dist-info'
    assert wheel.read(f'{info}/entry_points.txt').decode().split() == (
        ['[console_scripts]', 'nucseg', '=', 'nucseg_mmdet.cli:main']
    )
    metadata = wheel.read(f'{info}/METADATA').decode()
    assert 'License-Expression: Apache-2.0 AND CC-BY-NC-SA-4.0' in metadata
    for name in ('LICENSE', 'models/LICENSE'):
        assert f'{info}/licenses/{name}' in wheel.namelist()


def project():
    return tomllib.loads((ROOT / 'pyproject.toml').read_text(encoding='utf-8'))['project']


def pins():
    text = ''.join(path.read_text(encoding='utf-8') for path in ROOT.glob('requirements*.txt'))
    return dict(re.findall(r'^([\w.-]+)==(\S+)', text, flags=re.MULTILINE))


def test_tested_versions_are_in_the_ranges():
    table = project()
    groups = [table['dependencies'], *table['optional-dependencies'].values()]
    ranges = [Requirement(line) for group in groups for line in group]
    versions = pins()
    for item in (item for item in ranges if item.name != table['name']):
        assert item.name in versions, f'{item.name} has no pin in requirements*.txt'
        assert item.specifier.contains(versions[item.name], prereleases=True), str(item)


def test_plain_installation_takes_no_torch_and_no_compiler():
    names = {Requirement(line).name for line in project()['dependencies']}
    assert 'numpy' in names
    assert not [name for name in names if re.search(r'torch|mmcv|mmengine|mmdet', name)]


def test_pre_commit_checks_with_the_tested_versions():
    text = (ROOT / '.pre-commit-config.yaml').read_text(encoding='utf-8')
    versions = pins()
    revisions = re.findall(r'rev: v(\S+)', text)
    assert revisions == [versions['ruff'], versions['codespell']]
