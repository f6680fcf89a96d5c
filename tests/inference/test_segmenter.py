"""A model over images of any size: its inputs, its tiles, what it refuses."""

import gc
import os
import threading
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import shapely
import tifffile
import torch
from PIL import Image

from nucseg_mmdet.imaging import stain
from nucseg_mmdet.inference import segmenter
from nucseg_mmdet.inference.frame import make_frame
from nucseg_mmdet.inference.segmenter import Job, Segmenter
from nucseg_mmdet.slides.base import ArraySlide, RegionError
from nucseg_mmdet.structures.nuclei import MEASUREMENTS
from nucseg_mmdet.synthetic.fields import synthesize
from nucseg_mmdet.utils.errors import UserError


@pytest.fixture(scope='module')
def image():
    return synthesize(3, 150, 200, 40)[0]


@pytest.fixture(scope='module')
def finder(random_model):
    return Segmenter(*random_model, device='cpu', score_thr=0.0, tile=96, overlap=32, batch=2)


def columns_equal(one, other):
    pairs = zip(one.columns().values(), other.columns().values(), strict=True)
    return all(np.array_equal(a, b, equal_nan=True) for a, b in pairs)


def test_tile_by_tile(finder, image):
    grid = finder.make_grid(make_frame(ArraySlide(image)))
    assert (len(grid.lefts), len(grid.tops)) == (3, 2)
    found = finder(image)
    low, high = np.split(found.boxes(), 2, axis=1)
    assert len(found) > 6 * 5  # of at most 20 a tile
    assert (low >= 0).all()
    assert (high <= (200, 150)).all()
    assert high.max(axis=0).tolist() > [190, 140]
    assert columns_equal(found, finder(image))


def test_other_pixel_size(finder, image):
    # Half as many pixels of twice the size: the working image is twice as large as this one.
    found = finder(image[:60, :80], mpp=0.5)
    low, high = np.split(found.boxes(), 2, axis=1)
    assert (low >= 0).all()
    assert (high <= (80, 60)).all()
    assert (np.abs(found.centroids - (low + high) / 2) < 20).all()
    areas = shapely.area(found.polygons()) * 0.5**2
    np.testing.assert_allclose(areas, found.measurements[:, MEASUREMENTS.index('area_um2')], 1e-5)


def test_what_is_in_a_notebook(finder, image, tmp_path):
    found = finder(image)
    path = tmp_path / 'a.png'
    Image.fromarray(image).save(path)
    assert columns_equal(found, finder(Image.fromarray(image)))
    assert columns_equal(found, finder(path))
    assert columns_equal(found, finder(str(path), mpp=np.float32(0.25)))
    coarse = finder(image, mpp=0.5)
    Image.fromarray(image).save(path, dpi=(50_800, 50_800))  # 0.5 microns
    of_file = finder(path)
    assert len(of_file) == len(coarse)
    np.testing.assert_allclose(of_file.centroids, coarse.centroids, atol=0.01)  # of dpi as meters


