"""Reading COCO truth and results: every form that is right, and what is said of the wrong."""

import copy
import gzip
import json
import zipfile

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from nucseg_mmdet.structures.coco import (
    check_truth,
    parse_categories,
    parse_results,
    parse_truth,
    read_results,
    read_truth,
)
from nucseg_mmdet.utils.errors import UserError

SQUARE = [[2.0, 1.0, 6.0, 1.0, 6.0, 5.0, 2.0, 5.0]]  # 4 x 4 px at x 2, y 1
# The same in an image 10 px high and 20 px wide, column by column: 2 empty columns and
# 1 px, then 4 px of every 10.
RUNS = [21, 4, 6, 4, 6, 4, 6, 4, 145]


def make_truth():
    return dict(
        images=[
            dict(id=7, file_name='b.png', height=10, width=20),
            dict(id=3, file_name='a.png', height=30, width=30),
        ],
        categories=[dict(id=1, name='nucleus')],
        annotations=[dict(id=1, image_id=7, category_id=1, segmentation=SQUARE, iscrowd=0)],
    )


def make_results():
    segmentation = dict(size=[10, 20], counts=RUNS)
    return [
        dict(image_id=7, category_id=1, score=0.25, segmentation=segmentation),
        dict(image_id=7, category_id=1, score=1, segmentation=SQUARE, bbox=[0, 0, 9, 9]),
    ]


def square_mask():
    mask = np.zeros((10, 20), dtype=np.uint8, order='F')
    mask[1:5, 2:6] = 1
    return mask


def test_truth_by_image():
    first, second = parse_truth(make_truth(), 'truth')
    assert (first.id, first.file_name, first.height, first.width) == (3, 'a.png', 30, 30)
    assert (first.rles, first.areas.tolist()) == ([], [])
    assert (second.id, second.file_name, second.height, second.width) == (7, 'b.png', 10, 20)
    assert second.areas.tolist() == [16]
    assert (coco_mask.decode(second.rles)[..., 0] == square_mask()).all()


def test_results_by_image():
    found = parse_results(make_results(), parse_truth(make_truth(), 'truth'), 'results')
    assert set(found) == {3, 7}
    assert found[3].scores.shape == (0,)
    assert found[7].scores.tolist() == [0.25, 1.0]
    assert found[7].areas.tolist() == [16, 16]


def test_every_form_of_a_mask_is_the_same():
    compressed = coco_mask.encode(square_mask())
    forms = [
        SQUARE,
        dict(size=[10, 20], counts=RUNS),
        dict(size=[10, 20], counts=compressed['counts']),
        dict(size=[10, 20], counts=compressed['counts'].decode()),
        # Two polygons of one nucleus are joined.
        [[2, 1, 4, 1, 4, 5, 2, 5], [4, 1, 6, 1, 6, 5, 4, 5]],
    ]
    results = [dict(make_results()[0], segmentation=form) for form in forms]
    found = parse_results(results, parse_truth(make_truth(), 'truth'), 'results')[7]
    assert [rle['counts'] for rle in found.rles] == [compressed['counts']] * len(forms)


@pytest.mark.parametrize('name', ['results.json', 'results.json.gz', 'answer.zip'])
def test_every_kind_of_file_is_the_same(tmp_path, name):
    text, path = json.dumps(make_results()), tmp_path / name
    if name.endswith('zip'):
        with zipfile.ZipFile(path, 'w') as archive:
            archive.writestr('answer.json', text)
    else:
        path.write_bytes(
            gzip.compress(text.encode(), mtime=0) if name.endswith('gz') else text.encode()
        )
    truth = tmp_path / 'truth.json'
    truth.write_text(json.dumps(make_truth()))
    assert read_results(path, read_truth(truth))[7].scores.tolist() == [0.25, 1.0]


