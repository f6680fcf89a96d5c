"""The report of a run: its numbers by hand and against the scores, its page in a browser."""

import base64
import json
import os
import re
import shutil
import subprocess
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from urllib.parse import unquote, urlsplit

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_mask

from nucseg_mmdet.commands.report import main
from nucseg_mmdet.evaluation.coco_ap import coco_scores, precision_curves
from nucseg_mmdet.evaluation.html_report import (
    THRESHOLDS,
    collect,
    compare,
    pq_by_threshold,
    render,
)
from nucseg_mmdet.evaluation.label_scores import summarize
from nucseg_mmdet.evaluation.run_cards import digest_data
from nucseg_mmdet.evaluation.run_folder import read_run
from nucseg_mmdet.evaluation.summary import count_images, make_report
from nucseg_mmdet.evaluation.surest_errors import find_errors
from nucseg_mmdet.evaluation.training_log import read_log
from nucseg_mmdet.structures.coco import parse_results, parse_truth
from nucseg_mmdet.utils.errors import UserError

BROWSERS = ('chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable')
BROWSER = next((path for path in map(shutil.which, BROWSERS) if path), None)
SIZE = 100
GRAY = 200  # of every image
HOSTILE = '<img src=x onerror=hit()>&"\'.png'  # a good name for a file


def rectangle(x, y, width, height):
    return [[float(v) for v in (x, y, x + width, y, x + width, y + height, x, y + height)]]


def make_truth(*images, names=None, size=SIZE):
    """COCO truth; each image is a list of rectangles x, y, width, height."""
    names = names or [f'image{number}.png' for number in range(1, len(images) + 1)]
    return dict(
        images=[
            dict(id=index, file_name=name, height=size, width=size)
            for index, name in enumerate(names, 1)
        ],
        categories=[dict(id=1, name='nucleus')],
        annotations=[
            dict(id=number, image_id=index, category_id=1, segmentation=rectangle(*box))
            for number, (index, box) in enumerate(
                ((index, box) for index, boxes in enumerate(images, 1) for box in boxes), 1
            )
        ],
    )


def result(image_id, score, *box):
    return dict(image_id=image_id, category_id=1, score=score, segmentation=rectangle(*box))


def parse(truth, results):
    images = parse_truth(truth, 'truth')
    return images, parse_results(results, images, 'results')


def random_set(seed):
    """Two images of nuclei with shifted, doubled, equally scored and invented detections."""
    rng = np.random.default_rng(seed)
    truth, results = [], []
    for image_id in (1, 2):
        corners = np.stack(np.meshgrid(np.arange(0, 90, 12), np.arange(0, 90, 12)), -1)
        boxes = np.hstack([corners.reshape(-1, 2), rng.integers(7, 12, (64, 2))])
        truth.append(boxes.tolist())
        for box in boxes[rng.integers(0, 64, 90)]:
            moved = (box + rng.integers(-2, 3, 4) * rng.integers(0, 2)).clip(1)
            results.append(result(image_id, rng.integers(1, 20) / 20, *moved))
    return parse(make_truth(*truth), results)


def write_run(folder, truth, results, **card):
    """A work folder and a data folder as the tools leave them; returns the former."""
    data = folder / 'data'
    data.mkdir(exist_ok=True)
    (data / 'fold1_val.json').write_text(json.dumps(truth))
    for image in truth['images']:
        picture = np.full((image['height'], image['width'], 3), GRAY, np.uint8)
        # By hand: imwrite takes the file's kind from its name.
        (data / image['file_name']).write_bytes(cv2.imencode('.png', picture)[1].tobytes())
    work_dir = folder / 'work_dirs'
    work_dir.mkdir()
    tested = dict(
        checkpoint='somewhere/iter_20.pth',
        annotations=str(data / 'fold1_val.json'),
        images=f'{data}/',
    )
    card = dict(dict(config='tiny', iteration=20, scores={'fold1_val.json': tested}), **card)
    (work_dir / 'run_card.json').write_text(json.dumps(card))
    (work_dir / 'fold1_val_results.json').write_text(json.dumps(results))
    return work_dir


def write_log(work_dir, name, lines):
    folder = work_dir / name / 'vis_data'
    folder.mkdir(parents=True)
    (folder / 'scalars.json').write_text(''.join(f'{json.dumps(line)}\n' for line in lines))


