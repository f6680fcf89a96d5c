"""Scores of label maps: hand-worked cases, and two independent implementations."""

import itertools
import math
import pickle
import subprocess
import sys

import cellseg_metrics
import numpy as np
import pytest
from skimage.measure import regionprops

from nucseg_mmdet.evaluation.label_scores import (
    FATES,
    ap_ceiling,
    count_image,
    find_fates,
    find_offset,
    find_overlaps,
    pool,
    scores,
    summarize,
)


def row(text):
    """A label map of one row: '.' is background, a digit a label."""
    return np.array([[0 if c == '.' else int(c) for c in text]], dtype=np.int32)


def squares(*corners, side=10, size=64):
    labels = np.zeros((size, size), dtype=np.int32)
    for index, (x, y) in enumerate(corners):
        labels[y : y + side, x : x + side] = index + 1
    return labels


def random_maps(seed, count=12, size=60):
    """A truth of random rectangles, and a prediction of the same ones moved, dropped and added."""
    rng = np.random.default_rng(seed)
    truth, pred = np.zeros((2, size, size), dtype=np.int32)
    for label in range(1, count + 1):
        x, y, width, height = (
            rng.integers(0, size - 10, 2).tolist() + rng.integers(3, 12, 2).tolist()
        )
        if rng.random() < 0.8:
            truth[y : y + height, x : x + width] = label
        if rng.random() < 0.8:
            x, y, width, height = np.add((x, y, width, height), rng.integers(-1, 2, 4)).clip(0)
            pred[y : y + height, x : x + width] = count - label + 1
    return truth, pred


def kumar_aji(truth, pred):
    """Algorithm 1 of Kumar et al. (2017), word for word, with full-size masks."""
    truth_masks = [truth == label for label in np.unique(truth) if label]
    pred_masks = [pred == label for label in np.unique(pred) if label]
    shared, union, used = 0, 0, set()
    for mask in truth_masks:
        jaccard = [(mask & other).sum() / (mask | other).sum() for other in pred_masks]
        best = int(np.argmax(jaccard)) if jaccard else None
        if best is None or jaccard[best] == 0:
            union += mask.sum()
            continue
        shared += (mask & pred_masks[best]).sum()
        union += (mask | pred_masks[best]).sum()
        used.add(best)
    union += sum(mask.sum() for index, mask in enumerate(pred_masks) if index not in used)
    return shared / union


def brute_force_aji_plus(truth, pred):
    """AJI+ from the best of all one-to-one assignments, each one tried."""
    truth_masks = [truth == label for label in np.unique(truth) if label]
    pred_masks = [pred == label for label in np.unique(pred) if label]
    partners = [*range(len(pred_masks)), *[None] * len(truth_masks)]
    best = (-1.0, 0, 0)
    for assignment in set(itertools.permutations(partners, len(truth_masks))):
        total, shared, union = 0.0, 0, sum(mask.sum() for mask in truth_masks + pred_masks)
        for mask, partner in zip(truth_masks, assignment, strict=True):
            if partner is not None:
                both = (mask & pred_masks[partner]).sum()
                total += both / (mask | pred_masks[partner]).sum()
                shared += both
                union -= both
        best = max(best, (total, shared, union))
    return best[1] / best[2]


def test_perfect():
    labels = squares((5, 5), (30, 5), (5, 40))
    assert set(scores(count_image(labels, labels)).values()) == {1.0}


def test_nothing_in_common():
    found = scores(count_image(squares((5, 5)), squares((40, 40))))
    assert math.isnan(found.pop('SQ'))  # no pair to average
    assert set(found.values()) == {0.0}


def test_half():
    """One of two nuclei found exactly."""
    found = scores(count_image(squares((5, 5), (40, 40)), squares((5, 5))))
    expected = {
        'AJI': 1 / 2,  # 100 px shared, 200 px covered
        'AJI+': 1 / 2,
        'DQ': 2 / 3,  # 1 / (1 + 1 / 2)
        'SQ': 1,
        'PQ': 2 / 3,
        'Dice': 2 / 3,  # 2 * 100 / 300
        'F1': 2 / 3,
        'precision': 1,
        'recall': 1 / 2,
        'F1@75': 2 / 3,
        'precision@75': 1,
        'recall@75': 1 / 2,
    }
    assert found == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ('truth', 'pred', 'undefined'),
    [
        ((), (), set(scores(count_image(squares(), squares())))),
        ((), ((5, 5),), {'SQ', 'recall', 'recall@75'}),
        (((5, 5),), (), {'SQ', 'precision', 'precision@75'}),
    ],
)
def test_empty(truth, pred, undefined):
    found = scores(count_image(squares(*truth), squares(*pred)))
    assert {key for key, value in found.items() if math.isnan(value)} == undefined
    assert {key for key, value in found.items() if value == 0} == found.keys() - undefined