@pytest.mark.parametrize(
    ('name', 'content', 'message'),
    [
        ('a.json', b'', 'found no valid JSON .*, expected JSON'),
        ('a.json', b'[1, 2', 'found no valid JSON .*, expected JSON'),
        ('a.json', b'\xff\xfe\x00', 'found no valid JSON .*, expected JSON'),
        ('a.json.gz', b'[]', 'found a damaged archive'),
        ('a.json.gz', gzip.compress(b'[1, 2, 3]', mtime=0)[:-9], 'found a damaged archive'),
        ('a.zip', b'[]', 'found a damaged archive'),
    ],
)
def test_refuses_files_that_are_not_json(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(UserError, match=f'{name}: {message}'):
        read_truth(path)


def test_refuses_a_zip_file_without_answer_json(tmp_path):
    path = tmp_path / 'a.zip'
    with zipfile.ZipFile(path, 'w') as archive:
        archive.writestr('folder/answer.json', '[]')
    with pytest.raises(UserError, match=r'a\.zip: found no answer\.json at its root'):
        read_truth(path)


def test_refuses_a_missing_file(tmp_path):
    with pytest.raises(UserError, match=r'none\.json: No such file'):
        read_truth(tmp_path / 'none.json')


def put(data, keys, value):
    """Set one entry of nested lists and dictionaries, or delete it if the value is None."""
    data = copy.deepcopy(data)
    *parents, last = keys
    target = data
    for key in parents:
        target = target[key]
    if value is None:
        del target[last]
    else:
        target[last] = value
    return data


@pytest.mark.parametrize(
    ('keys', 'value', 'message'),
    [
        (('images',), None, r'T: found no images, expected one'),
        (('images',), [], r'T: found no images, expected at least one'),
        (('images',), 5, r'T: images is 5, expected list'),
        (('images', 1, 'id'), 7, r'T: image 1: id 7 is taken'),
        (('images', 1, 'height'), '30', r"T: image 1: height is '30', expected int"),
        (('images', 1, 'height'), -30, r'T: image 1: is -30 x 30 px, expected 1 to 4,294,967,295'),
        (('images', 1, 'height'), 0, r'T: image 1: is 0 x 30 px'),
        (('images', 1, 'height'), 2**32, r'T: image 1: is 4294967296 x 30 px'),
        (('images', 0), 5, r'T: image 0: found int, expected an object'),
        (('categories',), [], r'T: categories have ids \[\], expected different ones'),
        (('categories',), [dict(id=1)] * 2, r'T: categories have ids \[1, 1\], expected different'),
        (('categories', 0, 'id'), 2, r'T: annotation 0: category_id is 1, expected 2'),
        (('annotations', 0, 'image_id'), 8, r'T: annotation 0: image_id is 8, .* \[3, 7\]'),
        (('annotations', 0, 'category_id'), 0, r'T: annotation 0: category_id is 0, expected 1'),
        (('annotations', 0, 'iscrowd'), 1, r'T: annotation 0: is a crowd'),
        (('annotations', 0, 'segmentation'), None, r'T: mask 0: found no segmentation'),
        # pycocotools would take four numbers for a box.
        (
            ('annotations', 0, 'segmentation'),
            [[2, 1, 4, 4]],
            r'T: mask 0: polygon is \[2, 1, 4, 4\]',
        ),
        (('annotations', 0, 'segmentation', 0, 7), None, r'T: mask 0: polygon is'),
        (('annotations', 0, 'segmentation', 0, 0), float('nan'), r'T: mask 0: polygon is \[nan'),
        (('annotations', 0, 'segmentation', 0, 0), 1e9, r'T: mask 0: polygon is .* in the image'),
        pytest.param(
            ('annotations', 0, 'segmentation', 0, 0), 10**400, r'T: mask 0: polygon is', id='huge'
        ),
        (('annotations', 0, 'segmentation', 0, 0), 'x', r'T: mask 0: polygon is'),
    ],
)
def test_says_what_is_wrong_with_the_truth(keys, value, message):
    with pytest.raises(UserError, match=message):
        parse_truth(put(make_truth(), keys, value), 'T')


@pytest.mark.parametrize(
    ('keys', 'value', 'message'),
    [
        ((0, 'image_id'), 8, r'R: result 0: image_id is 8, expected one of \[3, 7\]'),
        ((0, 'image_id'), '7', r"R: result 0: image_id is '7', expected int"),
        ((1, 'category_id'), 0, r'R: result 1: category_id is 0, expected 1'),
        ((1, 'score'), None, r'R: result 1: found no score'),
        ((1, 'score'), float('nan'), r'R: result 1: score is nan, expected 0 to 1'),
        ((1, 'score'), float('inf'), r'R: result 1: score is inf, expected 0 to 1'),
        ((1, 'score'), 97.2, r'R: result 1: score is 97\.2, expected 0 to 1'),
        ((1, 'score'), -0.1, r'R: result 1: score is -0\.1, expected 0 to 1'),
        pytest.param((1, 'score'), 10**400, r'R: result 1: score is 1000.*, expected', id='huge'),
        ((1, 'score'), '1', r"R: result 1: score is '1', expected int \| float"),
        ((1, 'score'), True, r'R: result 1: score is True, expected int \| float'),
        ((1,), 5, r'R: result 1: found int, expected an object'),
        ((0, 'segmentation', 'size'), [20, 10], r'R: mask 0: .*\[20, 10\], expected \[10, 20\]'),
        ((0, 'segmentation', 'size'), None, r'R: mask 0: found no size'),
        ((0, 'segmentation', 'counts'), 5, r'R: mask 0: counts is 5'),
        ((0, 'segmentation', 'counts', 0), 20, r'R: mask 0: runs cover 199 px, expected 10 x 20'),
        ((0, 'segmentation', 'counts', 0), -21, r'R: mask 0: counts are \[-21, .*expected 0 to'),
        (
            (0, 'segmentation', 'counts', 0),
            2**32,
            r'R: mask 0: counts are \[4294967296, .*to 4,294,967,295',
        ),
        ((0, 'segmentation', 'counts', 0), 21.0, r'R: mask 0: counts are \[21.0, .*expected 0 to'),
        ((0, 'segmentation', 'counts'), 'e04', r'R: mask 0: runs cover'),
        ((0, 'segmentation', 'counts'), '~', r'R: mask 0: counts have a character outside'),
        ((1, 'segmentation'), [], r'R: mask 1: found no polygons, expected at least one'),
    ],
)
def test_says_what_is_wrong_with_the_results(keys, value, message):
    with pytest.raises(UserError, match=message):
        parse_results(put(make_results(), keys, value), parse_truth(make_truth(), 'T'), 'R')


def test_labels_are_places_among_the_categories():
    truth, results = make_truth(), make_results()
    truth['categories'] = [dict(id=5, name='b'), dict(id=1, name='a'), dict(id=3)]
    truth['annotations'][0]['category_id'] = 5
    images = parse_truth(truth, 'T')
    by_image = {image.id: image.labels.tolist() for image in images}
    first = truth['annotations'][0]['image_id']
    assert by_image[first][0] == 0
    assert sorted(label for labels in by_image.values() for label in labels) == [
        0,
        *[1] * (len(truth['annotations']) - 1),
    ]
    assert parse_categories(truth, 'T') == {5: 'b', 1: 'a', 3: ''}
    results[0]['category_id'] = 3
    found = parse_results(results, images, 'R', [5, 1, 3])
    assert found[results[0]['image_id']].labels[0] == 2


def test_refuses_other_documents():
    with pytest.raises(UserError, match='T: found list, expected a COCO object'):
        parse_truth([], 'T')
    with pytest.raises(UserError, match='R: found dict, expected a list of COCO results'):
        parse_results({}, [], 'R')


def training_truth(**changes):
    """One image and one annotation as mmdet reads it, changed."""
    annotation = dict(
        id=1, image_id=1, category_id=2, area=100, bbox=[0, 0, 10, 10], iscrowd=0,
        segmentation=[[0, 0, 10, 0, 10, 10, 0, 10]],
    )  # fmt: skip
    image = dict(id=1, file_name='a.png', height=20, width=30)
    categories = [dict(id=1, name='one'), dict(id=2, name='two')]
    return dict(
        images=[image | changes.pop('image', {})],
        annotations=[annotation | changes],
        categories=categories,
    )


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (dict(category_id=3), r'category_id is 3, expected one of \[1, 2\]'),
        (dict(image_id=7), 'image_id is 7'),
        (dict(id='1'), "id is '1', expected int"),
        (dict(bbox=[0, 0, 10]), 'bbox is'),
        (dict(bbox=[0, 0, 10, float('nan')]), 'bbox is'),
        (dict(bbox=[0, 0, 10**30, 10]), 'bbox is'),
        (dict(area='x'), 'area is'),
        (dict(area=float('inf')), 'area is'),
        (dict(segmentation=[[1, 1]]), 'polygon is'),
        (dict(segmentation=[[float('nan'), 0, 10, 0, 10, 10]]), 'polygon is'),
        (dict(image=dict(width='x')), "width is 'x', expected int"),
        (dict(image=dict(height=-20)), 'expected 1 to'),
    ],
)
def test_truth_to_train_on_is_checked_as_any_other(changes, message):
    check_truth(training_truth(), 'a.json')
    with pytest.raises(UserError, match=f'a.json: .*{message}'):
        check_truth(training_truth(**changes), 'a.json')
