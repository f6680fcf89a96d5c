"""The table of all runs: the published numbers, the cells, Markdown and CSV, the page."""

import csv
import json
from pathlib import Path

import pytest
from mmengine.config import Config

from nucseg_mmdet.engine import config_edits, data_edits, provenance
from nucseg_mmdet.utils.errors import UserError
from tools.analysis_tools.results_table import (
    BEGIN,
    CONFIGS,
    END,
    main,
    make_rows,
    read_published,
    read_runs,
    replace_table,
    to_csv,
    to_markdown,
)

# The original project's table, experiments 1 to 15.
PUBLISHED = [
    '0.223274',
    '0.219256',
    '0.208042',
    '0.221926',
    '0.226062',
    '0.211141',
    '0.242515',
    '0.24355',
    '0.232426',
    '0.233071',
    '0.242185',
    '0.228375',
    '0.225095',
    '0.243045',
    '0.231643',
]
E08 = 'mask-rcnn_r101_fpn_e08_vrdl'
SCORES = {
    'nuclei/AP50@100': 0.2,
    'nuclei/AP50@100_ceiling': 0.25,
    'nuclei/AP': 0.31,
    'nuclei/AP50': 0.65,
    'nuclei/AJI': 0.55,
    'nuclei/PQ': 0.5,
    'nuclei/recall': 0.75,
}


def write_card(folder, **card):
    folder.mkdir(parents=True)
    (folder / 'run_card.json').write_text(json.dumps(card))


def run_e08(work_dirs, **more):
    card = dict(
        config=E08,
        initial_weights='open-mmlab://detectron2/resnet101_caffe',
        load_from=None,
        iteration=5000,
        train_seconds=4320.0,
        peak_gpu_bytes=9 * 2**30,
        scores={'fold1_val.json': SCORES},
    )
    write_card(work_dirs / E08, **dict(card, **more))


def cells(markdown):
    """The rows of a Markdown table as lists of texts, without the rule."""
    lines = [
        [cell.strip() for cell in line.strip('|').split(' | ')] for line in markdown.splitlines()
    ]
    return [lines[0], *lines[2:]]


def test_published_numbers():
    published = read_published(CONFIGS)
    assert list(published.values()) == PUBLISHED
    assert published[E08] == '0.24355'


def test_config_without_number_is_refused(tmp_path):
    (tmp_path / 'mask-rcnn_e01_x.py').write_text('"""No number here."""\n')
    with pytest.raises(UserError, match=r'e01_x\.py: docstring has no published mAP'):
        read_published(tmp_path)


def test_every_experiment_has_a_row(tmp_path):
    head, *rows = cells(to_markdown(make_rows(read_runs(tmp_path)[0], read_published(CONFIGS))))
    assert head == [
        'no.', 'run', 'published mAP', 'scored on', 'AP50@100', 'of its ceiling', 'AP', 'AP50',
        'AJI', 'PQ', 'recall', 'initial weights', 'iterations', 'time', 'GPU memory', 'commit',
    ]  # fmt: skip
    assert [row[0] for row in rows] == [str(number) for number in range(1, 16)]
    assert [row[2] for row in rows] == PUBLISHED
    assert {cell for row in rows for cell in row[3:]} == {''}


def test_cells_of_a_run(tmp_path):
    run_e08(tmp_path)
    rows = cells(to_markdown(make_rows(read_runs(tmp_path)[0], read_published(CONFIGS))))
    assert len(rows) == 16  # heads and 15 experiments
    assert rows[8] == [
        '8', 'r101_fpn_e08_vrdl', '0.24355', 'fold1_val', '0.2000', '80%',
        '0.3100', '0.6500', '0.5500', '0.5000', '0.7500', 'resnet101_caffe', '5,000',
        '1 h 12 min', '9.0 GiB', 'not proven',
    ]  # fmt: skip


