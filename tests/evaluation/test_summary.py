"""COCO scores against pycocotools and by hand; label maps of results; the tool."""

import contextlib
import io
import json
import math
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from nucseg_mmdet.commands.score import main
from nucseg_mmdet.evaluation.coco_ap import coco_scores
from nucseg_mmdet.evaluation.label_scores import scores
from nucseg_mmdet.evaluation.summary import count_images, make_report, note_on_hidden, paint_truth
from nucseg_mmdet.structures import rle
from nucseg_mmdet.structures.coco import parse_results, parse_truth

SIZE = 80


def rectangle(x, y, width, height):
    return [[float(v) for v in (x, y, x + width, y, x + width, y + height, x, y + height)]]


def make_truth(*images, size=SIZE):
    """COCO truth; each image is a list of rectangles x, y, width, height."""
    return dict(
        images=[
            dict(id=index, file_name=f'image{index}.png', height=size, width=size)
            for index in range(1, len(images) + 1)
        ],
        categories=[dict(id=1, name='nucleus')],
        annotations=[
            dict(id=number, image_id=index, category_id=1, iscrowd=0, area=box[2] * box[3],
                 segmentation=rectangle(*box))
            for number, (index, box) in enumerate(
                ((index, box) for index, boxes in enumerate(images, 1) for box in boxes), 1
            )
        ],
    )  # fmt: skip


def result(image_id, score, *box, size=SIZE):
    rle = coco_mask.merge(coco_mask.frPyObjects(rectangle(*box), size, size))
    rle['counts'] = rle['counts'].decode()
    return dict(image_id=image_id, category_id=1, score=score, segmentation=rle)


def score_all(truth, results):
    images = parse_truth(truth, 'truth')
    return coco_scores(images, parse_results(results, images, 'results'))


def score_labels(truth, results, score_thr=0.5):
    images = parse_truth(truth, 'truth')
    (counts,) = count_images(images, parse_results(results, images, 'results'), score_thr)
    return counts


def pycocotools_scores(truth, results):
    with contextlib.redirect_stdout(io.StringIO()):
        api = COCO()
        api.dataset = truth
        api.createIndex()
        evaluation = COCOeval(api, api.loadRes(results), 'segm')
        evaluation.params.maxDets = [100, 3000]
        evaluation.params.areaRng = [[0, 1e10], [0, 180], [180, 380], [380, 1e10]]
        evaluation.params.areaRngLbl = ['all', 'small', 'medium', 'large']
        evaluation.evaluate()
        evaluation.accumulate()
    precision = evaluation.eval['precision']  # IoU, recall, category, area, maxDets
    parts = {
        'AP50@100': precision[0, ..., 0, 0],
        'AP': precision[..., 0, 1],
        'AP50': precision[0, ..., 0, 1],
        'AP75': precision[5, ..., 0, 1],
        'AP_small': precision[..., 1, 1],
        'AP_medium': precision[..., 2, 1],
        'AP_large': precision[..., 3, 1],
    }
    return {key: part[part > -1].mean() for key, part in parts.items()}


@pytest.mark.parametrize('seed', range(3))
def test_equals_pycocotools(seed):
    """More than 100 detections an image, overlapping, with equal scores, over all sizes."""
    rng = np.random.default_rng(seed)
    truth_boxes, results = [], []
    for image_id in (1, 2):
        boxes = np.hstack([rng.integers(0, 55, (90, 2)), rng.integers(6, 26, (90, 2))])
        truth_boxes.append(boxes.tolist())
        for box in boxes[rng.integers(0, 90, 140)]:
            moved = (box + rng.integers(-2, 3, 4)).clip(0)
            results.append(result(image_id, rng.integers(1, 30) / 30, *moved))
    truth = make_truth(*truth_boxes)
    found = score_all(truth, results)
    found.pop('AP50@100_ceiling')
    assert min(found.values()) > 0.01
    assert found == pytest.approx(pycocotools_scores(truth, results), abs=1e-9)


