"""COCO of common tools: what can be read in one way is read, the rest is left for the checks."""

import json

import numpy as np
import pytest
from PIL import Image

from nucseg_mmdet.commands import prepare, score
from nucseg_mmdet.structures.coco import parse_results, parse_truth
from nucseg_mmdet.structures.coco_tidy import as_one_class, has_types, tidy, tidy_results
from nucseg_mmdet.utils.errors import UserError

SQUARE = [[2, 2, 6, 2, 6, 6, 2, 6]]
POINTS = [[2, 2], [6, 2], [6, 6], [2, 6]]


def truth():
    return dict(
        images=[dict(id=1, file_name='x/a.png', width=20, height=10)],
        annotations=[dict(id=1, image_id=1, category_id=1, segmentation=SQUARE, iscrowd=0, area=16,
                          bbox=[2, 2, 4, 4])],
        categories=[dict(id=1, name='nucleus')],
    )  # fmt: skip


def changed(part, **values):
    data = truth()
    data[part][0].update(values)
    return data


def with_ids(kind):
    data = truth()
    for part, keys in (('images', ['id']), ('annotations', ['id', 'image_id', 'category_id'])):
        for key in keys:
            data[part][0][key] = kind(data[part][0][key])
    data['categories'][0]['id'] = kind(1)
    return data


ODD = {
    'text': (with_ids(str), '3 ids or sizes as text or floats'),
    'floats': (with_ids(float), '3 ids or sizes as text or floats'),
    'size as text': (changed('images', width='20'), '1 ids or sizes as text or floats'),
    'size as floats': (changed('images', width=20.0, height=10.0), '1 ids or sizes as text'),
    'backslashes': (changed('images', file_name='x\\a.png'), '1 file names with backslashes'),
    'crowd as text': (changed('annotations', iscrowd='0'), '1 ids or sizes as text or floats'),
    'bare polygon': (changed('annotations', segmentation=SQUARE[0]), '1 masks as a bare list'),
    'points': (changed('annotations', segmentation=POINTS), '1 masks as a bare list'),
    'lists of points': (changed('annotations', segmentation=[POINTS]), '1 masks as a bare list'),
    'no size': (changed('images', width=None, height=None), '1 images without width and height'),
    'size -1': (changed('images', width=-1, height=-1), '1 images without width and height'),
}


@pytest.mark.parametrize(('data', 'note'), ODD.values(), ids=ODD)
def test_odd_truth_is_that_of_the_format(data, note):
    before = json.dumps(data)
    tidied, (said,) = tidy(data, lambda name: (20, 10) if name == 'x/a.png' else None)
    assert tidied == truth()
    assert said.startswith(note)
    assert json.dumps(data) == before


def test_plain_truth_stays():
    assert tidy(truth()) == (truth(), [])
    assert as_one_class(truth()) == (truth(), [], {1})


def test_size_of_a_mask():
    data = changed('images', width=-1)
    data['annotations'][0]['segmentation'] = dict(size=[10, 20], counts='x')
    assert tidy(data)[0]['images'][0] == truth()['images'][0]


@pytest.mark.parametrize('value', ['1a', '', '-1', 1.5, True, None, '1' * 30, '²'])
def test_what_is_no_whole_number_stays_and_is_refused(value):
    data, notes = tidy(changed('images', id=value))
    assert (data['images'][0]['id'], notes) == (value, [])
    with pytest.raises(UserError):
        parse_truth(data, 'x')


def test_categories_of_any_id_and_name():
    data = truth()
    data['categories'] = [dict(id=0, name='tumor'), dict(id=7, name='other')]
    data['annotations'].append(dict(data['annotations'][0], id=2, category_id=7))
    data['annotations'][0]['category_id'] = 0
    one, (note,), known = as_one_class(data)
    assert note == '2 categories (tumor, other), all taken for nuclei'
    images = parse_truth(one, 'x')
    assert len(images[0].rles) == 2
    results = [dict(image_id='1', category_id=number, score=0.5, segmentation=SQUARE)
               for number in (0, 7.0, 1)]  # fmt: skip
    found = parse_results(tidy_results(results, known), images, 'y')
    assert len(found[1].rles) == 3
    with pytest.raises(UserError, match='category_id is 5'):
        parse_results(tidy_results([dict(results[0], category_id=5)], known), images, 'y')


@pytest.mark.parametrize('annotations', [{}, dict(annotations=None), dict(annotations=3)])
def test_truth_without_annotations_is_refused_as_such(annotations):
    data = truth()
    del data['annotations']
    data = dict(data, categories=[dict(id=0, name='tumor')], **annotations)
    one, notes, known = as_one_class(data)
    assert (one, notes, known) == (data, [], {1})
    with pytest.raises(UserError, match=r'x: .*annotations'):
        parse_truth(one, 'x')


@pytest.mark.parametrize(('data', 'note'), ODD.values(), ids=ODD)
def test_score_and_prepare_read_odd_truth(tmp_path, capsys, data, note):
    (tmp_path / 'x').mkdir()
    Image.fromarray(np.full((10, 20, 3), 200, np.uint8)).save(tmp_path / 'x/a.png')
    data = json.loads(json.dumps(data))
    data['categories'][0]['name'] = 'Kern'
    (tmp_path / 'truth.json').write_text(json.dumps(data))
    results = [dict(image_id=1, category_id=1, score=0.9, segmentation=SQUARE)]
    (tmp_path / 'answer.json').write_text(json.dumps(results))
    paths = [str(tmp_path / name) for name in ('truth.json', 'answer.json', 'scores.json', 'out')]
    assert score.main([*paths[:2], '--json', paths[2]]) == 0
    assert json.loads((tmp_path / 'scores.json').read_text())['pooled']['PQ'] == 1
    assert f'truth.json: {note}' in capsys.readouterr().err
    assert prepare.main(['coco', paths[0], paths[3], '--workers', '1']) == 0
    assert f'truth.json: {note}' in capsys.readouterr().out
    written = json.loads((tmp_path / 'out/annotations/train.json').read_text())
    assert written['images'] == [dict(id=1, file_name='a.png', height=10, width=20)]
    assert written['annotations'][0]['segmentation'] == SQUARE or len(written['annotations']) == 1


def test_score_takes_category_0(tmp_path):
    data = truth()
    data['categories'][0]['id'] = data['annotations'][0]['category_id'] = 0
    results = [dict(image_id=1, category_id=0, score=0.9, segmentation=SQUARE)]
    for name, content in (('truth', data), ('answer', results)):
        (tmp_path / f'{name}.json').write_text(json.dumps(content))
    paths = [str(tmp_path / name) for name in ('truth.json', 'answer.json')]
    assert score.main([*paths, '--json', str(tmp_path / 'scores.json')]) == 0
    assert json.loads((tmp_path / 'scores.json').read_text())['pooled']['PQ'] == 1


@pytest.mark.parametrize('odd', [[], {}, [[[]]], None, 1.5, True])
def test_ids_that_are_none_are_no_types(odd):
    two = truth()
    two['categories'] = [dict(id=1, name='one'), dict(id=2, name='two')]
    results = [dict(category_id=1), dict(category_id=2)]
    assert has_types(two, results)
    assert not has_types(two, [*results, dict(category_id=odd)])
    two['categories'].append(dict(id=odd, name='three'))
    assert not has_types(two, results)