def test_pq_by_threshold_by_hand():
    """One nucleus, found exactly at score 0.6, and a false positive of 0.3."""
    truth = make_truth([(10, 10, 10, 10)])
    found = [result(1, 0.6, 10, 10, 10, 10), result(1, 0.3, 50, 50, 10, 10)]
    pq = dict(zip(THRESHOLDS.tolist(), pq_by_threshold(*parse(truth, found)), strict=True))
    # 2 x IoU 1 over 1 true nucleus and 2, then 1, then no predicted ones.
    expected = {0.05: 2 / 3, 0.3: 2 / 3, 0.31: 1.0, 0.6: 1.0, 0.61: 0.0, 0.95: 0.0}
    assert {at: pq[at] for at in expected} == pytest.approx(expected, abs=1e-12)


def test_pq_by_threshold_without_nuclei():
    assert np.isnan(pq_by_threshold(*parse(make_truth([]), []))).all()


@pytest.mark.parametrize('seed', range(3))
def test_pq_by_threshold_equals_repainting(seed):
    images, found = random_set(seed)
    pq = pq_by_threshold(images, found)
    for index in (0, 20, 45, 46, 70, 90):
        counts = count_images(images, found, THRESHOLDS[index])
        assert pq[index] == pytest.approx(summarize(counts)['mean']['PQ'], abs=1e-12)


def test_precision_by_hand():
    """Right, wrong, right: precision 1 up to recall 1/2, then 2/3."""
    truth = make_truth([(10, 10, 10, 10), (40, 40, 10, 10)])
    found = [
        result(1, 0.7, 42, 40, 10, 10),
        result(1, 0.9, 10, 10, 10, 10),
        result(1, 0.8, 70, 70, 10, 10),
    ]
    curves = precision_curves(*parse(truth, found))
    assert list(curves) == ['AP50', 'AP75']
    assert curves['AP50'] == pytest.approx([1.0] * 51 + [2 / 3] * 50, abs=1e-12)
    # IoU of the shifted square is 80 / 120: above 0.5, below 0.75.
    assert curves['AP75'] == pytest.approx([1.0] * 51 + [0.0] * 50, abs=1e-12)


@pytest.mark.parametrize('seed', range(3))
def test_precision_averages_to_the_scores(seed):
    images, found = random_set(seed)
    expected = coco_scores(images, found)
    assert 0.05 < expected['AP75'] < expected['AP50'] < 0.95
    for key, curve in precision_curves(images, found).items():
        assert curve.mean() == pytest.approx(expected[key], abs=1e-9)


def test_precision_without_detections_or_truth():
    nothing = precision_curves(*parse(make_truth([(1, 1, 5, 5)]), []))
    assert all(curve.tolist() == [0.0] * 101 for curve in nothing.values())
    undefined = precision_curves(*parse(make_truth([]), [result(1, 0.5, 1, 1, 5, 5)]))
    assert all(np.isnan(curve).all() for curve in undefined.values())


@pytest.mark.parametrize(
    ('box', 'iou', 'verdict'),
    [
        ((10, 10, 10, 10), 1.0, 'found'),
        ((13, 10, 10, 10), 70 / 130, 'found'),
        ((10, 10, 10, 5), 0.5, 'cut'),  # not above 0.5
        ((10, 10, 10, 2), 0.2, 'cut'),
        ((10, 10, 10, 1), 0.1, 'cut'),
        ((18, 10, 10, 9), 18 / 172, 'cut'),
        ((19, 10, 10, 10), 10 / 190, 'alone'),
        ((60, 60, 10, 10), 0.0, 'alone'),
    ],
)
def test_verdict(box, iou, verdict):
    images, found = parse(make_truth([(10, 10, 10, 10)]), [result(1, 0.8, *box)])
    sides = compare(images[0], found[1], 0.5)
    for side in ('truth', 'pred'):
        (nucleus,) = sides[side]
        assert nucleus['verdict'] == verdict
        assert nucleus['iou'] == round(iou, 3)
    assert sides['pred'][0]['score'] == 0.8


def test_lost_nuclei_are_as_many_as_in_the_scores():
    """Merged, split, cut, missed, and merged at an IoU below 0.1: 20 of 600 px."""
    merged = [(0, 0, 10, 10), (10, 0, 10, 10), (40, 40, 30, 10), (40, 52, 4, 5)]
    truth = make_truth([*merged, (0, 30, 20, 10), (40, 0, 10, 10), (70, 70, 9, 9)])
    boxes = [(0, 0, 20, 10), (0, 30, 9, 10), (10, 30, 9, 10), (40, 0, 10, 3), (40, 40, 30, 20)]
    images, found = parse(truth, [result(1, 0.9, *box) for box in boxes])
    (fates,) = (row['fates']['all'] for row in make_report(images, found, 0.5)['per_image'])
    assert fates == dict(found=0, merged=4, split=1, cut=1, missed=1)
    verdicts = [one['verdict'] for one in compare(images[0], found[1], 0.5)['truth']]
    assert verdicts == [*['cut'] * 6, 'alone']