def test_map_without_pixels():
    empty = np.zeros((0, 5), dtype=np.int32)
    assert all(math.isnan(value) for value in scores(count_image(empty, empty)).values())


@pytest.mark.parametrize(
    ('shift', 'matched', 'matched_75', 'iou_sum'),
    [
        (0, 1, 1, 1.0),
        (1, 1, 1, 90 / 110),  # 9 x 10 px shared, 11 x 10 px covered
        (2, 1, 0, 80 / 120),
        (3, 1, 0, 70 / 130),
        (4, 0, 0, 0.0),  # IoU 60 / 140 is not above 0.5
        (20, 0, 0, 0.0),
    ],
)
def test_shifted_square(shift, matched, matched_75, iou_sum):
    counts = count_image(squares((5, 5)), squares((5 + shift, 5)))
    assert (counts.matched, counts.matched_75) == (matched, matched_75)
    assert counts.iou_sum == pytest.approx(iou_sum, abs=1e-12)


@pytest.mark.parametrize(
    ('truth', 'pred', 'matched', 'matched_75'),
    [
        ('11', '1.', 0, 0),  # IoU exactly 1/2
        ('1111', '111.', 1, 0),  # exactly 3/4
        ('11111', '1111.', 1, 1),
    ],
)
def test_iou_must_be_above_the_threshold(truth, pred, matched, matched_75):
    counts = count_image(row(truth), row(pred))
    assert (counts.matched, counts.matched_75) == (matched, matched_75)


@pytest.mark.parametrize(
    ('truth', 'pred', 'aji', 'aji_plus'),
    [
        # AJI takes the one prediction twice: 4 / (4 + 4). AJI+ once: 2 / (4 + 2).
        ('1122', '1111', 4 / 8, 2 / 6),
        # Label 2 shares fewer pixels than label 1 but has the larger IoU, 4/10 against 6/24.
        # Label 1 is then unused: 4 / (10 + 20).
        ('1111111111..............', '111111222211111111111111', 4 / 30, 4 / 30),
        # The best for both true nuclei is 1, IoU 8/18. AJI: 16 / (18 + 18 + 2). AJI+ gains
        # most by giving 1 to the second and 2 to the first: (2 + 8) / (10 + 18).
        ('1' * 10 + '2' * 10, '22' + '1' * 16 + '..', 16 / 38, 10 / 28),
        # Two pairs of IoU 1/20 and 1/21 would give fewer than the one of 19/21: AJI+ leaves
        # 2 and 2 alone, 19 / (21 + 2 + 1). AJI: (19 + 1) / (21 + 21 + 1).
        ('1' * 20 + '22', '2' + '1' * 20 + '.', 20 / 43, 19 / 24),
        # A missed nucleus and a false one only add to the union: 2 / (2 + 3 + 1).
        ('11.222.', '11....3', 2 / 6, 2 / 6),
    ],
)
def test_aji_by_hand(truth, pred, aji, aji_plus):
    found = scores(count_image(row(truth), row(pred)))
    assert (found['AJI'], found['AJI+']) == pytest.approx((aji, aji_plus), abs=1e-12)


def test_dice_is_that_of_the_foreground():
    """Whether nuclei are merged or split plays no part: 2 * 4 / (5 + 4)."""
    assert scores(count_image(row('11122'), row('1112.')))['Dice'] == pytest.approx(8 / 9)
    assert scores(count_image(row('11122'), row('1233.')))['Dice'] == pytest.approx(8 / 9)


@pytest.mark.parametrize('seed', range(30))
def test_equals_the_published_algorithm(seed):
    truth, pred = random_maps(seed)
    assert scores(count_image(truth, pred))['AJI'] == pytest.approx(
        kumar_aji(truth, pred), abs=1e-12
    )


@pytest.mark.parametrize('seed', range(15))
def test_aji_plus_equals_brute_force(seed):
    truth, pred = random_maps(seed, count=5, size=18)
    found = scores(count_image(truth, pred))['AJI+']
    assert found == pytest.approx(brute_force_aji_plus(truth, pred), abs=1e-12)


@pytest.mark.parametrize('seed', range(30))
def test_equals_cellseg_metrics(seed):
    truth, pred = random_maps(seed)
    found = scores(count_image(truth, pred))
    expected = {}
    for suffix, iou in (('', 0.5), ('@75', 0.75)):
        quality = cellseg_metrics.panoptic_quality(truth, pred, iou)
        expected[f'F1{suffix}'] = quality['dq']
        # What it calls average precision is the share of right predictions; with truth and
        # prediction exchanged, that of nuclei found.
        expected[f'precision{suffix}'] = cellseg_metrics.average_precision(truth, pred, iou)
        expected[f'recall{suffix}'] = cellseg_metrics.average_precision(pred, truth, iou)
        if iou == 0.5:
            expected |= {key.upper(): value for key, value in quality.items()}
    foreground = ((labels > 0).astype(int) for labels in (truth, pred))
    expected['Dice'] = cellseg_metrics.dice_multiclass(*foreground, 2)[1]
    # It adds 1e-8 to what it divides by.
    assert {key: found[key] for key in expected} == pytest.approx(expected, abs=1e-7)


