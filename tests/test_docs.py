"""What the pages name is there: files, modules, configs; the README stays short."""

import importlib.util
import re
import shlex
from pathlib import Path

import pytest
from mmengine.config import Config

ROOT = Path(__file__).parents[1]
PAGES = [
    *(
        ROOT / name
        for name in ('README.md', 'CONTRIBUTING.md', 'data/README.md', 'models/README.md')
    ),
    *sorted((ROOT / 'docs').rglob('*.md')),
]
# A path in the repository with a suffix; not one of the user's data or of a run.
FILE = re.compile(r'(?<![\w/.~-])((?:configs|docs|models|tests|tools|nucseg_mmdet)/[\w./-]+\.\w+)')
MODULE = re.compile(r'python -m (nucseg_mmdet[\w.]+)')
CONFIG = re.compile(r'(?<![\w/-])(mask-rcnn_[\w-]+?)(?:`| |\n|\.py)')
MADE = {'configs/dense/ablations/strong-stain.py', 'configs/MINE.py'}  # by the reader


def name(page):
    return page.relative_to(ROOT).as_posix()


def test_readme_is_short():
    assert len((ROOT / 'README.md').read_bytes()) <= 8_000


@pytest.mark.parametrize('page', PAGES, ids=name)
def test_files_and_modules_exist(page):
    text = page.read_text(encoding='utf-8')
    files = {path for path in FILE.findall(text) if not (ROOT / path).exists()}
    assert files <= MADE
    assert not [module for module in MODULE.findall(text) if not importlib.util.find_spec(module)]


@pytest.mark.parametrize('page', PAGES, ids=name)
def test_configs_exist(page):
    known = {path.stem for path in (ROOT / 'configs').rglob('*.py')}
    text = page.read_text(encoding='utf-8')
    assert not {config for config in CONFIG.findall(text) if config not in known}


@pytest.mark.parametrize('page', PAGES, ids=name)
def test_commands_of_one_block_run_in_turn(page):
    # A second run of a slide with other settings is refused where the results of the first are.
    for block in re.findall(r'```bash\n(.*?)```', page.read_text(encoding='utf-8'), re.DOTALL):
        runs = {}
        for line in block.replace('\\\n', ' ').splitlines():
            if line.startswith('nucseg segment '):
                words = shlex.split(line, comments=True)
                region = words[words.index('--roi') + 1] if '--roi' in words else None
                place = (words[2], words[words.index('--out') + 1])
                assert runs.setdefault(place, region) == region, line


SNIPPETS = [
    (page, number, snippet)
    for page in PAGES
    for number, snippet in enumerate(
        re.findall(r"```python\n(_base_ = '.*?)```", page.read_text(encoding='utf-8'), re.DOTALL)
    )
]


@pytest.mark.parametrize(
    'snippet', [pytest.param(text, id=f'{name(page)}-{n}') for page, n, text in SNIPPETS]
)
def test_configs_of_pages_load_in_configs(snippet, tmp_path):
    path = tmp_path / 'mine.py'
    path.write_text(snippet.replace("_base_ = './", f"_base_ = '{ROOT.as_posix()}/configs/"))
    assert Config.fromfile(path).model.type == 'MaskRCNN'


@pytest.mark.parametrize('page', [page for page in PAGES if 'docs' not in page.parts], ids=name)
def test_links_lead_somewhere(page):
    # Those between the pages of docs/ are checked by `make docs`.
    links = re.findall(r'\]\(([^)#:]+)(?:#[^)]*)?\)', page.read_text(encoding='utf-8'))
    assert not [link for link in links if not (page.parent / link).exists()]