def test_how_a_test_looked_is_told(tmp_path):
    def scored_on(name, more, others, precision):
        scored = dict(SCORES, others_sha256=others, precision=precision, settings=more)
        run_e08(tmp_path / name, scores={'fold1_val.json': scored})
        return read_runs(tmp_path / name)[0][0]['scored_on']

    def settings(every):
        """Of a test with all views or one, as the run card has them."""
        cfg = config_edits.load_config('dense-r18', {}, None)
        data_edits.use_views(cfg, Path('dense-r18'), every, [])
        return provenance.test_settings(cfg)

    assert scored_on('a', settings(True), ['a'], 'bf16') == 'fold1_val, tta, 2 models, bf16'
    assert scored_on('b', settings(False), ['a'], 'fp32') == 'fold1_val, 2 models'
    plain = provenance.test_settings(config_edits.load_config('dense-r18', {}, None))
    assert scored_on('c', plain, [], 'fp32') == 'fold1_val'


def test_a_score_that_is_not_defined_is_an_empty_cell(tmp_path):
    run_e08(tmp_path, scores={'fold1_val.json': dict(SCORES, **{'nuclei/AP50@100': None})})
    rows, problems = read_runs(tmp_path)
    assert problems == []
    assert cells(to_markdown(rows))[1][4:7] == ['', '', '0.3100']


def test_other_runs_come_last(tmp_path):
    """A run on a CPU, from scratch, unscored; a run of two folds; one in a folder of runs."""
    write_card(
        tmp_path / 'demo', config='demo_nuclei', initial_weights='none', iteration=200,
        train_seconds=150.6, peak_memory_bytes=10**9,
        scores={'test.json': {'submission/detections': 7}},
    )  # fmt: skip
    write_card(
        tmp_path / 'dense', config='dense', load_from='a/b/mask-rcnn_coco_nuclei.pth',
        initial_weights='none',
        scores={'fold1_val.json': SCORES, 'fold2_val.json': dict(SCORES, **{'nuclei/PQ': 0.25})},
    )  # fmt: skip
    run_e08(tmp_path / 'folds')
    rows = cells(to_markdown(make_rows(read_runs(tmp_path)[0], read_published(CONFIGS))))
    assert rows[8][1] == f'folds/{E08}'.removesuffix('_nuclei')
    dense = ['', 'dense', '', 'fold1_val', '0.2000', '80%', '0.3100', '0.6500', '0.5500']
    assert rows[16] == ['', 'demo', *[''] * 9, 'none', '200', '3 min', '', 'not proven']
    assert rows[17] == [*dense, '0.5000', '0.7500', 'coco.pth', '', '', '', 'not proven']
    assert rows[18][3] == 'fold2_val'
    assert rows[18][9] == '0.2500'
    assert len(rows) == 19


def test_runs_in_a_linked_folder_count(tmp_path):
    run_e08(tmp_path / 'disk')
    (tmp_path / 'work_dirs').mkdir()
    (tmp_path / 'work_dirs' / E08).symlink_to(tmp_path / 'disk' / E08)
    rows = make_rows(read_runs(tmp_path / 'work_dirs')[0], {})
    assert [row['pq'] for row in rows] == [0.5]


def test_csv_has_plain_numbers(tmp_path):
    run_e08(tmp_path)
    lines = list(
        csv.DictReader(
            to_csv(make_rows(read_runs(tmp_path)[0], read_published(CONFIGS))).splitlines()
        )
    )
    assert len(lines) == 15
    assert lines[7] == dict(
        number='8', run=E08, published_map='0.24355', scored_on='fold1_val', ap50_100='0.2',
        ceiling_share='0.8', ap='0.31', ap50='0.65', aji='0.55', pq='0.5', recall='0.75',
        weights='resnet101_caffe', iterations='5000', seconds='4320.0', gpu_bytes=str(9 * 2**30),
        commit='not proven',
    )  # fmt: skip
    assert lines[6]['pq'] == ''


