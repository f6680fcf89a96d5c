"""What the pages name is there: files, modules, configs; the README stays short."""

import importlib.util
import re
from pathlib import Path

import pytest

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
MADE = {'configs/dense/ablations/strong-stain.py'}  # by the reader


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


@pytest.mark.parametrize('page', [page for page in PAGES if 'docs' not in page.parts], ids=name)
def test_links_lead_somewhere(page):
    # Those between the pages of docs/ are checked by `make docs`.
    links = re.findall(r'\]\(([^)#:]+)(?:#[^)]*)?\)', page.read_text(encoding='utf-8'))
    assert not [link for link in links if not (page.parent / link).exists()]
