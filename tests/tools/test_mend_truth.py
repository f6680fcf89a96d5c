"""The tool that mends truth by what a model finds."""

import json

import numpy as np
import pytest

from nucseg_mmdet.structures.coco import read_truth
from nucseg_mmdet.structures.coco_entries import make_annotations, make_categories, make_image
from nucseg_mmdet.structures.rle import label_map
from tools.analysis_tools.mend_truth import main, mend


def paint(*boxes):
    """A label map of 16 x 24 px with boxes x, y, width, height, px."""
    labels = np.zeros((16, 24), np.int32)
    for number, (x, y, width, height) in enumerate(boxes, start=1):
        labels[y : y + height, x : x + width] = number
    return labels


def test_what_is_drawn_as_two_becomes_one():
    mended = mend(paint((2, 2, 4, 6), (6, 2, 4, 6)), paint((2, 2, 8, 6)))
    np.testing.assert_array_equal(mended, paint((2, 2, 8, 6)))


def test_half_of_a_part_is_enough():
    truth, found = paint((2, 2, 4, 6), (6, 2, 6, 6)), paint((2, 2, 7, 6))  # all and a half of them
    np.testing.assert_array_equal(mend(truth, found), found)


def test_less_than_half_of_a_part_is_not():
    truth, found = paint((2, 2, 4, 6), (6, 2, 7, 6)), paint((2, 2, 7, 6))
    np.testing.assert_array_equal(mend(truth, found), truth)


def test_parts_are_replaced_with_what_covers_them_alone():
    truth = paint((2, 2, 4, 6), (6, 2, 4, 6), (10, 2, 8, 6))
    mended = mend(truth, paint((2, 2, 9, 6)))  # of the third it covers an eighth
    np.testing.assert_array_equal(mended, paint((2, 2, 9, 6), (11, 2, 7, 6)))


def test_an_outline_stays_where_one_nucleus_is_found_as_one():
    truth = paint((4, 2, 6, 6))
    np.testing.assert_array_equal(mend(truth, paint((3, 1, 8, 8))), truth)


def test_what_the_truth_lacks_is_there_and_what_the_model_misses_stays():
    mended = mend(paint((12, 2, 6, 6)), paint((2, 2, 6, 6)))
    np.testing.assert_array_equal(mended, paint((2, 2, 6, 6), (12, 2, 6, 6)))


def test_what_is_added_gets_the_room_that_is_left():
    truth = paint((4, 2, 10, 6))
    mended = mend(truth, paint((0, 2, 6, 6)))  # a third of it lies on a fifth of the truth
    np.testing.assert_array_equal(mended, paint((0, 2, 4, 6), (4, 2, 10, 6)))


def test_what_has_less_than_half_of_its_room_is_not_added():
    truth = paint((4, 2, 10, 6))
    np.testing.assert_array_equal(mend(truth, paint((2, 2, 5, 6))), truth)


@pytest.mark.parametrize('truth', [paint(), paint((2, 2, 6, 6))])
def test_without_anything_found_the_truth_is_as_it_was(truth):
    np.testing.assert_array_equal(mend(truth, paint()), truth)


@pytest.fixture
def files(tmp_path):
    """Truth of one nucleus in two halves, and a result of it whole, beside an unsure one."""
    truth = paint((2, 2, 4, 6), (6, 2, 4, 6))
    whole, unsure = make_annotations(paint((2, 2, 8, 6), (14, 2, 6, 6)), 7)
    content = dict(
        images=[make_image(7, 'a.png', 16, 24, 'kidney')],
        annotations=make_annotations(truth, 7),
        categories=make_categories(),
    )
    (tmp_path / 'truth.json').write_text(json.dumps(content))
    results = [dict(whole, score=0.9), dict(unsure, score=0.6)]
    (tmp_path / 'results.json').write_text(json.dumps(results))
    return [str(tmp_path / name) for name in ('truth.json', 'results.json', 'mended.json')]


def test_truth_is_written_that_can_be_trained_on(files, capsys, tmp_path):
    assert main([*files, '--score-thr', '0.7']) == 0
    assert capsys.readouterr().out == 'a.png: 2 nuclei, 1 mended\n'
    (image,) = read_truth(tmp_path / 'mended.json')
    np.testing.assert_array_equal(label_map(image.rles, 16, 24), paint((2, 2, 8, 6)))
    record = json.loads((tmp_path / 'mended.json').read_text())['images'][0]
    assert (record['id'], record['file_name'], record['organ']) == (7, 'a.png', 'kidney')


def test_what_is_read_of_odd_truth_is_written(files, tmp_path):
    """An image's number as text, which the truth may have and what is trained on may not."""
    content = json.loads((tmp_path / 'truth.json').read_text())
    for entry, key in [
        (content['images'][0], 'id'),
        *((a, 'image_id') for a in content['annotations']),
    ]:
        entry[key] = str(entry[key])
    (tmp_path / 'truth.json').write_text(json.dumps(content))
    assert main([*files, '--score-thr', '0.7']) == 0
    (image,) = read_truth(tmp_path / 'mended.json')
    assert (image.id, len(image.rles)) == (7, 1)


@pytest.mark.parametrize('order', [slice(None), slice(None, None, -1)])
def test_a_nucleus_in_another_stays_whatever_the_order(files, capsys, tmp_path, order):
    content = json.loads((tmp_path / 'truth.json').read_text())
    within = [paint((6, 4, 4, 4)), paint((2, 2, 16, 10))]  # a small one, and one around it
    apart = [annotation for labels in within for annotation in make_annotations(labels, 7)]
    content['annotations'] = [dict(a, id=i) for i, a in enumerate(apart[order], 1)]
    (tmp_path / 'truth.json').write_text(json.dumps(content))
    (tmp_path / 'results.json').write_text('[]')
    assert main([*files, '--score-thr', '0.7']) == 0
    assert capsys.readouterr().out == 'a.png: 2 nuclei, 2 mended\n'
    (image,) = read_truth(tmp_path / 'mended.json')
    assert sorted(image.areas) == [16, 160 - 16]


def test_the_truth_is_not_replaced(files, capsys, tmp_path):
    before = (tmp_path / 'truth.json').read_bytes()
    assert main([*files[:2], files[0], '--score-thr', '0.7']) == 2
    assert 'truth.json: is read as well, expected another place' in capsys.readouterr().err
    assert (tmp_path / 'truth.json').read_bytes() == before


def test_an_impossible_score_is_refused(files, capsys, tmp_path):
    assert main([*files, '--score-thr', '7']) == 2
    assert '--score-thr' in capsys.readouterr().err
    assert not (tmp_path / 'mended.json').exists()


@pytest.mark.parametrize('category_id', [1, 2])  # of results without types, and with them
def test_truth_of_several_classes_is_refused(files, capsys, tmp_path, category_id):
    content = json.loads((tmp_path / 'truth.json').read_text())
    content['categories'] = make_categories(['stroma', 'tumor'])
    (tmp_path / 'truth.json').write_text(json.dumps(content))
    results = json.loads((tmp_path / 'results.json').read_text())
    results[0]['category_id'] = category_id
    (tmp_path / 'results.json').write_text(json.dumps(results))
    assert main([*files, '--score-thr', '0.7']) == 2
    assert 'truth.json: has 2 categories, expected one' in capsys.readouterr().err
    assert not (tmp_path / 'mended.json').exists()
