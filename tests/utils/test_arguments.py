"""Command lines that are not possible: one line each, which says what was expected."""

import pytest

from nucseg_mmdet import cli
from nucseg_mmdet.commands import segment

FORMATS = 'geojson, csv, parquet, label, coco, overlay, spatialdata, ome-zarr, dicom-ann'


@pytest.fixture
def refused(capsys):
    """Call nucseg with arguments that it refuses; gives what it says."""

    def call(*arguments):
        assert cli.main([str(argument) for argument in arguments]) == 2
        told = capsys.readouterr()
        assert told.out == ''
        assert told.err.count('\n') == 1
        return told.err.rstrip('\n')

    return call


@pytest.mark.parametrize(
    ('options', 'line'),
    [
        (['--mpp', '0,25'], 'segment: --mpp: 0,25 is no number, expected one such as 0.25'),
        (['--tile', '1e3'], 'segment: --tile: 1e3 is no whole number, expected one such as 4'),
        (['--tile'], 'segment: --tile: expected one argument'),
        (
            ['--config', 'a.py', '--model', 'dense-r18'],
            'segment: --model: not allowed with argument --config',
        ),
        (['--spam'], 'segment: unrecognized arguments: --spam'),
    ],
)
def test_options_that_are_not_possible(refused, options, line):
    assert refused('segment', 'a.png', '--out', 'out', *options) == line


def test_an_input_that_is_taken_for_a_format(refused, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    line = f'is no format, expected some of {FORMATS}'
    arguments = ['segment', '--out', 'out', '--format', 'csv']
    assert refused(*arguments, 'svc') == f'segment: --format: svc {line}'
    (tmp_path / 'plain.png').touch()
    assert refused(*arguments, 'plain.png') == (
        f'segment: --format: plain.png {line}; an input stands before --format'
    )


@pytest.mark.parametrize(
    ('command', 'missing'),
    [
        ('segment', 'INPUT, --out'),
        ('view', 'RESULTS'),
        ('score', 'truth, results'),
        ('prepare', 'FORMAT'),
        ('train', 'config'),
        ('test', 'config'),
        ('report', 'work_dir'),
    ],
)
def test_what_is_missing(refused, command, missing):
    assert refused(command) == f'{command}: the following arguments are required: {missing}'


def test_commands_of_formats(refused):
    assert refused('prepare', 'qupath') == 'prepare: the following arguments are required: RAW, OUT'
    assert refused('prepare', 'coco', 'a', 'b', '--limit', 'x') == (
        'prepare: --limit: x is no whole number, expected one such as 4'
    )


@pytest.mark.parametrize(
    ('command', 'arguments', 'name'),
    [
        ('segment', ['', '--out', 'out'], 'INPUT'),
        ('segment', ['a.png', '', '--out', 'out'], 'INPUT'),
        ('segment', ['a.png', '--out', ''], '--out'),
        ('segment', ['a.png', '--out', 'out', '--config', ''], '--config'),
        ('view', [''], 'RESULTS'),
        ('view', ['out', ''], 'SLIDES'),
        ('score', ['', 'out'], 'truth'),
        ('score', ['truth.json', 'out', '--json', ''], '--json'),
        ('prepare', ['qupath', '', 'out'], 'RAW'),
        ('prepare', ['qupath', '.', ''], 'OUT'),
        ('prepare', ['export', '.', ''], 'OUT'),
        ('train', ['finetune', '--data', ''], '--data-root/--data'),
        ('test', ['finetune', ''], 'CHECKPOINT'),
        ('report', [''], 'work_dir'),
    ],
)
def test_an_empty_path_is_not_the_current_folder(
    refused, tmp_path, monkeypatch, command, arguments, name
):
    monkeypatch.chdir(tmp_path)
    line = f'{command}: {name}: is empty, expected a file or a folder'
    assert refused(command, *arguments) == line
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ('command', 'arguments', 'name'),
    [
        ('segment', ['a.png', '--out', 'out', '--scheduler', ''], '--scheduler'),
        ('prepare', ['qupath', '.', 'out', '--images', ''], '--images'),
        ('train', ['finetune', '--resume', ''], '--resume'),
    ],
)
def test_an_empty_value_is_not_none_at_all(
    refused, tmp_path, monkeypatch, command, arguments, name
):
    monkeypatch.chdir(tmp_path)
    assert refused(command, *arguments) == f'{command}: {name}: is empty, expected a value'


@pytest.mark.parametrize(
    ('options', 'roi', 'slurm', 'workers'),
    [
        (['--slurm', '--partition=gpu'], None, '--partition=gpu', None),
        (['--slurm', '-pgpu', '--workers', '2'], None, '-pgpu', 2),
        (['--slurm', '--partition=gpu --gres=gpu:1'], None, '--partition=gpu --gres=gpu:1', None),
        (['--slurm=--exclusive', '--roi', '1,2,3,4'], '1,2,3,4', '--exclusive', None),
        (['--roi', '-10,-10,100,100', '--slurm', ''], '-10,-10,100,100', '', None),
    ],
)
def test_values_that_begin_with_a_dash(options, roi, slurm, workers):
    args = segment.parse_args(['a.png', '--out', 'out', *options])
    assert (args.roi, args.slurm, args.workers) == (roi, slurm, workers)


def test_words_behind_two_dashes_are_no_options():
    args = segment.parse_args(['--out', 'out', '--', 'a.png', '--roi', '-b.png'])
    assert [path.name for path in args.inputs] == ['a.png', '--roi', '-b.png']


def test_a_training_goes_on_or_begins_anew(refused):
    line = 'train: --overwrite: not allowed with argument --resume'
    assert refused('train', 'demo', '--resume', '--overwrite') == line


def test_an_option_is_not_the_value_of_the_one_before(refused):
    start = ['segment', 'a.png', '--out', 'out']
    for more in (['--workers', '2'], ['--workers=2'], []):
        assert refused(*start, '--slurm', *more) == 'segment: --slurm: expected one argument'
