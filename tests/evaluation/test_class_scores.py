"""Scores of several classes, by hand."""

import json

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from nucseg_mmdet.commands import score
from nucseg_mmdet.evaluation.class_scores import class_scores, count_classes, flatten
from nucseg_mmdet.evaluation.summary import score_classes
from nucseg_mmdet.structures.coco import parse_results, parse_truth

NAMES = ('large', 'small')


def squares(*corners, side=10, size=80):
    labels = np.zeros((size, size), np.int32)
    for number, (x, y) in enumerate(corners, start=1):
        labels[y : y + side, x : x + side] = number
    return labels


EMPTY = squares()


def test_one_image_by_hand():
    # large: the first is found shifted by 2 px (IoU 80 / 120), the second is called small.
    # small: one is found exactly, one is missed, one is made up far away.
    truth = [squares((5, 5), (25, 5)), squares((5, 40), (25, 40))]
    pred = [squares((7, 5)), squares((25, 5), (5, 40), (60, 60))]
    counts = count_classes(truth, pred)
    assert counts.truth.tolist() == [2, 2]
    assert counts.pred.tolist() == [1, 3]
    assert counts.matched.tolist() == [1, 1]
    assert counts.iou_sum.tolist() == pytest.approx([80 / 120, 1.0])
    assert counts.pairs.tolist() == [[1, 1], [0, 1]]
    scores = class_scores([counts], NAMES)
    large, small = scores['classes']
    # PQ = 2 sum / (truth + pred): 2 * 2/3 / 3 and 2 * 1 / 5.
    assert large['PQ'] == pytest.approx(4 / 9)
    assert small['PQ'] == pytest.approx(2 / 5)
    assert large['DQ'] * large['SQ'] == pytest.approx(large['PQ'])
    assert scores['mPQ+'] == scores['mPQ'] == pytest.approx((4 / 9 + 2 / 5) / 2)
    # Of 4 true and 4 predicted nuclei 3 are paired: 2 * 3 / 8.
    assert scores['F_d'] == pytest.approx(6 / 8)
    # large: TP 1, FN 1 (called small), none alone: 2 / (2 + 2).
    assert large['F_c'] == pytest.approx(2 / 4)
    # small: TP 1, FP 1, FP_d 1, FN_d 1: 2 / (2 + 2 + 1 + 1).
    assert small['F_c'] == pytest.approx(2 / 6)
    assert (small['precision'], small['recall']) == pytest.approx((1 / 3, 1 / 2))
    assert flatten(scores)['F_c_small'] == small['F_c']


def test_two_found_in_each_class_by_hand():
    # large: IoU 80 / 100 and 50 / 100, which is not above 0.5; small: two exactly.
    truth = [squares((5, 5), (30, 5)), squares((5, 40), (30, 40), (55, 40))]
    pred = [squares((5, 5), (30, 5)), squares((5, 40), (30, 40))]
    pred[0][5:15, 5:7] = 0
    pred[0][5:15, 30:35] = 0
    counts = count_classes(truth, pred)
    assert counts.matched.tolist() == [1, 2]
    assert counts.iou_sum.tolist() == pytest.approx([0.8, 2])
    scores = class_scores([counts], NAMES)
    assert [one['DQ'] for one in scores['classes']] == pytest.approx([2 / 4, 4 / 5])
    assert [one['F_c'] for one in scores['classes']] == pytest.approx([1, 4 / 5])


def test_the_two_means_differ():
    """Sums over all images first, or the images' own means, where their truth has the class."""
    found = count_classes([squares((5, 5), (25, 5), (45, 5)), EMPTY], [squares((5, 5)), EMPTY])
    false = count_classes([EMPTY, squares((5, 5))], [squares((5, 40)), squares((5, 5))])
    scores = class_scores([found, false], NAMES)
    # large: IoU 1 in all, 3 true and 2 predicted nuclei; small: all right.
    assert scores['mPQ+'] == pytest.approx((2 / 5 + 1) / 2)
    # First image 2 / 4; in the second one large is not in the truth, so its mistake is not seen.
    assert scores['mPQ'] == pytest.approx((2 / 4 + 1) / 2)


def test_pairs_end_at_12_px():
    near = count_classes([squares((5, 5)), EMPTY], [EMPTY, squares((5, 17))])
    far = count_classes([squares((5, 5)), EMPTY], [EMPTY, squares((5, 18))])
    assert near.pairs.tolist() == [[0, 1], [0, 0]]
    assert far.pairs.sum() == 0