def test_compare_shows_what_the_label_map_has():
    """A lower score loses the pixels of a higher one, and one below the threshold is gone."""
    found = [
        result(1, 0.6, 10, 10, 10, 10),
        result(1, 0.9, 15, 10, 10, 10),
        result(1, 0.4, 50, 50, 9, 9),
    ]
    images, found = parse(make_truth([]), found)
    sides = compare(images[0], found[1], 0.5)
    assert sides['truth'] == []
    assert [nucleus['score'] for nucleus in sides['pred']] == [0.6, 0.9]
    assert sides['pred'][0]['rings'] == [[10, 10, 5, 0, 0, 10, -5, 0]]
    assert sides['pred'][1]['rings'] == [[15, 10, 10, 0, 0, 10, -10, 0]]


def test_rings_rasterize_to_the_mask():
    mask = np.random.default_rng(0).random((30, 40)) < 0.6
    mask = cv2.morphologyEx(mask.astype(np.uint8), cv2.MORPH_OPEN, np.ones((2, 2), np.uint8))
    run_lengths = coco_mask.encode(np.asfortranarray(mask))
    truth = make_truth([(0, 0, 1, 1)])
    truth['images'][0].update(height=30, width=40)
    truth['annotations'][0]['segmentation'] = dict(
        size=[30, 40], counts=run_lengths['counts'].decode()
    )
    images, found = parse(truth, [])
    (nucleus,) = compare(images[0], found[1], 0.5)['truth']
    assert len(nucleus['rings']) > 1
    corners = [
        np.reshape(ring, (-1, 2)).cumsum(axis=0).ravel().tolist() for ring in nucleus['rings']
    ]
    back = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(corners, 30, 40)))
    assert (back == mask).all()


def train_line(iteration, loss, **more):
    return dict(lr=0.1, loss=loss, loss_cls=loss / 2, iter=iteration, step=iteration, **more)


def test_log_of_a_resumed_run(tmp_path):
    """Stopped after 60, resumed from the checkpoint of 40: the second log wins from 50 on."""
    first = [train_line(at, 1.0) for at in (10, 30, 50, 60)]
    first.insert(2, {'nuclei/PQ': 0.25, 'step': 0})  # mmengine counts epochs, there is one
    first.append({'nuclei/PQ': 0.75, 'step': 0})
    write_log(tmp_path, '20260102_000000', [train_line(at, 2.0) for at in (50, 70)])
    write_log(tmp_path, '20260101_000000', first)
    log = read_log(tmp_path)
    assert [(point['iteration'], point['loss']) for point in log['train']] == [
        (10, 1.0), (30, 1.0), (50, 2.0), (70, 2.0),
    ]  # fmt: skip
    assert [(point['iteration'], point['nuclei/PQ']) for point in log['val']] == [(30, 0.25)]


def test_log_that_is_none(tmp_path):
    assert read_log(tmp_path) == dict(train=[], val=[])
    write_log(tmp_path, '20260101_000000', [train_line(10, 1.0), [1, 2]])
    with pytest.raises(UserError, match=r'scalars\.json: line 2 '):
        read_log(tmp_path)


def test_long_log_is_averaged(tmp_path):
    work_dir = write_run(tmp_path, make_truth([(1, 1, 5, 5)]), [])
    write_log(work_dir, '20260101_000000', [train_line(at, at) for at in range(1, 451)])
    page, _ = collect(read_run(work_dir), 0.5)
    assert len(page['train']) == 150
    assert page['train'][0] == dict(iteration=3, lr=pytest.approx(0.1), loss=2.0, loss_cls=1.0)
    assert page['train'][-1]['iteration'] == 450


@pytest.mark.parametrize(
    ('card', 'weights'),
    [
        (dict(initial_weights='none', load_from='dense.pth'), 'dense.pth'),
        (dict(initial_weights='none', load_from=None), 'none'),
    ],
)
def test_page_says_what_a_training_began_with(tmp_path, card, weights):
    work_dir = write_run(tmp_path, make_truth([(1, 1, 5, 5)]), [], **card)
    page, _ = collect(read_run(work_dir), 0.5)
    assert ['Initial weights', weights] in page['facts']


def error(x, y, width, height, score=0.5, verdict='alone'):
    rings = [[x, y, width, 0, 0, height, -width, 0]]  # a corner and steps
    return dict(verdict=verdict, score=score, iou=0.0, rings=rings)


