"""COCO run lengths, against pycocotools."""

import numpy as np
import pytest
from pycocotools import mask as coco

from nucseg_mmdet.structures import rle


def blobs(seed, num, height, width):
    """Rectangles with holes, so that runs are long, short and next to each other."""
    rng = np.random.default_rng(seed)
    masks = np.zeros((num, height, width), np.uint8)
    for mask in masks:
        (y0, y1), (x0, x1) = (np.sort(rng.integers(0, side + 1, 2)) for side in (height, width))
        mask[y0:y1, x0:x1] = rng.random((y1 - y0, x1 - x0)) < rng.choice([0.05, 0.5, 0.95, 1])
    return masks


def special(height=7, width=5):
    masks = np.zeros((7, height, width), np.uint8)
    masks[1] = 1  # full; mask 0 is empty
    masks[2, 0, 0] = 1  # first pixel
    masks[3, -1, -1] = 1  # last pixel
    masks[4, :, 1:3] = 1  # one run over two columns
    masks[5, -1, 1] = masks[5, 0, 2] = 1  # one run of 2 px, in two columns
    masks[6, ::2] = 1
    return masks


def encode(masks):
    return coco.encode(np.asfortranarray(np.moveaxis(masks, 0, 2)))


def runs_of(mask):
    """Run lengths the plain way."""
    runs, value = [0], 0
    for pixel in mask.T.ravel():
        if pixel != value:
            runs.append(0)
            value = pixel
        runs[-1] += 1
    return runs


MASKS = {
    'special': special(),
    'one pixel': np.array([[[0]], [[1]]], np.uint8),
    'one row': blobs(0, 20, 1, 40),
    'one column': blobs(1, 20, 40, 1),
    'random': blobs(2, 60, 37, 53),
    'large': blobs(3, 4, 1500, 1100),
    'many': blobs(4, 2000, 20, 24),
}


@pytest.fixture(params=MASKS, ids=lambda name: name.replace(' ', '-'))
def masks(request):
    return MASKS[request.param]


def test_encode_counts_as_pycocotools(masks):
    runs = [runs_of(mask) for mask in masks[:60]]
    texts = rle.encode_counts(np.concatenate(runs), np.array([len(item) for item in runs]))
    assert texts == [item['counts'] for item in encode(masks[:60])]


def test_decode_counts_gives_the_runs(masks):
    expected = [runs_of(mask) for mask in masks[:60]]
    runs, sizes = rle.decode_counts([item['counts'] for item in encode(masks[:60])])
    assert runs.dtype == np.int64
    assert sizes.tolist() == [len(item) for item in expected]
    assert runs.tolist() == np.concatenate(expected).tolist()


def test_decode_takes_str_as_well():
    text = encode(special())[4]['counts']
    runs, sizes = rle.decode_counts([text.decode(), text])
    assert runs.tolist() == [7, 14, 14] * 2  # mask 4: two of five columns of 7 px
    assert sizes.tolist() == [3, 3]


@pytest.mark.parametrize('run', [0, 15, 16, 31, 32, 511, 512, 16_383, 16_384, 2**31 - 1])
def test_run_at_the_edge_of_a_character(run):
    # frUncompressedRLE takes the runs as they are; the 4th is written as a change of either sign.
    runs = [run, 1, 3, run, 4, 1]
    (expected,) = coco.frPyObjects([{'size': [1, sum(runs)], 'counts': runs}], 1, sum(runs))
    assert rle.encode_counts(np.array(runs), np.array([6])) == [expected['counts']]
    assert rle.decode_counts([expected['counts']])[0].tolist() == runs


def test_nothing_in_nothing_out():
    assert rle.encode_counts(np.array([]), np.array([])) == []
    assert [part.shape for part in rle.decode_counts([])] == [(0,), (0,)]
    assert [part.shape for part in rle.foreground_runs([])] == [(0,)] * 3
    assert rle.from_runs(*[np.array([])] * 3, num=0, height=3, width=2) == []
    assert rle.areas([]).shape == (0,)
    assert rle.boxes([]).shape == (0, 4)
    assert not rle.label_map([], 3, 2).any()