def grid(count, side=3, step=4):
    """That many squares which do not touch, in an image of SIZE px."""
    columns = SIZE // step
    return [(step * (i % columns), step * (i // columns), side, side) for i in range(count)]


@pytest.mark.parametrize(('count', 'ceiling'), [(50, 1.0), (200, 51 / 101), (400, 26 / 101)])
def test_perfect_results_reach_the_ceiling(count, ceiling):
    boxes = grid(count)
    results = [result(1, 1 - index / 1000, *box) for index, box in enumerate(boxes)]
    truth = make_truth(boxes)
    found = score_all(truth, results)
    assert found['AP50@100'] == found['AP50@100_ceiling'] == pytest.approx(ceiling, abs=1e-12)
    assert [found[key] for key in ('AP', 'AP50', 'AP75', 'AP_small')] == [1, 1, 1, 1]
    assert math.isnan(found['AP_medium'])
    assert math.isnan(found['AP_large'])


def test_nothing_found():
    assert score_all(make_truth(grid(3)), [])['AP'] == 0
    assert score_all(make_truth(grid(3)), [result(1, 0.9, 60, 60, 9, 9)])['AP'] == 0


def test_half_found():
    """Recalls 0.00 to 0.50 are 51 of 101; a false one with a lower score does not matter."""
    truth = make_truth([(0, 0, 10, 10), (20, 0, 10, 10)])
    results = [result(1, 0.9, 0, 0, 10, 10), result(1, 0.1, 50, 50, 9, 9)]
    assert score_all(truth, results)['AP'] == pytest.approx(51 / 101, abs=1e-12)
    # With a higher score it halves the precision.
    results[1]['score'] = 0.95
    assert score_all(truth, results)['AP'] == pytest.approx(51 / 101 / 2, abs=1e-12)


def test_iou_thresholds():
    """IoU 7/10: right at 0.5, 0.55, 0.6, 0.65 and 0.7, that is 5 of 10."""
    found = score_all(make_truth([(0, 0, 10, 10)]), [result(1, 0.9, 0, 0, 7, 10)])
    assert [found[key] for key in ('AP50', 'AP75', 'AP')] == pytest.approx([1, 0, 0.5], abs=1e-12)


def test_without_truth_undefined():
    found = score_all(make_truth([]), [result(1, 0.9, 0, 0, 9, 9)])
    assert all(math.isnan(value) for value in found.values())


def test_size_bands():
    """100, 200 and 400 px, only the second found: 34 of 101 recalls up to 1/3."""
    truth = make_truth([(0, 0, 10, 10), (20, 0, 20, 10), (50, 0, 20, 20)])
    found = score_all(truth, [result(1, 0.9, 20, 0, 20, 10)])
    keys = ('AP', 'AP_small', 'AP_medium', 'AP_large')
    assert [found[key] for key in keys] == pytest.approx([34 / 101, 0, 1, 0], abs=1e-12)


def test_boxes_play_no_part():
    """A false detection of 100 px, which is small; its wrong box would make it large."""
    truth = make_truth([(0, 0, 10, 10), (50, 0, 20, 20)])
    results = [result(1, 0.9, 30, 30, 10, 10), result(1, 0.8, 50, 0, 20, 20)]
    bare = score_all(truth, results)
    assert bare['AP_large'] == 1
    boxed = [dict(item, bbox=[0, 0, 40, 40]) for item in results]
    assert score_all(truth, boxed) == pytest.approx(bare, abs=0, nan_ok=True)


def test_an_annotation_with_id_0_counts():
    truth = make_truth([(0, 0, 10, 10)])
    truth['annotations'][0]['id'] = 0
    assert score_all(truth, [result(1, 0.9, 0, 0, 10, 10)])['AP'] == 1


def test_only_the_best_100_of_an_image_count():
    """The one right detection is the 101st by its score."""
    truth = make_truth([(70, 70, 10, 10)])
    wrong = [result(1, 0.9, 0, 0, 5, 5)] * 100
    found = score_all(truth, [*wrong, result(1, 0.1, 70, 70, 10, 10)])
    assert found['AP50@100'] == 0
    assert found['AP50'] == pytest.approx(1 / 101, abs=1e-12)  # precision 1 of 101
    found = score_all(truth, [*wrong[1:], result(1, 0.1, 70, 70, 10, 10)])
    assert found['AP50@100'] == pytest.approx(1 / 100, abs=1e-12)


@pytest.mark.parametrize('order', [(0, 1), (1, 0)])
def test_higher_score_keeps_the_pixel(order):
    """Two of 10 x 10 px share 40 px: the better keeps 100, the other 60."""
    results = [result(1, 0.9, 0, 0, 10, 10), result(1, 0.8, 6, 0, 10, 10)]
    counts = score_labels(make_truth([(0, 0, 10, 10)]), [results[i] for i in order])
    assert (counts.pred, counts.pred_area, counts.shared_area) == (2, 160, 100)
    assert counts.iou_sum == 1  # the true one is whole
    counts = score_labels(make_truth([(6, 0, 10, 10)]), [results[i] for i in order])
    assert counts.iou_sum == pytest.approx(60 / 100)


def test_equal_scores_first_keeps_the_pixel():
    results = [result(1, 0.9, 0, 0, 10, 10), result(1, 0.9, 6, 0, 10, 10)]
    truth = make_truth([(0, 0, 10, 10)])
    assert score_labels(truth, results).iou_sum == 1
    assert score_labels(truth, results[::-1]).iou_sum == pytest.approx(60 / 100)


def test_score_threshold_is_inclusive():
    truth = make_truth([(0, 0, 10, 10)])
    results = [result(1, 0.5, 0, 0, 10, 10), result(1, 0.49, 30, 0, 10, 10)]
    assert score_labels(truth, results, 0.5).pred == 1
    assert score_labels(truth, results, 0.51).pred == 0
    assert score_labels(truth, results, 0.0).pred == 2


def test_hidden_detection_does_not_count():
    results = [result(1, 0.9, 0, 0, 10, 10), result(1, 0.8, 2, 2, 5, 5)]
    assert score_labels(make_truth([(0, 0, 10, 10)]), results).pred == 1


@pytest.mark.parametrize('order', [(0, 1), (1, 0)])
def test_a_true_nucleus_in_another_is_seen(order):
    """16 of 400 px are the small one's; the prediction's union with each of them is 400 px."""
    boxes = [(10, 10, 20, 20), (18, 18, 4, 4)]
    truth = make_truth([boxes[index] for index in order])
    counts = score_labels(truth, [result(1, 0.9, *boxes[0])])
    assert (counts.truth, counts.truth_area) == (2, 400)
    assert (counts.aji_shared, counts.aji_union) == (400, 800)


@pytest.mark.parametrize('reverse', [False, True])
def test_equal_true_nuclei_have_one_order(reverse):
    boxes = [(10, 10, 10, 10), (15, 10, 10, 10)]
    truth = make_truth(boxes[::-1] if reverse else boxes)
    counts = score_labels(truth, [result(1, 0.9, *boxes[1])])
    assert (counts.truth, counts.iou_sum) == (2, 1.0)  # the one further right keeps all


def test_truth_without_overlaps_is_painted_as_it_comes():
    images = parse_truth(make_truth(grid(100), [(0, 0, 20, 30), (20, 0, 9, 9)]), 'truth')
    for image in images:
        as_it_comes = rle.label_map(image.rles, image.height, image.width)
        np.testing.assert_array_equal(paint_truth(image), as_it_comes)
    assert note_on_hidden(images) is None


def test_true_nuclei_without_a_pixel_are_told(tmp_path, capsys):
    """A duplicate, and one so thin that it has no pixel."""
    truth = make_truth([(0, 0, 10, 10), (0, 0, 10, 10), (30, 0, 10, 10)], [(5, 5, 0, 9)])
    for name, content in (('truth', truth), ('results', [result(1, 0.9, 0, 0, 10, 10)])):
        (tmp_path / name).write_text(json.dumps(content))
    assert main([str(tmp_path / 'truth'), str(tmp_path / 'results')]) == 0
    assert capsys.readouterr().err == (
        f'{tmp_path}/truth: 2 of 4 true nuclei have no pixel of their own, left out of the '
        'label-map scores\n'
    )


def two_images():
    """Image 1: one of two found. Image 2: nothing to find, nothing found."""
    return make_truth([(0, 0, 10, 10), (20, 0, 10, 10)], []), [
        result(1, 0.9, 0, 0, 10, 10),
        result(1, 0.3, 50, 50, 10, 10),
    ]


def test_report():
    truth, results = two_images()
    images = parse_truth(truth, 'truth')
    report = make_report(images, parse_results(results, images, 'results'), 0.5)
    assert [report[key] for key in ('images', 'nuclei', 'results', 'results_kept')] == [2, 2, 2, 1]
    assert report['scores']['AP50'] == pytest.approx(51 / 101)
    assert (report['scores']['AJI'], report['images_in_mean']['AJI']) == (1 / 2, 1)
    assert report['pooled']['PQ'] == pytest.approx(2 / 3)
    first, second = report['per_image']
    assert (first['image_id'], first['file_name'], first['nuclei']) == (1, 'image1.png', 2)
    assert first['AP'] == pytest.approx(51 / 101)
    one_each = dict(found=1, merged=0, split=0, cut=0, missed=1)
    assert first['fates'] == dict(
        all=one_each,
        small=one_each,
        medium=dict.fromkeys(one_each, 0),
        large=dict.fromkeys(one_each, 0),
    )
    assert (first['AJI'], first['recall']) == (1 / 2, 1 / 2)
    assert first['offset'] == [0, 0]
    assert (second['nuclei'], second['results']) == (0, 0)
    assert all(math.isnan(second[key]) for key in ('AP', 'AP50@100_ceiling', 'AJI', 'PQ'))


def test_report_keeps_results_from_the_threshold_on():
    images = parse_truth(make_truth([(0, 0, 10, 10)]), 'truth')
    results = [result(1, score, 0, 0, 10, 10) for score in (0.9, 0.5, 0.49)]
    report = make_report(images, parse_results(results, images, 'results'), 0.5)
    assert (report['results'], report['results_kept']) == (3, 2)


def test_a_nucleus_on_a_limit_counts_in_the_smaller_band():
    truth = make_truth([(0, 0, 1, 1), (0, 10, 18, 10), (0, 30, 20, 19), (30, 0, 20, 20)])
    images = parse_truth(truth, 'truth')  # 1, 180, 380 and 400 px
    report = make_report(images, parse_results([], images, 'results'), 0.5)
    missed = {band: fates['missed'] for band, fates in report['per_image'][0]['fates'].items()}
    assert missed == dict(all=4, small=2, medium=1, large=1)


@pytest.fixture
def files(tmp_path):
    paths = tmp_path / 'truth.json', tmp_path / 'results.json'
    for path, content in zip(paths, two_images(), strict=True):
        path.write_text(json.dumps(content))
    return [str(path) for path in paths]


def test_tool_prints_aligned_tables(files, capsys):
    assert main(files) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == '2 images, 2 nuclei, 2 results'
    cells = {line.split('  ')[0].strip(): line.split() for line in lines}
    # AP50@100, ceiling, AP, AP50, AP75, small; no medium and no large nucleus.
    assert cells['all images'][2:] == ['0.5050', '1.0000', *['0.5050'] * 4, '-', '-']
    # AJI, AJI+, DQ, SQ, PQ, Dice, F1, precision, recall, F1@75
    halves, thirds = '0.5000', '0.6667'
    expected = [halves, halves, thirds, '1.0000', thirds, thirds, thirds, '1.0000', halves, thirds]
    assert cells['mean of images'][3:] == cells['pooled'][1:] == expected
    assert cells['image2'][1:] == ['0', *['-'] * 7]
    found_and_missed = ['2', '50.0', '0.0', '0.0', '0.0', '50.0', '+0.00', '+0.00']
    assert cells['image1'][1:] == cells['all nuclei'][2:] == found_and_missed
    assert cells['medium nuclei'][2:] == ['0', *['-'] * 5]
    for title in ('COCO, masks', 'label maps', '%'):
        start = next(i for i, line in enumerate(lines) if line.startswith(title))
        assert len({len(line) for line in lines[start : start + 4]}) == 1


def test_tool_tells_offsets_weighted_by_found_nuclei(tmp_path, capsys):
    truth = make_truth([(0, 0, 20, 20), (40, 0, 20, 20)], [(0, 0, 20, 20)])
    results = [
        result(1, 0.9, 1, 0, 20, 20),
        result(1, 0.9, 41, 0, 20, 20),
        result(2, 0.9, 0, 3, 20, 20),
    ]
    for name, content in (('truth', truth), ('results', results)):
        (tmp_path / name).write_text(json.dumps(content))
    assert main([str(tmp_path / 'truth'), str(tmp_path / 'results')]) == 0
    lines = capsys.readouterr().out.splitlines()
    cells = {line.split('  ')[0].strip(): line.split()[-2:] for line in lines}
    assert cells['image1'] == ['+1.00', '+0.00']
    assert cells['image2'] == ['+0.00', '+3.00']
    assert cells['all nuclei'] == ['+0.67', '+1.00']


def test_tool_writes_json(files, tmp_path):
    out = tmp_path / 'scores.json'
    assert main([*files, '--json', str(out), '--score-thr', '0.2']) == 0
    report = json.loads(out.read_text())
    assert (report['score_thr'], report['results_kept']) == (0.2, 2)
    assert report['scores']['precision'] == 1 / 2
    assert set(report['scores']) > set(scores(score_labels(make_truth([]), [])))
    assert report['per_image'][1]['AJI'] is None  # JSON has no NaN
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        'results.json',
        'scores.json',
        'truth.json',
    ]


@pytest.mark.parametrize(
    'values', [(0.1, 0.2), ([], []), (2, 2), (float('nan'),), (True,), ('x',), (0.2,)]
)
def test_several_or_odd_thresholds_in_results_need_one(files, capsys, values):
    truth, results = files
    content = json.loads(Path(results).read_text())
    for entry, score_thr in zip(content, values, strict=False):
        entry['score_thr'] = score_thr
    Path(results).write_text(json.dumps(content))
    assert main([truth, results]) == 2
    assert (
        'several or odd score_thr, or not in every result, expected one from 0 to 1, or --score-thr'
        in capsys.readouterr().err
    )
    assert main([truth, results, '--score-thr', '0.2']) == 0


def test_tool_tells_a_user_error_in_one_line(files, tmp_path, capsys):
    truth, results = files
    out = tmp_path / 'scores.json'
    assert main([truth, truth, '--json', str(out)]) == 2
    captured = capsys.readouterr()
    assert captured.err == f'score: {truth}: found dict, expected a list of COCO results\n'
    assert captured.out == ''
    assert not out.exists()
    assert main([truth, results, '--json', str(tmp_path / 'none' / 'scores.json')]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith(
        f'score: {tmp_path}/none/scores.json: cannot be written (No such file'
    )
    assert captured.err.count('\n') == 1


def test_names_are_not_acted_on_by_a_terminal(tmp_path, capsys):
    images = [dict(id=1, file_name='a\nb\x1b[31m.png', height=5, width=5)]
    categories = [dict(id=1, name='n\x1b[2J'), dict(id=2, name='m\nm')]
    truth, results = tmp_path / 'truth.json', tmp_path / 'results.json'
    truth.write_text(json.dumps(dict(images=images, annotations=[], categories=categories)))
    results.write_text('[]')
    assert main([str(truth), str(results)]) == 0
    printed = capsys.readouterr().out
    assert 'a\\nb\\x1b[31m' in printed
    assert '\x1b' not in printed
    assert '\nb' not in printed