@pytest.mark.parametrize('fails', [False, True])
def test_a_file_is_closed_when_its_nuclei_are_found(finder, image, tmp_path, monkeypatch, fails):
    path = tmp_path / 'a.tif'
    tifffile.imwrite(path, image, tile=(64, 64), compression='zlib', photometric='rgb')
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter('always')
        if fails:
            monkeypatch.setattr(finder.predictor, 'predict', lambda _: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                finder(path)
        else:
            assert len(finder(path)) > 0
        gc.collect()
    assert [str(warning.message) for warning in told if 'a.tif' in str(warning.message)] == []


@pytest.mark.parametrize(
    ('change', 'mpp', 'message'),
    [
        (lambda image: image / 255, 0.25, r'float64 array .* make \(255 \* image\)\.round\(\)'),
        (lambda image: image * 1.0, 0.25, r'float64 array .* expected uint8 \(H, W, 3\), RGB$'),
        (lambda image: image[..., 0], 0.25, r'shape \(150, 200\)'),
        (lambda image: image.tolist(), 0.25, 'list, expected an array'),
        (lambda image: 'nowhere.png', 0.25, r'nowhere\.png: No such file'),
        (lambda image: image, '0.25', "'0.25' given as microns per pixel, expected a number"),
        (lambda image: image, 2.0, 'would be enlarged 8.0 times'),
    ],
)
def test_what_is_no_image_is_refused(finder, image, change, mpp, message):
    with pytest.raises(UserError, match=message):
        finder(change(image), mpp)


def test_a_forked_process_is_told_not_to_wait(finder, image):
    number = os.fork()
    if not number:
        try:
            finder(image)
        except UserError as error:
            os._exit(7 if "get_context('spawn')" in str(error) else 1)
        os._exit(2)
    assert os.waitstatus_to_exitcode(os.waitpid(number, 0)[1]) == 7


def test_an_image_smaller_than_a_tile(finder):
    assert finder(np.full((9, 7, 3), 200, np.uint8)).boxes().max(initial=0) <= 9


def test_scores_count_from_where_the_config_says(random_model):
    assert Segmenter(device='cpu').identity['score_thr'] == 0.7
    assert Segmenter(*random_model, device='cpu').identity['score_thr'] == 0.5
    assert Segmenter(device='cpu', score_thr=0.0).identity['score_thr'] == 0.0


class TestColorsOfASlide:
    """The default model's images are normalized, by what is measured on the whole slide."""

    @pytest.fixture(scope='class')
    def tissue(self):
        return np.tile(synthesize(7, 50, 50, 8)[0], (6, 8, 1))  # the same everywhere

    @pytest.fixture(scope='class')
    def normalizing(self):
        return Segmenter(device='cpu', tile=128, overlap=32)

    def colors(self, finder, slide, tissue=None):
        frame = make_frame(slide)
        return finder.slide_colors(slide, frame, finder.make_grid(frame), tissue)

    def assert_like(self, colors, image):
        expected = stain.measure_colors(image)
        np.testing.assert_allclose(colors.mean, expected.mean, atol=0.03)
        np.testing.assert_allclose(colors.std, expected.std, rtol=0.3)

    def test_are_those_of_all_its_tiles(self, normalizing, tissue):
        self.assert_like(self.colors(normalizing, ArraySlide(tissue)), tissue)

    def test_do_not_count_glass(self, normalizing, tissue):
        glass = np.full((300, 1200, 3), 242, np.uint8)
        image = np.hstack([tissue, glass])
        self.assert_like(self.colors(normalizing, ArraySlide(image)), tissue)
        with pytest.raises(AssertionError):
            self.assert_like(stain.measure_colors(image), tissue)
        # Nor do tiles that the tissue mask leaves out.
        grid = normalizing.make_grid(make_frame(ArraySlide(tissue)))
        left = np.zeros((len(grid.tops), len(grid.lefts)), bool)
        left[:, 0] = True
        colors = self.colors(normalizing, ArraySlide(tissue), left)
        x, _, width, _ = grid.cell(0, 0)
        self.assert_like(colors, tissue[:, x : x + width])

    def test_without_what_cannot_be_read(self, normalizing, tissue):
        class Broken(ArraySlide):
            def read(self, x, y, *rest):
                if x < self.until:
                    raise RegionError('broken')
                return super().read(x, y, *rest)

        slide = Broken(tissue)
        slide.until = 100
        self.assert_like(self.colors(normalizing, slide), tissue[:, 100:])
        slide.until = 1_000
        assert self.colors(normalizing, slide) is None

    def test_are_left_to_the_pipeline(self, normalizing, finder, tissue):
        assert self.colors(finder, ArraySlide(tissue)) is None  # its config normalizes nothing
        assert self.colors(normalizing, ArraySlide(np.full_like(tissue, 255))) is None
        slide = ArraySlide(tissue[:100, :100])
        assert self.colors(normalizing, slide) is None  # a single tile


class TestSegment:
    def test_batches_are_of_one_row(self, finder, image):
        slide = ArraySlide(image)
        frame = make_frame(slide)
        grid = finder.make_grid(frame)
        places = [(0, 0), (0, 1), (0, 2), (1, 1), (1, 2)]
        batches = finder.jobs(slide, frame, grid, places)
        assert [[job.key for job in batch] for batch in batches] == [
            [(0, 0), (0, 1)],
            [(0, 2)],
            [(1, 1), (1, 2)],
        ]

    def test_a_broken_tile_leaves_the_others_as_they_are(self, finder, image):
        def broken():
            raise RegionError('damaged here')

        tiles = [image[:96, left : left + 96] for left in (0, 50, 104)]
        jobs = [[Job(index, tile.copy)] for index, tile in enumerate(tiles)]
        alone = {key: result for key, result, _ in finder.segment(jobs)}
        jobs.insert(1, [Job('broken', broken)])
        found = {key: result for key, result, _ in finder.segment(jobs)}
        assert list(found) == [0, 'broken', 1, 2]
        assert str(found.pop('broken')) == 'damaged here'
        assert all(columns_equal(found[index], alone[index]) for index in range(3))

    def test_reads_a_few_tiles_ahead_in_other_threads(self, finder, image):
        threads = []

        def read():
            threads.append(threading.current_thread())
            return image[:32, :32]

        found = finder.segment([[Job(index, read)] for index in range(30)])
        next(found)
        assert len(threads) <= segmenter.AHEAD + segmenter.BEHIND + 2
        assert threading.main_thread() not in threads
        assert [key for key, _, _ in found] == list(range(1, 30))


def test_each_tile_has_its_own_time(finder, image, monkeypatch):
    """By a clock that goes on with each batch in the network; results come behind it."""
    predict, now = finder._predict, 0

    def counted(batch, tracer):
        nonlocal now
        now += 1
        return predict(batch, tracer)

    monkeypatch.setattr(finder, '_predict', counted)
    monkeypatch.setattr(segmenter, 'time', SimpleNamespace(monotonic=lambda: now))
    jobs = [[Job(index, lambda: image[:32, :32])] for index in range(2 * segmenter.BEHIND)]
    times = {key: left for key, _, left in finder.segment(jobs)}
    assert times == {index: index + 1 for index in range(len(jobs))}


def test_mmdets_own_mask_head_gives_the_same(finder, random_model, tmp_path, image):
    config = tmp_path / 'stock_nuclei.py'
    config.write_text(
        f'_base_ = {str(random_model[0])!r}\n'
        "model = dict(roi_head=dict(mask_head=dict(type='FCNMaskHead')))\n"
    )
    stock = Segmenter(config, random_model[1], device='cpu', score_thr=0.0, tile=96, overlap=32)
    small = image[:90, :90]
    assert columns_equal(stock(small), finder(small))


def test_nuclei_lie_where_the_image_has_them(finder, random_model, tmp_path, image):
    config = tmp_path / 'offset_nuclei.py'
    config.write_text(
        f'_base_ = {str(random_model[0])!r}\n'
        'model = dict(test_cfg=dict(rcnn=dict(truth_offset=(-9, 7))))\n'
    )
    moved = Segmenter(config, random_model[1], device='cpu', score_thr=0.0, tile=96, overlap=32)
    small = image[:90, :90]
    assert columns_equal(moved(small), finder(small))


def test_nuclei_whose_score_was_lowered_below_the_threshold_are_left_out(
    random_model, tmp_path, image
):
    found = []
    for name, mask_nms in (('without', None), ('with', dict(iom_thr=-1, factor=0.1))):
        config = tmp_path / f'{name}_nuclei.py'
        config.write_text(
            f'_base_ = {str(random_model[0])!r}\n'
            f'model = dict(test_cfg=dict(rcnn=dict(mask_nms={mask_nms})))\n'
        )
        few = Segmenter(config, random_model[1], device='cpu', score_thr=0.2)
        found.append(few(image[:90, :90]))
    assert len(found[0]) > 1
    # Each lies on the surest, so to say; the lowered have a score of at most 0.1.
    assert found[1].scores.tolist() == [found[0].scores.max()]


class TestRefused:
    def test_config_without_checkpoint(self, random_model):
        with pytest.raises(UserError, match='no checkpoint given; only dense-r18, dense-lite0, '):
            Segmenter(config=random_model[0])
        with pytest.raises(UserError, match='no config given'):
            Segmenter(checkpoint=random_model[1])
        with pytest.raises(UserError, match='nowhere: no such checkpoint'):
            Segmenter(random_model[0], 'nowhere')

    @pytest.mark.parametrize(
        ('options', 'message'),
        [
            (dict(score_thr=1.0), 'score threshold is 1.0'),
            (dict(batch=0), 'batch is 0'),
            (dict(batch='2'), "batch is '2', expected a whole number, at least 1"),
            (dict(tile=None), 'tile is None, expected a whole number'),
            (dict(overlap=1.5), 'overlap is 1.5, expected a whole number, at least 0'),
            (dict(score_thr='0.5'), "score_thr is '0.5', expected a number"),
            (dict(config=3), 'config is 3, expected a name or a path'),
            (dict(threads=-1), 'threads is -1, expected a whole number, at least 1'),
            (dict(tile=100, overlap=51), 'tiles of 100 px overlap by 51 px'),
            (dict(device='tpu9'), "device is 'tpu9'"),
            (dict(device='cuda:99'), 'device is cuda:99, but torch finds'),
            (dict(device='cpu', precision='fp16'), 'precision is fp16 on a CPU'),
        ],
    )
    def test_impossible_values(self, random_model, options, message):
        with pytest.raises(UserError, match=message):
            Segmenter(**dict(config=random_model[0], checkpoint=random_model[1]) | options)

    def test_checkpoint_of_another_model(self, random_model, tmp_path):
        torch.save(dict(state_dict=dict(weight=torch.ones(1))), tmp_path / 'other.pth')
        with pytest.raises(UserError, match=r'other\.pth: does not fit this config'):
            Segmenter(random_model[0], tmp_path / 'other.pth')

    @pytest.mark.parametrize('shape', [(9, 9), (9, 9, 4), (0, 9, 3)])
    def test_no_rgb_image(self, finder, shape):
        with pytest.raises(UserError, match='uint8'):
            finder(np.zeros(shape, np.uint8))
