"""Evaluators: what a model found goes into files and scores as it was found."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask

from nucseg_mmdet.evaluation import metrics
from nucseg_mmdet.evaluation.metrics import (
    NucleiMetric,
    PredictionsMetric,
    SubmissionMetric,
    unpack,
)
from nucseg_mmdet.structures.rle_masks import RLEMasks
from nucseg_mmdet.utils.errors import UserError

HEIGHT, WIDTH = 6, 10
NAMES = ('round', 'flat')


def rectangle(left, top, right, bottom):
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[top:bottom, left:right] = True
    return mask


def encode(mask):
    return coco_mask.encode(np.asfortranarray(mask, np.uint8))


ROUND, FLAT = (1, 1, 4, 4), (5, 2, 9, 4)  # xyxy of a nucleus of each class


def sample(image_id, boxes=(ROUND, FLAT), scores=(0.75, 0.5), labels=(0, 1), bitmaps=False):
    """One predicted sample, as the model's ``predict`` gives it."""
    masks = [rectangle(*box) for box in boxes]
    if bitmaps:
        masks = torch.from_numpy(np.array(masks))
    else:
        masks = RLEMasks(map(encode, masks), HEIGHT, WIDTH)
    found = dict(
        bboxes=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        scores=torch.tensor(scores, dtype=torch.float32),
        labels=torch.tensor(labels, dtype=torch.int64),
        masks=masks,
    )
    return dict(img_id=image_id, pred_instances=found)


def images_of(ids):
    return [dict(id=i, file_name=f'{i}.png', height=HEIGHT, width=WIDTH) for i in ids]


@pytest.fixture
def truth(tmp_path):
    """Images 8 and 3, one nucleus of each class in both; the categories are 4 and 9."""
    annotations = []
    for image_id in (8, 3):
        for category_id, box in ((4, ROUND), (9, FLAT)):
            rle = encode(rectangle(*box))
            annotations.append(
                dict(
                    id=len(annotations) + 1,
                    image_id=image_id,
                    category_id=category_id,
                    iscrowd=0,
                    area=int(coco_mask.area(rle)),
                    bbox=coco_mask.toBbox(rle).tolist(),
                    segmentation=dict(rle, counts=rle['counts'].decode()),
                )
            )
    categories = [dict(id=i, name=name) for i, name in zip((4, 9), NAMES, strict=True)]
    content = dict(images=images_of([8, 3]), annotations=annotations, categories=categories)
    path = tmp_path / 'truth.json'
    path.write_text(json.dumps(content))
    return str(path)


def evaluate(metric, *samples):
    metric.process({}, samples)
    return metric.compute_metrics(metric.results)


@pytest.mark.parametrize('bitmaps', [False, True])
def test_results_are_what_was_found(bitmaps):
    found = unpack(sample(7, bitmaps=bitmaps))
    assert found.scores.dtype == np.float64
    first, second = found.results()
    assert first == dict(
        image_id=7,
        bbox=[1, 1, 3, 3],
        score=0.75,
        category_id=1,
        segmentation=dict(
            size=[HEIGHT, WIDTH], counts=encode(rectangle(*ROUND))['counts'].decode()
        ),
    )
    assert second['bbox'] == [5, 2, 4, 2]
    assert second['category_id'] == 2
    assert [result['category_id'] for result in found.results([4, 9])] == [4, 9]


def test_an_answer_has_all_images_once(truth, tmp_path):
    metric = SubmissionMetric(truth, str(tmp_path / 'new' / 'answer.json'))
    samples = [sample(image_id, [ROUND], [0.5], [0]) for image_id in (3, 8)]
    assert evaluate(metric, *samples) == dict(detections=2)
    results = json.loads((tmp_path / 'new' / 'answer.json').read_text())
    assert [result['image_id'] for result in results] == [8, 3]


