"""Surroundings and texture as columns of the results."""

import csv

import cv2
import numpy as np
import pytest

from nucseg_mmdet.commands import segment
from nucseg_mmdet.imaging.neighborhood import NEIGHBORHOOD, neighborhood
from nucseg_mmdet.imaging.texture import texture
from nucseg_mmdet.inference import features
from nucseg_mmdet.inference.frame import make_frame
from nucseg_mmdet.slides.base import ArraySlide
from nucseg_mmdet.structures.nuclei import EMPTY, MEASUREMENTS
from nucseg_mmdet.synthetic import fields
from tests.export.helpers import halves, nuclei_of


@pytest.fixture(scope='module')
def made_up():
    image, labels = fields.synthesize(4, 200, 260)
    masks = [labels == number for number in range(1, labels.max() + 1)]
    return image, labels, nuclei_of(masks)


@pytest.mark.parametrize('block', [2048, 64])
def test_columns(made_up, monkeypatch, block):
    """Nuclei without overlap: the blocks do not matter."""
    monkeypatch.setattr(features, 'BLOCK', block)
    image, labels, nuclei = made_up
    slide = ArraySlide(image, 0.25)
    given = list(halves(nuclei))
    batches = list(features.with_features(lambda: given, slide, make_frame(slide)))
    found = np.concatenate([batch.measurements for batch in batches])
    assert found.shape == (len(nuclei), len(MEASUREMENTS) + len(features.FEATURES))
    np.testing.assert_array_equal(found[:, : len(MEASUREMENTS)], nuclei.measurements)
    near, fine = np.split(found[:, len(MEASUREMENTS) :], [len(NEIGHBORHOOD)], axis=1)
    np.testing.assert_array_equal(near, neighborhood(nuclei.centroids * 0.25))
    np.testing.assert_allclose(fine, texture(labels, image, len(nuclei)), rtol=1e-6)


@pytest.mark.parametrize('scores', [(0.9, 0.8), (0.9, 0.9)])
def test_a_contested_pixel_goes_to_the_higher_score_or_the_first(made_up, scores):
    image, _, _ = made_up
    masks = np.zeros((2, 200, 260), bool)
    masks[0, 20:60, 20:60] = masks[1, 40:80, 40:80] = True
    nuclei = nuclei_of(masks)
    nuclei.scores[:] = scores
    labels = np.where(masks[0], 1, 2 * masks[1]).astype(np.int32)
    slide = ArraySlide(image, 0.25)
    found = features.measure_texture(nuclei, slide, make_frame(slide))
    np.testing.assert_allclose(found, texture(labels, image, 2), rtol=1e-6)


def test_no_nuclei(made_up):
    slide = ArraySlide(made_up[0], 0.25)
    (batch,) = features.with_features(lambda: [EMPTY], slide, make_frame(slide))
    assert batch.measurements.shape == (0, len(MEASUREMENTS) + len(features.FEATURES))


def test_segment_writes_them(tmp_path, random_model):
    cv2.imwrite(str(tmp_path / 'a.png'), fields.synthesize(5, 96, 96)[0][..., ::-1])
    config, checkpoint = random_model
    command = f'{tmp_path}/a.png --out {tmp_path}/r --format csv geojson parquet --mpp 0.25'
    command += f' --config {config} --checkpoint {checkpoint} --score-thr 0 --no-tissue-mask'
    assert segment.main([*command.split(), '--features']) == 0
    rows = list(csv.DictReader((tmp_path / 'r/a.csv').read_text().splitlines()))
    names = list(rows[0])
    start = names.index(MEASUREMENTS[-1]) + 1
    assert tuple(names[start:]) == (*features.FEATURES, 'score')
    centroids = np.array([[row['centroid_x_um'], row['centroid_y_um']] for row in rows], float)
    nearest = [float(row['nearest_um']) for row in rows]
    np.testing.assert_allclose(nearest, neighborhood(centroids)[:, 0], atol=0.01)  # as written
    assert '"nearest_um":' in (tmp_path / 'r/a.geojson').read_text()