class TestSurestErrors:
    def test_highest_scores_first_without_what_is_found(self):
        pred = [error(5 * n, 0, 4, 4, n / 100) for n in range(30)]
        pred[29]['verdict'] = 'found'
        errors = find_errors(dict(truth=[], pred=pred), 200, 100)
        assert [one['score'] for one in errors] == [n / 100 for n in range(28, 4, -1)]

    @pytest.mark.parametrize(
        ('box', 'width', 'height', 'square'),
        [
            ((100, 100, 10, 20), 400, 300, (73, 78, 64)),
            ((0, 0, 10, 20), 400, 300, (0, 0, 64)),
            ((390, 280, 10, 20), 400, 300, (336, 236, 64)),
            ((100, 100, 60, 20), 400, 300, (84, 64, 92)),  # large: 16 px on each side
            ((10, 10, 10, 10), 40, 30, (0, 0, 30)),
        ],
    )
    def test_square_is_in_the_image(self, box, width, height, square):
        (found,) = find_errors(dict(truth=[], pred=[error(*box)]), width, height)
        assert (found['x'], found['y'], found['size']) == square

    def test_true_nuclei_of_the_square_alone(self):
        near, far = error(130, 100, 30, 5), error(137, 100, 30, 5)
        errors = find_errors(dict(truth=[far, near], pred=[error(100, 100, 10, 20)]), 400, 300)
        assert errors[0]['truth'] == [near['rings']]  # the square ends at 137

    def test_of_all_images(self, tmp_path):
        truth = make_truth([(10, 10, 20, 20)], [(10, 10, 20, 20)])
        results = [
            result(1, 0.9, 10, 10, 20, 20),
            result(1, 0.8, 50, 50, 20, 20),
            result(2, 0.95, 60, 60, 20, 20),
        ]
        page, views = collect(read_run(write_run(tmp_path, truth, results)), 0.5)
        assert [one['score'] for one in page['surest']] == [0.95, 0.8]
        names = [views[one['view']]['name'] for one in page['surest']]
        assert names == ['image2.png', 'image1.png']
        data = base64.b64decode(page['surest'][0]['picture'].split(',')[1])
        assert cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR).shape == (64, 64, 3)


def test_worst_image_comes_first(tmp_path):
    """PQ 1 in the first, 0 in the second, undefined in the third image."""
    square = (10, 10, 10, 10)
    truth = make_truth([square], [square], [])
    work_dir = write_run(tmp_path, truth, [result(1, 0.9, *square)])
    page, views = collect(read_run(work_dir), 0.5)
    names = ['image2.png', 'image1.png', 'image3.png']
    assert [row['name'] for row in page['rows']] == names
    assert [view['name'] for view in views] == names
    counts = [
        [row[f'truth_{verdict}'] for verdict in ('found', 'cut', 'alone')] for row in page['rows']
    ]
    assert counts == [[0, 0, 1], [1, 0, 0], [0, 0, 0]]
    assert page['scores']['PQ'] == 0.5


def test_images_of_one_name_are_told_apart(tmp_path):
    truth = make_truth([], [], [], names=['x/a.png', 'y/a.png', 'x/b.png'])
    for folder in ('data/x', 'data/y'):
        (tmp_path / folder).mkdir(parents=True)
    page, views = collect(read_run(write_run(tmp_path, truth, [])), 0.5)
    assert [row['name'] for row in page['rows']] == ['x/a.png', 'y/a.png', 'b.png']
    assert [view['name'] for view in views] == ['x/a.png', 'y/a.png', 'b.png']


def test_the_last_test_is_shown_unless_told_otherwise(tmp_path):
    truth = make_truth([(10, 10, 10, 10)])
    work_dir = write_run(tmp_path, truth, [])
    card = json.loads((work_dir / 'run_card.json').read_text())
    older = work_dir / 'older_results.json'
    older.write_text(json.dumps([result(1, 0.5, 1, 1, 5, 5)]))
    os.utime(older, (0, 0))
    card['scores']['older.json'] = card['scores']['fold1_val.json']
    card['scores']['in_training.json'] = {'nuclei/PQ': 0.5}
    (work_dir / 'run_card.json').write_text(json.dumps(card))
    assert read_run(work_dir).detections[1].scores.tolist() == []
    assert read_run(work_dir, 'older.json').detections[1].scores.tolist() == [0.5]
    with pytest.raises(
        UserError, match=r"no results of in_training.json, expected one of \['fold1"
    ):
        read_run(work_dir, 'in_training.json')


def break_folder(work_dir):
    shutil.rmtree(work_dir)


def break_card(work_dir):
    (work_dir / 'run_card.json').unlink()


def break_card_text(work_dir):
    (work_dir / 'run_card.json').write_text('{"scores": [')