@pytest.mark.parametrize('seed', range(5))
def test_labels_are_only_names(seed):
    truth, pred = random_maps(seed)
    rng = np.random.default_rng(seed)
    truth_names, pred_names = np.concatenate(
        [np.zeros((2, 1)), rng.choice(2**31 - 1, (2, 12), replace=False) + 1], axis=1
    ).astype(np.int64)
    renamed = count_image(truth_names[truth], pred_names[pred])
    assert renamed == pytest.approx(count_image(truth, pred), abs=1e-12)


@pytest.mark.parametrize('pred', ['22.111111', '11.222222'])
def test_equal_iou_is_settled_without_labels(pred):
    """IoU 2/6 and 3/9: the larger overlap is taken, 3 / (9 + 2), whatever its label."""
    found = scores(count_image(row('111111...'), row(pred)))
    assert found['AJI'] == pytest.approx(3 / 11, abs=1e-12)


@pytest.mark.parametrize('dtype', [np.uint8, np.uint16, np.uint32, np.int64, np.uint64])
def test_any_integer_type(dtype):
    truth, pred = random_maps(0)
    assert count_image(truth.astype(dtype), pred.astype(dtype)) == count_image(truth, pred)


@pytest.mark.parametrize(
    ('truth', 'pred', 'message'),
    [
        (np.zeros((4, 5), int), np.zeros((5, 4), int), r'shapes differ: \(4, 5\) and \(5, 4\)'),
        (np.zeros((4, 4)), np.zeros((4, 4)), 'truth is float64 with 2 axes'),
        (np.zeros((4, 4), int), np.zeros((4, 4), bool), 'pred is bool with 2 axes'),
        (np.zeros((1, 4, 4), int), np.zeros((1, 4, 4), int), 'truth is int64 with 3 axes'),
        (np.full((4, 4), -1), np.zeros((4, 4), int), 'truth has labels from -1 to -1'),
        (np.zeros((2, 2), int), np.diag([2**31, 7]), 'pred has labels from 0 to 2147483648'),
    ],
)
def test_refuses_what_is_no_pair_of_label_maps(truth, pred, message):
    with pytest.raises(ValueError, match=message):
        count_image(truth, pred)


def test_overlaps():
    found = find_overlaps(row('.77799.'), row('.554444'))
    assert found.truth.tolist() == [0, 0, 1]  # labels 7, 7, 9
    assert found.pred.tolist() == [0, 1, 0]  # labels 4, 5, 4
    assert found.shared.tolist() == [1, 2, 2]
    assert found.union.tolist() == [6, 3, 4]
    assert (found.truth_area.tolist(), found.pred_area.tolist()) == ([3, 2], [4, 2])


@pytest.mark.parametrize(
    ('truth', 'pred', 'fates'),
    [
        ('1111', '.222', 'found'),
        ('1111', '..22', 'cut'),  # IoU is 0.5, not above
        ('1111111111', '2.........', 'cut'),  # 0.1
        ('11111111111', '2..........', 'missed'),
        ('1111', '....', 'missed'),
        ('11112222', '33333333', 'merged merged'),
        ('11111122', '33333333', 'found merged'),
        ('111222222222', '3333........', 'found missed'),  # covers less than half of the second
        ('1111', '2233', 'split'),
        ('1111', '2223', 'found'),
        ('1111', '2..3', 'split'),
        ('1111...', '2.33333', 'cut'),  # most of one of the two lies outside
        ('111222', '334444', 'found found'),
    ],
)
def test_fates(truth, pred, fates):
    found = find_fates(find_overlaps(row(truth), row(pred)))
    assert [FATES[fate] for fate in found] == fates.split()


def test_fates_found_are_the_matches():
    for seed in range(20):
        truth, pred = random_maps(seed)
        found = find_fates(find_overlaps(truth, pred)) == FATES.index('found')
        assert found.sum() == count_image(truth, pred).matched


def test_offset_is_the_mean_over_found_nuclei():
    truth, pred = np.zeros((2, 40, 40), int)
    truth[5:15, 5:15], pred[6:16, 3:13] = 1, 7  # 2 px to the left, 1 below
    truth[20:30, 20:30], pred[20:30, 21:31] = 2, 5  # 1 px to the right
    truth[0:4, 30:34], pred[2:6, 32:36] = 3, 9  # not found
    assert find_offset(find_overlaps(truth, pred)) == (-0.5, 0.5)