def test_bars_in_names_do_not_split_cells(tmp_path):
    write_card(tmp_path / 'a|b', config='c')
    table = to_markdown(make_rows(read_runs(tmp_path)[0], {}))
    assert 'a\\|b' in table.splitlines()[2]


def test_names_are_neither_tags_nor_lines(tmp_path):
    write_card(tmp_path / '<b>x', config='c', load_from='a\n| b |\x1b[31m')
    table = to_markdown(make_rows(read_runs(tmp_path)[0], {}))
    assert table.count('\n') == 3  # head, rule, row
    row = table.splitlines()[2]
    assert '&lt;b&gt;x' in row
    assert 'a\\n\\| b \\|\\x1b[31m' in row


@pytest.mark.parametrize('name', ['=1+1', '+1', '-1', '@x'])
def test_names_are_no_formulas(tmp_path, name):
    write_card(tmp_path / name, config='c', load_from=f'x/{name}')
    (line,) = csv.DictReader(to_csv(make_rows(read_runs(tmp_path)[0], {})).splitlines())
    assert (line['run'], line['weights']) == (f"'{name}",) * 2


def test_card_that_is_a_link_to_nowhere_is_told(tmp_path, capsys):
    write_card(tmp_path / 'a', config='c')
    (tmp_path / 'b').mkdir()
    (tmp_path / 'b/run_card.json').symlink_to(tmp_path / 'gone')
    assert main([str(tmp_path)]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f'left out: {tmp_path}/b/run_card.json: No such file')


def test_replaces_the_table_of_a_page():
    text = f'before\n{BEGIN}\nold\n{END}\nafter\n'
    once = replace_table(text, '| new |\n', 'page.md')
    assert once == f'before\n{BEGIN}\n\n| new |\n\n{END}\nafter\n'
    assert replace_table(once, '| new |\n', 'page.md') == once


@pytest.mark.parametrize(
    'text', ['', f'{BEGIN}\n', f'{END}\n{BEGIN}\n', f'{BEGIN}\n{BEGIN}\n{END}\n']
)
def test_page_without_the_lines_is_refused(text):
    with pytest.raises(UserError, match=r'page\.md: expected the lines'):
        replace_table(text, '| new |\n', 'page.md')


def test_tool_writes_both(tmp_path, capsys):
    run_e08(tmp_path / 'work_dirs')
    page, out = tmp_path / 'page.md', tmp_path / 'table.csv'
    page.write_text(f'{BEGIN}\n{END}\n')
    arguments = [str(tmp_path / 'work_dirs'), '--csv', str(out)]
    assert main(arguments) == 0
    printed = capsys.readouterr().out
    assert main([*arguments, '--into', str(page)]) == 0
    assert page.read_text() == f'{BEGIN}\n\n{printed}\n{END}\n'
    assert len(out.read_text().splitlines()) == 16
    assert {path.name for path in tmp_path.iterdir()} == {'work_dirs', 'page.md', 'table.csv'}


@pytest.mark.parametrize(
    ('before', 'after'),
    [
        ('a\n{BEGIN}\nold\n{END}\nb\n', 'a\n{BEGIN}\n\n{table}\n{END}\nb\n'),
        ('a\r\n{BEGIN}\r\nold\r\n{END}\r\nb\r\n', 'a\r\n{BEGIN}\r\n\r\n{table}\r\n{END}\r\nb\r\n'),
        # Of mixed ends those beside the table stay, and it has those of its first line.
        ('a\r\n{BEGIN}\nold\n{END}\r\nb', 'a\r\n{BEGIN}\n\n{table}\n{END}\r\nb'),
    ],
    ids=['lf', 'crlf', 'mixed'],
)
def test_a_page_keeps_its_line_ends(tmp_path, capsys, before, after):
    (tmp_path / 'work_dirs').mkdir()
    assert main([str(tmp_path / 'work_dirs')]) == 0
    table = capsys.readouterr().out
    if '{BEGIN}\r' in before:
        table = table.replace('\n', '\r\n')
    page = tmp_path / 'page.md'
    page.write_bytes(before.format(BEGIN=BEGIN, END=END).encode())
    assert main([str(tmp_path / 'work_dirs'), '--into', str(page)]) == 0
    assert page.read_bytes().decode() == after.format(BEGIN=BEGIN, END=END, table=table)