def break_card_kind(work_dir):
    (work_dir / 'run_card.json').write_text('[]')


def break_results(work_dir):
    (work_dir / 'fold1_val_results.json').unlink()


def break_results_text(work_dir):
    (work_dir / 'fold1_val_results.json').write_text('{}')


def break_truth(work_dir):
    (work_dir.parent / 'data' / 'fold1_val.json').unlink()


def break_image(work_dir):
    (work_dir.parent / 'data' / 'image1.png').write_text('no picture')


def break_pixels(work_dir):
    path = work_dir.parent / 'data' / 'image1.png'
    data = bytearray(path.read_bytes())
    data[60] ^= 1
    path.write_bytes(data)


def break_size_in_truth(work_dir):
    path = work_dir.parent / 'data' / 'fold1_val.json'
    path.write_text(path.read_text().replace('"height": 100', '"height": 65500'))


def break_image_size(work_dir):
    cv2.imwrite(str(work_dir.parent / 'data' / 'image1.png'), np.zeros((7, 5, 3), np.uint8))


@pytest.mark.parametrize(
    ('damage', 'message'),
    [
        (break_folder, 'work_dirs: no such folder'),
        (break_card, 'run_card.json: not there, expected one; nucseg train and'),
        (break_card_text, 'run_card.json: found no valid JSON'),
        (break_card_kind, 'run_card.json: found no run card'),
        (break_results, 'nucseg test CONFIG CHECKPOINT makes them'),
        (break_results_text, 'fold1_val_results.json: found dict, expected a list'),
        (break_truth, 'fold1_val.json: No such file'),
        (break_image, 'image1.png: not readable (cannot identify image file'),
        (break_pixels, "image1.png: damaged PNG (checksum of 'IDAT')"),
        (
            break_size_in_truth,
            'image1.png: is 100 x 100 px, expected 100 x 65500 px as in the truth',
        ),
        (break_image_size, 'image1.png: is 5 x 7 px, expected 100 x 100 px'),
    ],
)
def test_odd_folder_is_one_line_and_code_2(tmp_path, capsys, damage, message):
    work_dir = write_run(tmp_path, make_truth([(10, 10, 10, 10)]), [])
    damage(work_dir)
    out = tmp_path / 'report.html'
    assert main([str(work_dir), '--out', str(out)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith('report: ')
    assert message in lines[0]
    assert not list(tmp_path.glob('*report*'))


def change_card(work_dir, tested=None, **card):
    path = work_dir / 'run_card.json'
    content = dict(json.loads(path.read_text()), **card)
    content['scores']['fold1_val.json'].update(tested or {})
    path.write_text(json.dumps(content))


@pytest.mark.parametrize('key', ['annotations', 'images'])
@pytest.mark.parametrize(
    ('value', 'message'),
    [
        (None, 'found no results of a test'),
        ('/a\0b', 'no name of a file'),
        ('/\ud800', 'no name of a file'),
        ('a\0b', 'not there, expected the data relative to'),
        ('\ud800', 'not there, expected the data relative to'),
    ],
)
def test_folders_that_a_card_cannot_mean(tmp_path, capsys, key, value, message):
    work_dir = write_run(tmp_path, make_truth([(10, 10, 10, 10)]), [])
    change_card(work_dir, {key: value})
    assert main([str(work_dir)]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count('\n') == 1


def test_data_is_found_from_any_folder(tmp_path, capsys, monkeypatch):
    """The card has paths relative to the folder that the test was called in."""
    work_dir = write_run(tmp_path, make_truth([(10, 10, 10, 10)]), [])
    change_card(work_dir, dict(annotations='data/fold1_val.json', images='data/'))
    for folder in (tmp_path, work_dir, '/'):
        monkeypatch.chdir(folder)
        assert main([str(work_dir)]) == 0
    (tmp_path / 'data').rename(tmp_path / 'moved')
    assert main([str(work_dir)]) == 2
    assert capsys.readouterr().err == (
        'report: data/fold1_val.json: not there, expected the data relative to the folder that '
        'nucseg test was called in: call nucseg report from there\n'
    )


def test_data_that_has_changed_since_the_test_is_refused(tmp_path, capsys):
    """As another preparation of it, or another folder of the same relative name, would be."""
    work_dir = write_run(tmp_path, make_truth([(10, 10, 10, 10)]), [])
    data = tmp_path / 'data'
    change_card(work_dir, dict(data_sha256=digest_data([(data / 'fold1_val.json', data)])))
    assert main([str(work_dir)]) == 0
    for path in (data / 'image1.png', data / 'fold1_val.json'):
        before = path.read_bytes()
        path.write_bytes(before + b'\n')
        assert main([str(work_dir)]) == 2
        assert 'fold1_val.json: not as it was tested' in capsys.readouterr().err
        path.write_bytes(before)


@pytest.mark.parametrize(
    ('of_training', 'of_test', 'shown'),
    [('1a', '1a', True), ('1a', '2b', False), ('1a', None, False), (None, None, True)],
)
def test_facts_of_another_training_are_not_those_of_the_test(tmp_path, of_training, of_test, shown):
    work_dir = write_run(tmp_path, make_truth([(10, 10, 10, 10)]), [], run=of_training, seed=5)
    change_card(work_dir, dict(run=of_test, config='other'))
    write_log(work_dir, '20260101_000000', [train_line(10, 1.0)])
    page, _ = collect(read_run(work_dir), 0.5)
    facts = dict(page['facts'])
    assert (facts.get('Seed'), facts.get('Iterations')) == (('5', '20') if shown else (None, None))
    assert page['title'] == ('tiny' if shown else 'other')
    assert len(page['train']) == shown
    assert ('Training' in facts) != shown
    assert facts['Checkpoint'] == 'iter_20.pth'


def test_title_without_a_training_is_what_was_tested(tmp_path):
    work_dir = write_run(tmp_path, make_truth([(10, 10, 10, 10)]), [])
    change_card(work_dir, dict(config='mine'), config=None)
    assert collect(read_run(work_dir), 0.5)[0]['title'] == 'mine'


def test_what_is_null_in_a_card_is_not_there(tmp_path):
    work_dir = write_run(tmp_path, make_truth([(10, 10, 10, 10)]), [])
    tested = dict(checkpoint=None, score_thr=None, settings=None)
    change_card(work_dir, tested, config=None, versions=None, device=None, seed=None)
    assert main([str(work_dir)]) == 0
    assert '"title":"run"' in (work_dir / 'report.html').read_text()


def test_threshold_is_that_of_the_run_unless_told_otherwise(tmp_path):
    square = (10, 10, 10, 10)
    truth = make_truth([square])
    work_dir = write_run(tmp_path, truth, [result(1, 0.6, *square)])
    out = tmp_path / 'report.html'

    def thresholds():
        return [float(value) for value in re.findall(r'"score_thr": ?([0-9.]+)', out.read_text())]

    assert main([str(work_dir), '--out', str(out)]) == 0
    assert thresholds() == [0.5]
    card = json.loads((work_dir / 'run_card.json').read_text())
    card['scores']['fold1_val.json']['score_thr'] = 0.7
    (work_dir / 'run_card.json').write_text(json.dumps(card))
    assert main([str(work_dir), '--out', str(out)]) == 0
    assert thresholds() == [0.7]
    assert main([str(work_dir), '--out', str(out), '--score-thr', '0.2']) == 0
    assert thresholds() == [0.2]


def test_threshold_is_checked(tmp_path, capsys):
    assert main([str(tmp_path), '--score-thr', '50']) == 2
    assert 'expected 0 to 1' in capsys.readouterr().err


SQUARE = 16
# Three images, the last one empty. The first has one of each: x, y of squares with a side of 16 px.
CORNERS = dict(found=(10, 10), cut=(60, 10), missed=(10, 60), false=(60, 60))


@pytest.fixture(scope='module')
def page_file(tmp_path_factory):
    """The report of a run with hostile names."""
    folder = tmp_path_factory.mktemp('report')
    truth = make_truth(
        [(*CORNERS[key], SQUARE, SQUARE) for key in ('found', 'cut', 'missed')],
        [(10, 10, SQUARE, SQUARE)],
        [],
        names=[HOSTILE, 'second.png', 'third.png'],
    )
    x, y = CORNERS['cut']
    results = [
        result(1, 0.9, *CORNERS['found'], SQUARE, SQUARE),
        result(1, 0.9, x, y, SQUARE, SQUARE // 4),  # IoU 0.25
        result(1, 0.9, *CORNERS['false'], SQUARE, SQUARE),
        result(2, 0.9, 10, 10, SQUARE, SQUARE),
    ]
    work_dir = write_run(
        folder, truth, results, config='</script><script>hit()</script>', max_iterations=40
    )
    write_log(
        work_dir,
        '20260101_000000',
        [train_line(10, 2.0), train_line(20, 1.0), {'nuclei/PQ': 0.5, 'step': 0}],
    )
    assert main([str(work_dir)]) == 0
    return work_dir / 'report.html'


def test_page_needs_nothing_from_outside(page_file):
    text = page_file.read_text()
    addresses = set(re.findall(r'(?:https?:)?//[\w.-]+\.\w+[\w/.]*', text))
    assert addresses == {'http://www.w3.org/2000/svg'}  # the name of a kind of element
    assert not re.search(
        r'\b(?:fetch|import|XMLHttpRequest)\b|url\(|<link[^>]+href="(?!data:)', text
    )
    assert [path.name for path in page_file.parent.glob('*report*')] == ['report.html']


def test_names_cannot_end_a_script(page_file):
    scripts = re.findall(
        r'<script type="application/json" class="(\w+)">(.*?)</script>', page_file.read_text(), re.S
    )
    assert [kind for kind, _ in scripts] == ['page', *['view'] * 3]
    assert not any('<' in text for _, text in scripts)
    assert json.loads(scripts[0][1])['title'] == '</script><script>hit()</script>'
    assert json.loads(scripts[1][1])['name'] == HOSTILE


# Clicks every switch and notes which color the canvas has at points of the outlines.
PROBE = """
<script>
let hits = 0;
function hit() { hits += 1; }
const wait = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
async function probe() {
  const viewer = viewers[0], { canvas, section } = viewer;
  section.scrollIntoView();
  while (!viewer.image?.complete || canvas.dataset.drawn === undefined) await wait(20);
  const context = canvas.getContext('2d');
  const at = (x, y) => { // image px; the color that is most unlike the gray of the image
    const ratio = window.devicePixelRatio;
    const px = Math.round((x - viewer.x) * viewer.scale * ratio);
    const py = Math.round((y - viewer.y) * viewer.scale * ratio);
    const { data } = context.getImageData(px - 12, py - 1, 24, 3); // longer than a gap of a dash
    const near = (color) => {
      for (let i = 0; i < data.length; i += 4) {
        if ([0, 1, 2].every((k) => Math.abs(data[i + k] - color[k]) < 24)) return true;
      }
      return false;
    };
    const colors = { green: [0, 158, 115], sky: [86, 180, 233], red: [213, 94, 0],
      yellow: [240, 228, 66], black: [0, 0, 0] };
    return Object.keys(colors).filter((name) => near(colors[name])).join(' ');
  };
  const look = () => Object.fromEntries(Object.entries(CORNERS).map(
    ([name, [x, y]]) => [name, at(x + 8, y + (name === 'cut' ? 4 : 0))]));
  const click = async (layer) => {
    section.querySelector(`input[data-layer=${layer}]`).click();
    await wait(100);
    return look();
  };
  await wait(100);
  const seen = { start: look() };
  for (const layer of ['tp', 'cut', 'fp', 'miss', 'truth', 'all']) seen[layer] = await click(layer);
  seen.again = await click('all');
  const before = viewer.scale;
  const key = (name) => canvas.dispatchEvent(new KeyboardEvent('keydown', { key: name }));
  key('+');
  const zoomed = viewer.scale, x = viewer.x;
  key('ArrowRight');
  canvas.focus();
  canvas.dispatchEvent(new WheelEvent('wheel', { deltaY: -100, cancelable: true }));
  const zoom = [zoomed > before, viewer.x > x, viewer.scale > zoomed];
  const errors = [...document.querySelectorAll('.surest button')];
  const darkest = errors.map((error) => [...error.querySelectorAll('canvas')].map((square) =>
    square.getContext('2d').getImageData(0, 0, square.width, square.height).data
      .reduce((least, value, at) => at % 4 === 2 ? Math.min(least, value) : least, 255)));
  errors[0].click();
  await wait(100);
  const middle = [viewer.x + canvas.clientWidth / 2 / viewer.scale,
    viewer.y + canvas.clientHeight / 2 / viewer.scale].map(Math.round);
  return { seen, hits, zoom, darkest, middle,
    errors: errors.map((error) => error.textContent),
    title: document.querySelector('h1').textContent,
    headings: [...document.querySelectorAll('.view h3')].map((one) => one.textContent),
    charts: [...document.querySelectorAll('figure h3')].map((one) => one.textContent),
    bars: document.querySelector('.bars').textContent,
    means: document.querySelector('.bars + p').textContent,
    loading: performance.getEntriesByType('resource').map((one) => one.name.slice(0, 5)) };
}
window.addEventListener('load', async () => {
  const answer = await probe().catch((error) => ({ error: String(error) }));
  location.href = 'http://127.0.0.1:PORT/?' + encodeURIComponent(JSON.stringify(answer));
});
</script>
"""


class Answer(BaseHTTPRequestHandler):
    """Takes what the probe found: the page goes to an address that holds it."""

    timeout = 5  # s; a browser may open a connection and say nothing

    def do_GET(self):
        self.server.answer = json.loads(unquote(urlsplit(self.path).query))
        self.send_response(204)
        self.end_headers()

    def log_message(self, *args):
        pass


@pytest.fixture(scope='module')
def probed(page_file, tmp_path_factory):
    """What a browser makes of the page, in real time, with frames as for a reader."""
    folder = tmp_path_factory.mktemp('browser')
    with HTTPServer(('127.0.0.1', 0), Answer) as server:
        probe = PROBE.replace('CORNERS', json.dumps(CORNERS))
        probe = probe.replace('PORT', str(server.server_port))
        page = folder / 'page.html'
        page.write_text(page_file.read_text().replace('</body>', probe + '</body>'))
        command = [
            BROWSER, '--headless', '--no-sandbox', '--disable-gpu', '--no-first-run',
            '--disable-background-networking', '--window-size=1366,768',
            f'--user-data-dir={folder / "profile"}', page.as_uri(),
        ]  # fmt: skip
        browser = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            server.timeout, server.answer = 5, None
            deadline = time.monotonic() + 60
            while server.answer is None and time.monotonic() < deadline:
                server.handle_request()
        finally:
            browser.terminate()
            browser.wait(timeout=20)
    assert server.answer, f'no answer from {BROWSER}'
    return server.answer


needs_browser = pytest.mark.skipif(BROWSER is None, reason=f'none of {", ".join(BROWSERS)} here')


@needs_browser
def test_switches_switch(probed):
    """Each switch takes away or brings its own outlines, and no others."""
    assert 'error' not in probed, probed
    everything = dict(found='green', cut='sky', missed='yellow', false='red')
    expected = dict(start=everything)
    # The clicks add up: one layer after the other goes, then truth comes.
    expected['tp'] = dict(everything, found='')
    expected['cut'] = dict(expected['tp'], cut='')
    expected['fp'] = dict(expected['cut'], false='')
    expected['miss'] = dict(expected['fp'], missed='')
    expected['truth'] = dict(found='black', cut='', missed='black', false='')
    expected['all'] = dict(found='', cut='', missed='', false='')
    expected['again'] = expected['truth']
    assert probed['seen'] == expected


@needs_browser
def test_page_in_a_browser(probed):
    assert probed['hits'] == 0  # no name was taken for a script
    assert probed['title'] == '</script><script>hit()</script>'
    # 2 of 3 true nuclei are not matched in the first image, PQ 1 in the second.
    assert probed['headings'] == [f'1. {HOSTILE}', '2. second.png', '3. third.png']
    assert probed['charts'] == [
        'Precision and recall', 'Score threshold and PQ', 'Training losses', 'Validation',
        'Learning rate',
    ]  # fmt: skip
    assert 'PQ0.667' in probed['bars']  # mean of 2 x 1 / (3 + 3) and 1
    means = 'mean of those of 3 images where the score is defined '
    assert f'{means}(AJI, AJI+, DQ, SQ, PQ, Dice: 2) at' in probed['means']
    assert probed['zoom'] == [True, True, True]  # by key, moved by key, by wheel
    text = 'score 0.900, best IoU {}' + f'1. {HOSTILE}'
    assert probed['errors'] == [text.format('0.25'), text.format('0.00')]
    for without, outlined in probed['darkest']:  # of blue: the image is gray, outlines are not
        assert without > GRAY - 9
        assert outlined < 60
    assert probed['middle'] == [68, 32]  # of the square of the first, which is not centered on it
    assert set(probed['loading']) <= {'data:'}


def test_types_of_nuclei(tmp_path):
    """Two nuclei found, one of them as the other type: told at the nucleus, counted, in tables."""
    boxes = [(5, 5, 10, 10), (40, 40, 10, 10)]
    truth = make_truth(boxes)
    truth['categories'] = [dict(id=1, name='round'), dict(id=2, name='<long>')]
    truth['annotations'][1]['category_id'] = 2
    results = [
        dict(result(1, 0.9, *box), category_id=kind)
        for box, kind in zip(boxes, (2, 2), strict=True)
    ]
    work_dir = write_run(tmp_path, truth, results)
    run = read_run(work_dir)
    assert run.names == ['round', '<long>']
    page, (view,) = collect(run, 0.5)
    assert [nucleus['type'] for nucleus in view['truth']] == ['round', '<long>']
    assert [(one['type'], one['wrong']) for one in view['pred']] == [
        ('<long>', True),
        ('<long>', False),
    ]
    assert page['rows'][0]['wrong_type'] == 1
    assert page['types']['pairs'] == [[0, 1], [0, 1]]
    assert page['scores']['PQ'] == 1.0  # of nuclei of any type
    text = render(page, [view])
    assert '<long>' not in text