def test_offset_without_a_found_nucleus_is_undefined():
    assert np.isnan(find_offset(find_overlaps(row('11..'), row('..11')))).all()
    assert np.isnan(find_offset(find_overlaps(row('....'), row('....')))).all()


def test_centroids_are_those_of_regionprops():
    for seed in range(5):
        truth, pred = random_maps(seed)
        overlaps = find_overlaps(truth, pred)
        for labels, found in (
            (truth, overlaps.truth_centroid),
            (pred, overlaps.pred_centroid),
        ):
            expected = [region.centroid[::-1] for region in regionprops(labels)]
            np.testing.assert_allclose(found, expected)


def test_mean_and_pooled():
    perfect = count_image(row('1111'), row('1111'))
    missed = count_image(row('112233.'), row('.......'))
    empty = count_image(row('....'), row('....'))
    found = summarize([perfect, missed, empty])
    assert found['mean']['AJI'] == 1 / 2  # of 1 and 0; the empty image has none
    assert found['pooled']['AJI'] == pytest.approx(4 / 10)
    assert (found['mean']['recall'], found['pooled']['recall']) == (1 / 2, 1 / 4)
    assert (found['mean']['precision'], found['pooled']['precision']) == (1, 1)
    assert (found['mean']['DQ'], found['pooled']['DQ']) == (1 / 2, 2 / 5)  # 1 / (1 + 3 / 2)
    assert [found['images'][key] for key in ('AJI', 'recall', 'precision')] == [2, 2, 1]


def test_pooled_is_the_score_of_the_images_side_by_side():
    maps = [random_maps(seed) for seed in (1, 2)]
    together = [
        np.hstack([first, np.where(second > 0, second + 100, 0)])
        for first, second in zip(*maps, strict=True)
    ]
    pooled = pool([count_image(*pair) for pair in maps])
    assert pooled == pytest.approx(count_image(*together), abs=1e-12)


@pytest.mark.parametrize('images', [0, 2])
def test_summary_without_nuclei_is_undefined(images):
    found = summarize([count_image(squares(), squares())] * images)
    assert all(math.isnan(value) for value in found['mean'].values())
    assert all(math.isnan(value) for value in found['pooled'].values())
    assert set(found['images'].values()) == {0}


def test_counts_are_small_and_survive_pickling():
    counts = count_image(*random_maps(0))
    assert all(type(value) in (int, float) for value in counts)
    assert pickle.loads(pickle.dumps(counts)) == counts


@pytest.mark.parametrize(
    ('truth_counts', 'max_dets', 'expected'),
    [
        # The competition: 600 of 2,360 may be returned, recall 0.2542: 0.00 to 0.25 are 26.
        ((360, 400, 400, 400, 400, 400), 100, 26 / 101),
        ((200,), 100, 51 / 101),
        ((50, 100), 100, 1.0),
        ((50, 150), 100, 76 / 101),  # 150 of 200
        ((0, 50), 100, 1.0),
        ((1000,), 1, 1 / 101),
    ],
)
def test_ceiling(truth_counts, max_dets, expected):
    assert ap_ceiling(truth_counts, max_dets) == pytest.approx(expected, abs=1e-12)


def test_ceiling_without_truth_is_undefined():
    assert math.isnan(ap_ceiling([]))
    assert math.isnan(ap_ceiling([0, 0]))


def test_dense_image():
    """1,980 nuclei of 15 x 15 px in 1000 x 1000 px, the prediction moved by 4 px."""
    y, x = np.mgrid[:1000, :1000]
    inside = (y % 22 < 15) & (x % 22 < 15) & (y < 968) & (x < 990)
    truth = np.where(inside, y // 22 * 45 + x // 22 + 1, 0).astype(np.int32)
    assert np.unique(truth).size == 1981
    scores = summarize([count_image(truth, np.roll(truth, 4, axis=(0, 1)))])['pooled']
    assert scores['AJI'] == pytest.approx(121 / 329)  # 11 x 11 px of 2 x 225 - 121
    assert scores['Dice'] == pytest.approx(121 / 225)
    assert scores['recall'] == 0


def test_imports_neither_torch_nor_the_mm_stack():
    code = 'import nucseg_mmdet.evaluation.label_scores, sys; print(*sys.modules)'
    result = subprocess.run(
        [sys.executable, '-c', code], capture_output=True, text=True, check=True
    )
    heavy = {'torch', 'mmengine', 'mmcv', 'mmdet'}
    assert not heavy & {name.partition('.')[0] for name in result.stdout.split()}
