"""Labels of OME-Zarr, checked by a reader of its own."""

import sys

import numpy as np
import pytest

from nucseg_mmdet.export.writer import Target
from nucseg_mmdet.structures.nuclei import EMPTY
from nucseg_mmdet.utils.errors import UserError
from tests.export.helpers import ONE, PLAIN, REGION, halves, nuclei_of, ovals, painted, write

pytestmark = pytest.mark.skipif(sys.version_info < (3, 11), reason='zarr 3 needs Python 3.11')


def read_label(path):
    """The validated model of the labels and the arrays of all levels."""
    import zarr
    from ome_zarr_models.v05 import ImageLabel, Labels

    root = zarr.open_group(path, mode='r')
    assert root.metadata.zarr_format == 3
    labels = Labels.from_zarr(root['labels'])
    assert labels.attributes.ome.labels == ['nuclei']
    model = ImageLabel.from_zarr(root['labels/nuclei'])
    (multiscale,) = model.attributes.ome.multiscales
    return multiscale, [root[f'labels/nuclei/{one.path}'] for one in multiscale.datasets]


@pytest.mark.parametrize('size', [(70, 90), (513, 300), (1031, 2077)])
def test_levels(tmp_path, size):
    height, width = size
    masks = ovals(80, height, width, seed=1, radii=(4, 60))
    nuclei = nuclei_of(masks)
    nuclei.scores[:] = nuclei.scores.round(1)  # with ties
    target = Target('image', width, height, scale=1.0, mpp=0.25)
    (path,) = write(tmp_path, ['ome-zarr'], target, *halves(nuclei))
    assert path == tmp_path / 'image.ome.zarr'
    multiscale, levels = read_label(path)
    expected = painted(masks, nuclei.scores, height, width)
    for level in levels:
        assert level.dtype == np.int32
        np.testing.assert_array_equal(level[:], expected)
        expected = expected[::2, ::2]
    assert max(levels[-1].shape) <= 512 < max(*levels[0].shape, 513)
    axes = [(axis.name, axis.type, axis.unit) for axis in multiscale.axes]
    assert axes == [('y', 'space', 'micrometer'), ('x', 'space', 'micrometer')]
    for number, dataset in enumerate(multiscale.datasets):
        scale, move = dataset.coordinateTransformations
        assert list(scale.scale) == [0.25 * 2**number] * 2
        assert list(move.translation) == [0, 0]


def test_a_region_has_its_size_and_place(tmp_path):
    (path,) = write(tmp_path, ['ome-zarr'], REGION, ONE)
    multiscale, (level,) = read_label(path)
    # As the label image: x from 1 to 2.5 and y from 0.5 to 1.5, px of the region.
    expected = np.zeros((20, 30), np.int32)
    expected[0, 1] = 1
    np.testing.assert_array_equal(level[:], expected)
    scale, move = multiscale.datasets[0].coordinateTransformations
    assert list(scale.scale) == [0.5, 0.5]  # microns per full-resolution px
    assert list(move.translation) == [40 * 0.5, 100 * 0.5]


def test_chunks_without_nuclei_are_not_stored(tmp_path):
    target = Target('slide', 5000, 4000, scale=1.0, mpp=0.25)
    (path,) = write(tmp_path, ['ome-zarr'], target, ONE)
    _, levels = read_label(path)
    # It covers x from 2 to 5 and y from 1 to 3: every 4th pixel misses it.
    assert [level.nchunks_initialized for level in levels] == [1, 1, 0, 0, 0]
    assert levels[0].nchunks == 16 * 5


def test_no_nuclei(tmp_path):
    (path,) = write(tmp_path, ['ome-zarr'], PLAIN, EMPTY)
    _, (level,) = read_label(path)
    assert not level[:].any()


def test_an_earlier_result_is_replaced_and_another_folder_is_not(tmp_path):
    write(tmp_path, ['ome-zarr'], PLAIN, ONE)
    (path,) = write(tmp_path, ['ome-zarr'], PLAIN, EMPTY)
    assert not read_label(path)[1][0][:].any()
    (path / 'zarr.json').unlink()
    with pytest.raises(UserError, match=r'is there, but no \.ome\.zarr of an earlier run'):
        write(tmp_path, ['csv', 'ome-zarr'], PLAIN, ONE)
    assert [item.name for item in tmp_path.iterdir()] == ['image.ome.zarr']


def test_zarr_is_asked_for(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'zarr', None)
    with pytest.raises(UserError, match='format ome-zarr needs zarr'):
        write(tmp_path, ['csv', 'ome-zarr'], PLAIN, ONE)
    assert not list(tmp_path.iterdir())