@pytest.mark.parametrize('seen', [(8,), (8, 3, 3), (8, 3, 5), (8, 5)])
def test_an_answer_of_other_images_is_refused(truth, tmp_path, seen):
    out = tmp_path / 'new' / 'answer.json'
    samples = [sample(image_id, [ROUND], [0.5], [0]) for image_id in seen]
    with pytest.raises(UserError, match=r'answer\.json: predicted images .*, expected \[8, 3\]'):
        evaluate(SubmissionMetric(truth, str(out)), *samples)
    assert not out.parent.exists()


def test_perfect_nuclei(truth):
    scores = evaluate(NucleiMetric(truth), sample(3), sample(8))
    for name in ('AP', 'AJI', 'PQ', 'mPQ+', 'PQ_round', 'PQ_flat'):
        assert scores[name] == 1, name


def test_classes_that_are_mixed_up(truth):
    mixed = [sample(image_id, labels=(1, 0)) for image_id in (3, 8)]
    scores = evaluate(NucleiMetric(truth), *mixed)
    assert (scores['PQ'], scores['PQ_round'], scores['PQ_flat']) == (1, 0, 0)


def test_an_image_that_was_not_looked_at_has_no_nuclei(truth):
    assert evaluate(NucleiMetric(truth), sample(8))['PQ'] == 0.5


@pytest.mark.parametrize(('score_thr', 'pq'), [(0.5, 1), (0.6, 2 / 3), (0.8, 0)])
def test_label_maps_are_made_from_a_score_on(truth, score_thr, pq):
    # From 0.6 on one of two nuclei is found: PQ = 1 / (1 + 1 / 2).
    scores = evaluate(NucleiMetric(truth, score_thr), sample(3), sample(8))
    assert scores['PQ'] == pytest.approx(pq, abs=1e-12)
    assert scores['AP'] == 1  # COCO's has no threshold


def test_results_are_kept_with_the_categories_of_the_truth(truth, tmp_path):
    out = tmp_path / 'results.json'
    evaluate(NucleiMetric(truth, 0.6, str(out)), sample(8), sample(3))
    kept = json.loads(out.read_text())
    assert [(one['image_id'], one['category_id'], one['score_thr']) for one in kept] == [
        (8, 4, 0.6),
        (8, 9, 0.6),
        (3, 4, 0.6),
        (3, 9, 0.6),
    ]


def test_scores_do_not_depend_on_what_was_evaluated_before(truth):
    metric = NucleiMetric(truth)
    assert evaluate(metric, sample(8), sample(3))['PQ'] == 1
    metric.results.clear()
    assert evaluate(metric, sample(8))['PQ'] == 0.5


def test_true_nuclei_without_pixels_are_told(truth, monkeypatch):
    lines = []
    monkeypatch.setattr(metrics, 'print_log', lambda line, _: lines.append(line))
    content = json.loads(Path(truth).read_text())
    content['annotations'][1]['segmentation'] = content['annotations'][0]['segmentation']
    Path(truth).write_text(json.dumps(content))
    evaluate(NucleiMetric(truth), sample(8))
    assert len(lines) == 1
    assert lines[0].startswith(f'{truth}: 1 of 4 true nuclei have no pixel of their own')


@pytest.mark.parametrize('swapped', [False, True])
def test_images_that_the_truth_does_not_have_are_refused(truth, swapped):
    found = sample(3 if swapped else 5)
    if swapped:
        found['pred_instances']['masks'] = [encode(rectangle(*box).T) for box in (ROUND, FLAT)]
    with pytest.raises(UserError, match=r'truth\.json: has no image [35] of the size of its masks'):
        evaluate(NucleiMetric(truth), found)


def test_predictions_go_into_a_folder_that_is_made(tmp_path):
    path = tmp_path / 'new' / 'a.pkl'
    assert PredictionsMetric(str(path)).compute_metrics([dict(img_id=1)]) == {}
    assert pickle.loads(path.read_bytes()) == [dict(img_id=1)]