def test_a_page_in_another_encoding_is_refused(tmp_path, capsys):
    (tmp_path / 'work_dirs').mkdir()
    page = tmp_path / 'page.md'
    content = f'\xe9\n{BEGIN}\nold\n{END}\n'.encode('latin-1')
    page.write_bytes(content)
    assert main([str(tmp_path / 'work_dirs'), '--into', str(page)]) == 2
    assert capsys.readouterr().err.endswith('page.md: is not in UTF-8, expected Markdown\n')
    assert page.read_bytes() == content


@pytest.mark.parametrize(
    ('card', 'message'),
    [
        ('{"config": ', 'found no valid JSON'),
        ('[1]', 'found no run card'),
        ('{"scores": {"a.json": 5}}', 'scores of a.json are 5, expected an object'),
    ],
)
def test_damaged_card_is_one_line_and_code_2(tmp_path, capsys, card, message):
    write_card(tmp_path / 'run')
    (tmp_path / 'run' / 'run_card.json').write_text(card)
    assert main([str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith('results_table: ')
    assert 'run_card.json: ' in line
    assert message in line


def test_row_of_a_proven_card(tmp_path):
    settings = provenance.settings(Config.fromfile(CONFIGS / f'{E08}.py'), provenance.TRAINING)
    card = dict(settings=settings, commit='c0ffee1' * 5 + '12345+changes')
    run_e08(tmp_path, **card, scores={'fold1_val.json': dict(SCORES, data_sha256='d')})
    rows = cells(to_markdown(make_rows(read_runs(tmp_path)[0], read_published(CONFIGS))))
    assert rows[8][-1] == 'c0ffee1+changes'


def test_card_that_is_not_of_its_config_is_one_line_and_code_2(tmp_path, capsys):
    settings = provenance.settings(Config.fromfile(CONFIGS / f'{E08}.py'), provenance.TRAINING)
    run_e08(tmp_path, settings=dict(settings, **{'randomness.seed': 1}))
    assert main([str(tmp_path)]) == 2
    printed = capsys.readouterr()
    (line,) = printed.err.splitlines()
    assert f'run_card.json: randomness.seed is 1, expected 0 as in {E08}.py' in line
    assert printed.out == ''


def test_missing_folder_is_code_2(tmp_path, capsys):
    assert main([str(tmp_path / 'nowhere')]) == 2
    assert 'nowhere: no such folder' in capsys.readouterr().err


def test_a_bad_card_leaves_the_others_in_the_table_but_no_file_without_it(tmp_path, capsys):
    runs, page, out = tmp_path / 'runs', tmp_path / 'page.md', tmp_path / 'table.csv'
    write_card(runs / 'a', config='c')
    for name in ('b', 'd'):
        write_card(runs / name)
        (runs / name / 'run_card.json').write_text('{')
    assert main([str(runs)]) == 1
    printed = capsys.readouterr()
    assert cells(printed.out)[-1][1] == 'a'
    told = [line.split(': ')[1] for line in printed.err.splitlines()]
    assert told == [f'{runs}/{name}/run_card.json' for name in ('b', 'd')]
    page.write_text(f'{BEGIN}\nold\n{END}\n')
    for arguments in (['--into', page], ['--csv', out]):
        assert main([str(runs), *map(str, arguments)]) == 2
        printed = capsys.readouterr()
        assert [line.split(': ')[1] for line in printed.err.splitlines()[:2]] == told
        assert 'nothing written' in printed.err
        assert printed.out == ''
    assert (page.read_text(), out.exists()) == (f'{BEGIN}\nold\n{END}\n', False)