@pytest.mark.parametrize(
    ('text', 'found'),
    [
        (b'5 1', 'outside 0 to o'),
        ('5é1', 'outside 0 to o'),
        ('5中1', 'outside 0 to o'),
        (b'5p1', 'outside 0 to o'),
        (b'51P', 'end within a run'),
        (b'51PPPPPPP1', 'more than 7 characters'),
        (b'O', 'negative run'),  # 'O' is -1
        (b'511M', 'negative run'),  # 1 - 3 = -2
        ([5, 1], 'are a list'),
    ],
)
def test_malformed_counts_are_refused(text, found):
    with pytest.raises(ValueError, match=f'mask 1: .*{found}'):
        rle.decode_counts([b'51', text, b'51'])


def test_a_cut_string_does_not_borrow_from_the_next():
    with pytest.raises(ValueError, match='mask 0: counts end within a run'):
        rle.decode_counts([b'51P', b'1'])


def test_runs_must_fill_the_mask():
    masks = encode(special())
    masks[3]['size'] = [7, 6]
    for function in (rle.checked_runs, rle.foreground_runs, rle.areas, rle.boxes):
        with pytest.raises(ValueError, match='mask 3: runs cover 35 px, expected 7 x 6 px'):
            function(masks)


def test_foreground_runs_are_the_mask(masks):
    rebuilt = np.zeros((len(masks), masks[0].size), np.uint8)
    start, length, index = rle.foreground_runs(encode(masks))
    assert (length > 0).all()
    for low, count, mask in zip(start, length, index, strict=True):
        rebuilt[mask, low : low + count] += 1
    np.testing.assert_array_equal(rebuilt, masks.transpose(0, 2, 1).reshape(len(masks), -1))


def test_foreground_runs_skip_empty_runs():
    # Runs 2, 0, 1, 3 are legal: the foreground of no pixels is not a run.
    (text,) = rle.encode_counts(np.array([2, 0, 1, 3]), np.array([4]))
    start, length, index = rle.foreground_runs([{'size': [3, 2], 'counts': text}])
    assert (start.tolist(), length.tolist(), index.tolist()) == ([3], [3], [0])


def test_from_runs_as_pycocotools(masks):
    height, width = masks.shape[1:]
    # One run a pixel: all of them touch and must be joined.
    index, start = np.nonzero(masks.transpose(0, 2, 1).reshape(len(masks), -1))
    made = rle.from_runs(start, np.ones_like(start), index, len(masks), height, width)
    assert made == encode(masks)


def test_areas_and_boxes_as_pycocotools(masks):
    rles = encode(masks)
    # One by one: with NumPy 2, pycocotools' area fails for more than 255 masks.
    np.testing.assert_array_equal(rle.areas(rles), [coco.area(item) for item in rles])
    np.testing.assert_array_equal(rle.boxes(rles), coco.toBbox(rles))


def test_masks_of_several_sizes():
    rles = encode(special(7, 5)) + encode(special(9, 4))
    np.testing.assert_array_equal(rle.areas(rles), coco.area(rles))
    np.testing.assert_array_equal(rle.boxes(rles), coco.toBbox(rles))


@pytest.mark.parametrize('seed', range(3))
def test_label_map_later_wins(seed):
    masks = blobs(seed, 12, 31, 22)
    order = np.random.default_rng(seed).permutation(12)[:9]  # three masks are left out
    expected = np.zeros((31, 22), np.int32)
    for index in order:
        expected[masks[index] > 0] = index + 1
    labels = rle.label_map(encode(masks), 31, 22, order)
    assert labels.dtype == np.int32
    np.testing.assert_array_equal(labels, expected)


def test_label_map_refuses_another_size():
    with pytest.raises(ValueError, match='mask 7: size is 5 x 7 px, expected 7 x 5 px'):
        rle.label_map(encode(special(7, 5)) + encode(special(5, 7)), 7, 5)
