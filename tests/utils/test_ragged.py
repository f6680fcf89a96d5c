"""Groups in a flat array, worked by hand."""

import numpy as np
import pytest

from nucseg_mmdet.utils import ragged


@pytest.mark.parametrize('dtype', [np.int32, np.int64])
def test_by_hand(dtype):
    sizes = np.array([3, 0, 2], dtype)
    assert ragged.starts(sizes).tolist() == [0, 3, 3]
    assert ragged.owners(sizes).tolist() == [0, 0, 0, 2, 2]
    assert ragged.places(sizes).tolist() == [0, 1, 2, 0, 1]
    assert ragged.spans(np.array([7, 9, 4]), sizes).tolist() == [7, 8, 9, 4, 5]


def test_rings_are_closed():
    assert ragged.closing(np.array([3, 1, 2])).tolist() == [0, 1, 2, 0, 3, 3, 4, 5, 4]


def test_no_groups():
    none = np.zeros(0, np.int64)
    for function in (ragged.starts, ragged.owners, ragged.places, ragged.closing):
        assert function(none).tolist() == []


def test_sums_beyond_32_bits():
    assert ragged.starts(np.array([2**31 - 1, 2**31 - 1, 1], np.int32))[2] == 2**32 - 2
