"""Scores of what ``nucseg segment`` wrote, a file for each image."""

import json

import numpy as np
import pytest

from nucseg_mmdet.commands import score
from nucseg_mmdet.structures.coco_entries import make_annotations, make_categories, make_image


@pytest.fixture
def labels():
    labels = np.zeros((2, 40, 60), int)
    labels[0, 5:15, 5:20], labels[0, 20:30, 5:20], labels[1, 5:12, 30:40] = 1, 2, 1
    return labels


@pytest.fixture
def files(tmp_path, labels):
    """Truth of two images, and results that are equal to it."""
    truth = dict(categories=make_categories(), images=[], annotations=[])
    (tmp_path / 'run').mkdir()
    for image_id, name, one in zip((7, 3), ('x/a.png', 'b.c.tif'), labels, strict=True):
        truth['images'].append(make_image(image_id, name, *one.shape))
        annotations = make_annotations(one, image_id, len(truth['annotations']) + 1)
        truth['annotations'] += annotations
        results = [
            dict(image_id=1, category_id=1, score=0.9, segmentation=found['segmentation'])
            for found in annotations
        ]
        stem = name.split('/')[-1].rsplit('.', 1)[0]
        (tmp_path / f'run/{stem}.coco.json').write_text(json.dumps(results))
    (tmp_path / 'truth.json').write_text(json.dumps(truth))
    return [str(tmp_path / name) for name in ('truth.json', 'run')]


def test_results_of_a_run(files, tmp_path):
    assert score.main([*files, '--json', str(tmp_path / 'scores.json')]) == 0
    report = json.loads((tmp_path / 'scores.json').read_text())
    assert (report['images'], report['nuclei'], report['results']) == (2, 3, 3)
    assert report['pooled']['PQ'] == report['scores']['AP'] == 1


def test_the_legend_has_every_fate_of_the_table(files, capsys):
    assert score.main(files) == 0
    lines = capsys.readouterr().out.splitlines()
    heads = next(line for line in lines if line.startswith('%')).split()[2:-2]
    legend = next(line for line in lines if line.endswith('missed'))
    said = [part.removeprefix('else ').split(':')[0] for part in legend.split('; ')]
    assert said == heads
    assert '0.1 to 0.5' in legend


def test_the_help_says_what_results_may_be(capsys):
    with pytest.raises(SystemExit):
        score.main(['--help'])
    out = capsys.readouterr().out
    assert 'answer.zip, or the folder that nucseg segment' in out
    assert 'three tables' in out


def test_results_go_with_the_image_of_their_name(files, tmp_path):
    first, second = (tmp_path / f'run/{name}.coco.json' for name in ('a', 'b.c'))
    swapped = first.read_text(), second.read_text()
    second.write_text(swapped[0])
    first.write_text(swapped[1])
    assert score.main([*files, '--json', str(tmp_path / 'scores.json')]) == 0
    assert json.loads((tmp_path / 'scores.json').read_text())['pooled']['PQ'] == 0


def test_images_of_one_name_are_told_apart(tmp_path, capsys):
    names = ('x/a.png', 'y/a.tif', 'x/b.png')
    images = [make_image(number, name, 9, 9) for number, name in enumerate(names, 1)]
    truth = dict(categories=make_categories(), images=images, annotations=[])
    (tmp_path / 'truth.json').write_text(json.dumps(truth))
    (tmp_path / 'results.json').write_text('[]')
    assert score.main([str(tmp_path / 'truth.json'), str(tmp_path / 'results.json')]) == 0
    lines = capsys.readouterr().out.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith('label maps'))
    assert [line.split()[0] for line in lines[start + 1 : start + 4]] == ['x/a.png', 'y/a.tif', 'b']


def test_missing_results_are_named(files, tmp_path, capsys):
    (tmp_path / 'run/b.c.coco.json').unlink()
    assert score.main(files) == 2
    said = capsys.readouterr().err
    assert said.startswith(f'score: {tmp_path}/run: no b.c.coco.json, expected what nucseg segment')
    assert said.count('\n') == 1


def write_summaries(folder, classes=('Nucleus',), **facts):
    for name, width, height in (('a', 60, 40), ('b.c', 60, 40)):
        content = dict(width=width, height=height, classes=[dict(name=one) for one in classes])
        (folder / f'{name}.summary.json').write_text(json.dumps(content | facts))


def test_results_of_a_region_are_refused(files, tmp_path, capsys):
    write_summaries(tmp_path / 'run', identity=dict(region=[0, 0, 60, 40]))
    assert score.main(files) == 0
    write_summaries(tmp_path / 'run', identity=dict(region=[0, 0, 30, 40]))
    assert score.main(files) == 2
    said = capsys.readouterr().err
    assert said == (
        f'score: {tmp_path}/run/b.c.summary.json: is of the region [0, 0, 30, 40], expected all of '
        'the image, without --roi\n'
    )


def test_broken_tiles_are_told(files, tmp_path, capsys):
    write_summaries(tmp_path / 'run', broken_tiles=['tile at 0,0: damaged'])
    assert score.main(files) == 0
    said = capsys.readouterr().err.splitlines()
    assert said[0] == (
        f'{tmp_path}/run/b.c.summary.json: 1 tile could not be read, the nuclei there are missing'
    )
    assert len(said) == 2