def test_nothing_at_all_is_undefined():
    scores = class_scores([count_classes([EMPTY] * 2, [EMPTY] * 2)], NAMES)
    assert np.isnan([scores['mPQ+'], scores['mPQ'], scores['F_d']]).all()
    assert np.isnan([one['F_c'] for one in scores['classes']]).all()
    assert class_scores([], NAMES)['pairs'] == [[0, 0], [0, 0]]


def as_rle(labels, number):
    mask = coco_mask.encode(np.asfortranarray(labels == number, np.uint8))
    return dict(size=list(mask['size']), counts=mask['counts'].decode())


def make_files():
    """Two nuclei of either class; two predictions lie on one nucleus, the surer one is wrong."""
    maps = [squares((5, 5)), squares((40, 40))]
    truth = dict(
        images=[dict(id=1, file_name='a.png', height=80, width=80)],
        categories=[dict(id=4, name='large'), dict(id=2, name='small')],
        annotations=[
            dict(id=1 + place, image_id=1, category_id=kind, segmentation=as_rle(labels, 1))
            for place, (kind, labels) in enumerate(zip((4, 2), maps, strict=True))
        ],
    )
    results = [
        dict(image_id=1, category_id=kind, score=value, segmentation=as_rle(labels, 1))
        for kind, value, labels in [(4, 0.6, maps[0]), (2, 0.9, maps[0]), (2, 0.8, maps[1])]
    ]
    return truth, results


def test_a_pixel_has_one_class():
    truth, results = make_files()
    images = parse_truth(truth, 'truth')
    assert images[0].labels.tolist() == [0, 1]  # by the order in the file, not by the id
    found = parse_results(results, images, 'results', [4, 2])
    scores = score_classes(images, found, 0.5, NAMES)
    assert [one['results'] for one in scores['classes']] == [0, 2]
    assert scores['pairs'] == [[0, 1], [0, 1]]


def test_the_command_scores_classes_where_both_files_have_them(tmp_path, capsys):
    truth, results = make_files()
    (tmp_path / 'truth.json').write_text(json.dumps(truth))
    (tmp_path / 'typed.json').write_text(json.dumps(results))
    plain = [dict(result, category_id=1) for result in results]
    (tmp_path / 'plain.json').write_text(json.dumps(plain))
    out = tmp_path / 'out.json'
    paths = [str(tmp_path / name) for name in ('truth.json', 'typed.json')]
    assert score.main([*paths, '--json', str(out)]) == 0
    shown = capsys.readouterr().out
    # large: 1 true nucleus, none predicted; small: IoU 1 for 1 of 2 predicted.
    _, after = shown.split('F_c\n')
    line = after.splitlines()[1]
    assert line.split() == [
        'small',
        '1',
        '2',
        '0.6667',
        '0.6667',
        '1.0000',
        '0.5000',
        *line.split()[7:],
    ]
    assert json.loads(out.read_text())['types']['mPQ+'] == pytest.approx((0 + 2 / 3) / 2)
    assert json.loads(out.read_text())['scores']['PQ'] == pytest.approx(1.0)  # of any class

    assert score.main([paths[0], str(tmp_path / 'plain.json')]) == 0
    shown = capsys.readouterr()
    assert 'F_c' not in shown.out
    assert '2 categories (large, small), all taken for nuclei' in shown.err


@pytest.mark.parametrize(
    ('names', 'category', 'message'),
    [
        (('a', 'a'), None, 'truth.json: categories are a, a, expected different names'),
        (('a', 'b'), 77, 'results.json: result 1: category_id is 77, expected one of [1, 2, 4]'),
    ],
)
def test_ambiguous_classes_are_refused(tmp_path, capsys, names, category, message):
    truth, results = make_files()
    for one, name in zip(truth['categories'], names, strict=True):
        one['name'] = name
    if category:
        results[1]['category_id'] = category
    paths = [tmp_path / name for name in ('truth.json', 'results.json')]
    for path, content in zip(paths, (truth, results), strict=True):
        path.write_text(json.dumps(content))
    assert score.main([str(path) for path in paths]) == 2
    assert message in capsys.readouterr().err


def test_classes_without_names_are_told_by_their_ids(tmp_path):
    truth, results = make_files()
    for one in truth['categories']:
        del one['name']
    paths = [tmp_path / name for name in ('truth.json', 'results.json', 'scores.json')]
    for path, content in zip(paths, (truth, results), strict=False):
        path.write_text(json.dumps(content))
    assert score.main([str(paths[0]), str(paths[1]), '--json', str(paths[2])]) == 0
    types = json.loads(paths[2].read_text())['types']
    assert [one['name'] for one in types['classes']] == ['category 4', 'category 2']
