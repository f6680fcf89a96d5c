"""Surroundings of nuclei, by hand and against brute force."""

import numpy as np
import pytest
from scipy.spatial import ConvexHull
from scipy.spatial.distance import cdist

from nucseg_mmdet.imaging.neighborhood import NEIGHBORHOOD, neighborhood


def column(found, name):
    return found[:, NEIGHBORHOOD.index(name)]


def test_by_hand():
    # A cross: the middle has four neighbors 10 away, one more at 30 and a far one.
    points = np.array([[0, 0], [10, 0], [-10, 0], [0, 10], [0, -10], [30, 0], [500, 0]], float)
    found = neighborhood(points)
    assert found.dtype == np.float32
    assert column(found, 'nearest_um').tolist() == [10, 10, 10, 10, 10, 20, 470]
    assert column(found, 'nearest_5_mean_um')[0] == pytest.approx((4 * 10 + 30) / 5)
    # The right arm: three at 0, 20 and twice sqrt(200), and the one at 30.
    assert column(found, 'neighbors_25um').tolist() == [4, 5, 4, 4, 4, 1, 0]
    disc = np.pi * 0.05**2  # mm2
    expected = np.array([6, 6, 6, 6, 6, 6, 1]) / disc
    np.testing.assert_allclose(column(found, 'density_50um_per_mm2'), expected, rtol=1e-6)
    # The middle sees the four arms.
    assert column(found, 'delaunay_degree')[0] == 4


def test_against_brute_force():
    points = np.random.default_rng(0).uniform(0, 300, (200, 2))
    found = neighborhood(points)
    distances = cdist(points, points)
    np.fill_diagonal(distances, np.inf)
    nearest = np.sort(distances, axis=1)
    np.testing.assert_allclose(column(found, 'nearest_um'), nearest[:, 0], rtol=1e-6)
    np.testing.assert_allclose(
        column(found, 'nearest_5_mean_um'), nearest[:, :5].mean(1), rtol=1e-6
    )
    np.testing.assert_array_equal(column(found, 'neighbors_25um'), (distances <= 25).sum(1))
    disc = np.pi * 0.05**2  # mm2
    around = ((distances <= 50).sum(1) + 1) / disc
    np.testing.assert_allclose(column(found, 'density_50um_per_mm2'), around, rtol=1e-6)
    # Euler: 3 n - 3 - h edges for h points on the hull.
    degree = column(found, 'delaunay_degree')
    hull = len(ConvexHull(points).vertices)
    assert degree.sum() == 2 * (3 * 200 - 3 - hull)


def test_too_few_nuclei_leave_undefined_numbers():
    assert neighborhood(np.zeros((0, 2))).shape == (0, len(NEIGHBORHOOD))
    (one,) = neighborhood(np.zeros((1, 2)))
    assert np.isnan(one[[0, 1, 4]]).all()
    assert one[2] == 0
    five = neighborhood(np.random.default_rng(1).uniform(0, 10, (5, 2)))
    assert np.isnan(column(five, 'nearest_5_mean_um')).all()
    assert not np.isnan(column(five, 'nearest_um')).any()
    line = neighborhood(np.arange(8.0).reshape(-1, 1) * [1, 1])
    assert np.isnan(column(line, 'delaunay_degree')).all()
    assert not np.isnan(column(line, 'nearest_5_mean_um')).any()