@pytest.mark.parametrize(
    ('kept', 'more', 'pooled'), [(0.3, [], 1), (0.3, [0.5], 0.8), (0.5, [], 0.8)]
)
def test_all_that_a_run_kept_is_scored(files, tmp_path, capsys, kept, more, pooled):
    """One of three nuclei has a score of 0.4; without it F1 is 2 x 2 / (3 + 2)."""
    results = json.loads((tmp_path / 'run/a.coco.json').read_text())
    results[0]['score'] = 0.4
    (tmp_path / 'run/a.coco.json').write_text(json.dumps(results))
    write_summaries(tmp_path / 'run', identity=dict(score_thr=kept))
    options = [f'--score-thr={value}' for value in more]
    assert score.main([*files, *options, '--json', str(tmp_path / 'scores.json')]) == 0
    report = json.loads((tmp_path / 'scores.json').read_text())
    assert report['pooled']['F1'] == pytest.approx(pooled, abs=1e-12)
    assert f'with a score of {(more or [kept])[0]} or more' in capsys.readouterr().out


def test_types_without_a_summary_are_refused(files, tmp_path, capsys):
    """A run counts its types from 1, whatever the truth's ids are."""
    truth = json.loads((tmp_path / 'truth.json').read_text())
    truth['categories'] = [dict(id=1, name='b'), dict(id=2, name='a')]
    (tmp_path / 'truth.json').write_text(json.dumps(truth))
    assert score.main(files) == 0  # of one category: nuclei of any type
    capsys.readouterr()
    results = json.loads((tmp_path / 'run/a.coco.json').read_text())
    results[1]['category_id'] = 2
    (tmp_path / 'run/a.coco.json').write_text(json.dumps(results))
    assert score.main(files) == 2
    assert capsys.readouterr().err == (
        f'score: {tmp_path}/run/b.c.summary.json: not there, expected it to say which types the '
        'categories of the results are\n'
    )
    write_summaries(tmp_path / 'run', classes=('a', 'b'))
    assert score.main(files) == 0


@pytest.mark.parametrize('content', ['{}', '[1]', '[[]]', 'x'])
def test_odd_results_are_refused(files, tmp_path, capsys, content):
    (tmp_path / 'run/a.coco.json').write_text(content)
    assert score.main(files) == 2
    assert f'{tmp_path}/run/a.coco.json: found no' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('truth', 'message'),
    [([], 'expected a COCO object'), (dict(images=3), 'images is 3'), ({}, 'found no images')],
)
def test_odd_truth_is_refused(files, tmp_path, capsys, truth, message):
    (tmp_path / 'truth.json').write_text(json.dumps(truth))
    assert score.main(files) == 2
    assert message in capsys.readouterr().err


def test_images_of_one_name_are_refused(files, tmp_path, capsys):
    truth = json.loads((tmp_path / 'truth.json').read_text())
    truth['images'][1]['file_name'] = 'y/a.tif'
    (tmp_path / 'truth.json').write_text(json.dumps(truth))
    assert score.main(files) == 2
    assert 'truth.json: images of one name, expected another' in capsys.readouterr().err


@pytest.mark.parametrize(
    ('truth', 'run', 'types'),
    [
        ({1: 'a', 2: 'b'}, 'a b', ['a', 'b']),
        ({1: 'b', 2: 'a'}, 'a b', ['b', 'a']),
        ({0: 'a', 1: 'b', 2: 'c'}, 'a b', ['a', 'b', 'c']),
        ({5: 'a', 9: 'b'}, 'a b', ['a', 'b']),
        ({1: 'x', 2: 'b'}, 'a b', None),  # types of other names: nuclei of any type are scored
        ({1: 'nucleus'}, 'a b', None),
    ],
)
def test_classes_of_a_run_are_those_of_their_names(files, tmp_path, truth, run, types):
    data = json.loads((tmp_path / 'truth.json').read_text())
    data['categories'] = [dict(id=number, name=name) for number, name in truth.items()]
    by_name = {name: number for number, name in truth.items()}
    for number, name in ((0, 'a'), (1, 'b'), (2, 'a')):
        category = by_name.get(name, next(iter(truth)))
        data['annotations'][number]['category_id'] = category
    (tmp_path / 'truth.json').write_text(json.dumps(data))
    classes = [dict(name=name) for name in run.split()]
    for image in ('a', 'b.c'):
        (tmp_path / f'run/{image}.summary.json').write_text(json.dumps(dict(classes=classes)))
    results = json.loads((tmp_path / 'run/a.coco.json').read_text())
    results[1]['category_id'] = 2
    (tmp_path / 'run/a.coco.json').write_text(json.dumps(results))
    assert score.main([*files, '--json', str(tmp_path / 'scores.json')]) == 0
    report = json.loads((tmp_path / 'scores.json').read_text())
    assert report['pooled']['PQ'] == 1
    if types is None:
        assert 'types' not in report
    else:
        assert [one['name'] for one in report['types']['classes']] == types
        assert report['types']['mPQ+'] == 1


def test_types_of_a_run_that_found_only_one_of_them(files, tmp_path):
    """Each nucleus is taken for an a; the second is a b."""
    data = json.loads((tmp_path / 'truth.json').read_text())
    data['categories'] = [dict(id=1, name='b'), dict(id=2, name='a')]
    for annotation, category_id in zip(data['annotations'], (2, 1, 2), strict=True):
        annotation['category_id'] = category_id
    (tmp_path / 'truth.json').write_text(json.dumps(data))
    write_summaries(tmp_path / 'run', classes=('a', 'b'))
    assert score.main([*files, '--json', str(tmp_path / 'scores.json')]) == 0
    types = json.loads((tmp_path / 'scores.json').read_text())['types']
    # b: one missed. a: two found, and one that is none: 2 / (2 + 1 / 2).
    assert [(one['name'], one['PQ']) for one in types['classes']] == [('b', 0), ('a', 0.8)]
    assert types['mPQ+'] == pytest.approx(0.4, abs=1e-12)
