"""The registered transforms: what they draw, what they read, what they leave alone."""

import pickle
import warnings
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmcv.transforms import Compose
from mmdet.registry import TRANSFORMS
from mmdet.structures.bbox import HorizontalBoxes
from mmdet.structures.mask import PolygonMasks
from mmengine.config import Config
from mmengine.registry import init_default_scope

from nucseg_mmdet import stain, transforms
from nucseg_mmdet.errors import UserError
from nucseg_mmdet.masks import mask_to_polygons
from nucseg_mmdet.synthetic import synthesize

DENSE = Path(__file__).parents[1] / 'configs/dense'
NAMES = ['StainJitter', 'MacenkoNormalize', 'ReinhardNormalize', 'ReinhardJitter']
NORMALIZE = {'MacenkoNormalize': 'normalize_stains', 'ReinhardNormalize': 'normalize_colours'}
MEASURE = {'MacenkoNormalize': 'measure_stains', 'ReinhardNormalize': 'measure_colours'}
by_name = pytest.mark.parametrize('name', NAMES)
normalizations = pytest.mark.parametrize('name', NORMALIZE)


@pytest.fixture(autouse=True)
def _seeded():
    """NumPy's global generator: set for the test, given back as it was."""
    init_default_scope('mmdet')
    state = np.random.get_state()
    np.random.seed(0)
    yield
    np.random.set_state(state)


@pytest.fixture(scope='module')
def img():
    """BGR, as mmdet loads it."""
    return np.ascontiguousarray(synthesize(4, 80, 112)[0][..., ::-1])


@pytest.fixture
def files(tmp_path):
    """Two images to be targets, and their pixels in RGB."""
    images = [synthesize(seed, 64, 64)[0] for seed in (5, 6)]
    paths = [str(tmp_path / f'{index}.png') for index in range(2)]
    for path, target in zip(paths, images, strict=True):
        cv2.imwrite(path, target[..., ::-1])
    return paths, images


def build(name, **kwargs):
    return TRANSFORMS.build(dict(type=name, **kwargs))


def test_jitter_draws_one_factor_for_each_stain(img):
    np.random.seed(7)
    haematoxylin, eosin = np.random.uniform(0.7, 1.3, size=2)
    amounts = -np.log((img[..., ::-1] + 1.0) / 256) @ np.linalg.inv(stain.STAIN_OD)
    light = 256 * np.exp(-(amounts * [haematoxylin, eosin, eosin]) @ stain.STAIN_OD) - 1
    expected = np.clip(np.rint(light), 0, 255)[..., ::-1]
    np.random.seed(7)
    jittered = build('StainJitter', sigma=0.3)(dict(img=img))['img']
    assert np.abs(jittered - expected).max() <= 1
    assert np.abs(jittered - img.astype(int)).max() > 5


def test_jitter_of_an_image_differs_from_time_to_time(img):
    jitter = build('StainJitter')
    first, second = (jitter(dict(img=img))['img'] for _ in range(2))
    assert (first != second).any()
    np.random.seed(0)
    np.testing.assert_array_equal(jitter(dict(img=img))['img'], first)


def test_jitter_of_0_changes_nothing(img):
    np.testing.assert_array_equal(build('StainJitter', sigma=0)(dict(img=img))['img'], img)


@pytest.mark.parametrize('sigma', [-0.1, 1.0, float('nan')])
def test_wrong_sigma_is_refused(sigma):
    with pytest.raises(UserError, match=f'sigma is {sigma}, expected'):
        transforms.StainJitter(sigma=sigma)


@normalizations
def test_default_target_is_that_of_the_arithmetic(name, img):
    expected = getattr(stain, NORMALIZE[name])(img[..., ::-1])[..., ::-1]
    np.testing.assert_array_equal(build(name)(dict(img=img))['img'], expected)


@normalizations
def test_target_is_a_file(name, img, files):
    (path, _), (target, _) = files
    arithmetic = getattr(stain, NORMALIZE[name])
    expected = arithmetic(img[..., ::-1], getattr(stain, MEASURE[name])(target))
    normalized = build(name, target=path)(dict(img=img))['img']
    np.testing.assert_array_equal(normalized, expected[..., ::-1])


@normalizations
def test_each_image_gets_one_of_the_targets(name, img, files):
    paths, _ = files
    alone = [build(name, target=path)(dict(img=img))['img'] for path in paths]
    assert (alone[0] != alone[1]).any()
    normalize = build(name, target=paths)
    drawn = [normalize(dict(img=img))['img'] for _ in range(20)]
    matches = [[(one == other).all() for other in alone] for one in drawn]
    assert all(sum(match) == 1 for match in matches)
    assert 0 < sum(match[0] for match in matches) < 20


@normalizations
def test_wrong_targets_are_refused(name, tmp_path):
    missing, text, blank = (str(tmp_path / file) for file in ('none.png', 'a.png', 'b.png'))
    Path(text).write_text('no image')
    cv2.imwrite(blank, np.full((32, 32, 3), 255, dtype=np.uint8))
    cls = getattr(transforms, name)
    for path, problem in ((missing, 'no readable'), (text, 'no readable'), (blank, 'unfit')):
        with pytest.raises(UserError, match=problem) as error:
            cls(target=[path])
        assert path in str(error.value)
        assert '\n' not in str(error.value)
    with pytest.raises(UserError, match='empty list'):
        cls(target=[])


@normalizations
def test_a_tile_is_normalized_as_its_slide(name, img):
    measured = getattr(stain, MEASURE[name])(img[..., ::-1])
    whole = build(name)(dict(img=img))['img']
    tile = build(name)(dict(img=img[20:60, 30:80], measured=measured))
    np.testing.assert_allclose(tile['img'], whole[20:60, 30:80], atol=1)
    assert tile.keys() == {'img'}
    alone = build(name)(dict(img=img[20:60, 30:80]))['img']
    assert np.abs(alone.astype(int) - tile['img']).max() > 2


@pytest.mark.parametrize('strength', [0.5, 2.0])
def test_targets_spread_as_the_slides_do(strength):
    jitter = transforms.ReinhardJitter(strength)
    drawn = [jitter.draw_target() for _ in range(4000)]
    means = np.array([target.mean for target in drawn]) - stain.TARGET_COLOURS.mean
    ratios = np.log([target.std for target in drawn] / stain.TARGET_COLOURS.std)
    for values, covariance in (
        (means, stain.COVARIANCE_OF_MEAN),
        (ratios, stain.COVARIANCE_OF_LOG_STD),
    ):
        spread = strength * np.sqrt(np.diag(covariance))
        np.testing.assert_allclose(values.mean(0) / spread, 0, atol=0.08)
        expected = strength**2 * covariance / np.outer(spread, spread)
        np.testing.assert_allclose(np.cov(values.T) / np.outer(spread, spread), expected, atol=0.1)


def test_the_image_takes_the_colours_drawn(img):
    jitter = build('ReinhardJitter')
    np.random.seed(0)
    target = jitter.draw_target()
    np.random.seed(0)
    expected = stain.normalize_colours(img[..., ::-1], target)[..., ::-1]
    np.testing.assert_array_equal(jitter(dict(img=img))['img'], expected)
    assert (jitter(dict(img=img))['img'] != expected).any()


def test_jitter_of_strength_0_is_the_normalization(img):
    expected = build('ReinhardNormalize')(dict(img=img))['img']
    np.testing.assert_array_equal(
        build('ReinhardJitter', strength=0)(dict(img=img))['img'], expected
    )


@pytest.mark.parametrize('strength', [-0.1, float('nan')])
def test_wrong_strength_is_refused(strength):
    with pytest.raises(UserError, match=f'strength is {strength}, expected'):
        transforms.ReinhardJitter(strength)


@by_name
@pytest.mark.parametrize('colour', [(255, 255, 255), (0, 0, 0), (140, 90, 180)])
def test_one_colour_is_left_with_a_warning(name, colour):
    img = np.full((30, 40, 3), colour, dtype=np.uint8)
    with pytest.warns(UserWarning, match=r'^a/b\.png: left as it is') as record:
        results = build(name)(dict(img=img.copy(), img_path='a/b.png'))
    assert len(record) == 1
    np.testing.assert_array_equal(results['img'], img)


@by_name
def test_only_the_image_changes_and_no_warning(name, img):
    before = img.copy()
    results = dict(img=img, img_path='a.png', img_shape=(80, 112), gt_bboxes='kept')
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        done = build(name)(dict(results))
    assert {key: done[key] for key in results if key != 'img'} == {
        key: results[key] for key in results if key != 'img'
    }
    assert set(done) == set(results)
    assert (done['img'].shape, done['img'].dtype) == (img.shape, np.uint8)
    assert done['img'].flags.c_contiguous
    np.testing.assert_array_equal(img, before)  # another pipeline may hold the same array


def test_texts_name_the_settings():
    assert repr(build('StainJitter', sigma=0.1)) == 'StainJitter(sigma=0.1)'
    assert repr(build('MacenkoNormalize')) == 'MacenkoNormalize(target=None)'


@normalizations
def test_step_of_a_test_pipeline(name, img, tmp_path):
    path = str(tmp_path / 'a.png')
    cv2.imwrite(path, img)
    pipeline = [
        dict(type='LoadImageFromFile'),
        dict(type=name),
        dict(type='Resize', scale_factor=2.0),
        dict(type='PackDetInputs', meta_keys=('img_path', 'scale_factor')),
    ]
    inputs = Compose(pipeline)(dict(img_path=path))['inputs']
    expected = build('Resize', scale_factor=2.0)(build(name)(dict(img=img)))['img']
    np.testing.assert_array_equal(inputs.permute(1, 2, 0).numpy(), expected)


def test_jitter_config_is_the_plain_one_with_a_step_more():
    names = ('', '-jitter')
    plain, jittered = (
        Config.fromfile(
            DENSE / f'mask-rcnn_r18_fpn_crop160-x2-a16to256{name}-1500_nuclei.py',
            import_custom_modules=False,
        ).to_dict()
        for name in names
    )
    steps = jittered['train_dataloader']['dataset']['pipeline']
    added = [step for step in steps if step['type'] == 'StainJitter']
    assert added == [dict(type='StainJitter', sigma=0.25)]
    steps.remove(added[0])
    for cfg in (plain, jittered):  # names in the file
        for name in ('jitter', 'pipeline'):
            cfg.pop(name, None)
    assert jittered == plain


def test_kept_images_are_what_is_on_disk(files):
    paths, images = files
    load = build('LoadImageOnce', keep=1)
    plain = build('LoadImageFromFile')
    for path, target in zip([*paths, *paths], [*images, *images], strict=True):
        results = load(dict(img_path=path))
        assert np.array_equal(results['img'], target[..., ::-1])
        expected = plain(dict(img_path=path))
        assert (results['img_shape'], results['ori_shape']) == (
            expected['img_shape'],
            expected['ori_shape'],
        )
        results['img'][:] = 0  # the next one gets pixels of its own


def test_a_kept_image_is_not_read_again(files):
    paths, images = files
    load = build('LoadImageOnce')
    load(dict(img_path=paths[0]))
    Path(paths[0]).unlink()
    assert np.array_equal(load(dict(img_path=paths[0]))['img'], images[0][..., ::-1])
    copied = pickle.loads(pickle.dumps(load))  # for a worker, which reads for itself
    with pytest.raises(FileNotFoundError):
        copied(dict(img_path=paths[0]))


@pytest.mark.parametrize('turns', range(4))
def test_quarter_turns_take_the_truth_along(turns, img, monkeypatch):
    height, width = img.shape[:2]
    mask = np.zeros((height, width), bool)
    mask[10:30, 50:70], mask[30:35, 50:55] = True, True  # an L, near no centre
    box = torch.tensor([[50.0, 10, 70, 35]])
    results = dict(
        img=img,
        img_shape=(height, width),
        gt_bboxes=HorizontalBoxes(box),
        gt_masks=PolygonMasks([[np.array(ring) for ring in mask_to_polygons(mask)]], height, width),
    )
    monkeypatch.setattr(np.random, 'randint', lambda count: turns)
    results = build('RandomQuarterTurn')(results)
    turned = np.rot90(mask, turns)
    assert np.array_equal(results['img'], np.rot90(img, turns))
    assert results['img_shape'] == turned.shape
    masks = results['gt_masks']
    assert (masks.height, masks.width) == turned.shape
    assert np.array_equal(masks.to_ndarray()[0].astype(bool), turned)
    rows, columns = np.flatnonzero(turned.any(1)), np.flatnonzero(turned.any(0))
    assert results['gt_bboxes'].tensor.tolist() == [
        [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
    ]


def test_all_quarter_turns_come_about_and_images_without_truth_turn_too(img):
    turn = build('RandomQuarterTurn')
    found = {turn(dict(img=img))['img'].tobytes() for _ in range(40)}
    assert found == {np.rot90(img, turns).tobytes() for turns in range(4)}


@pytest.fixture
def crop(img):
    """Three nuclei, of which the border cuts the last."""
    masks = np.zeros((3, *img.shape[:2]), bool)
    masks[0, 10:22, 50:60], masks[0, 22:26, 50:54] = True, True  # an L
    masks[1, 40:50, 20:38] = True
    masks[2, :9, 100:] = True
    boxes = torch.tensor([[50.0, 10, 60, 26], [20, 40, 38, 50], [100, 0, 112, 9]])
    polygons = [[np.array(ring) for ring in mask_to_polygons(mask)] for mask in masks]
    results = dict(
        img=img,
        gt_bboxes=HorizontalBoxes(boxes),
        gt_bboxes_labels=np.array([0, 1, 2]),
        gt_ignore_flags=np.zeros(3, bool),
        gt_masks=PolygonMasks(polygons, *img.shape[:2]),
    )
    return results, masks


def test_copies_are_nuclei_where_none_was(crop):
    results, masks = crop
    before = results['img'].copy()
    pasted = build('PasteNuclei', number=30)(dict(results))
    now = pasted['gt_masks'].to_ndarray().astype(bool)
    labels = pasted['gt_bboxes_labels']
    assert np.array_equal(results['img'], before)  # a kept image stays as it is
    assert np.array_equal(now[:3], masks)
    assert set(labels[3:].tolist()) == {0, 1}
    assert len(labels) == len(now) == len(pasted['gt_ignore_flags'])
    assert now.sum(0).max() == 1
    orientations = {0: set(), 1: set()}
    for mask, label, box in zip(now, labels, pasted['gt_bboxes'].tensor.tolist(), strict=True):
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        assert box == [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
        if label < 2:
            assert mask.sum() == masks[label].sum()
            cut = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
            orientations[label].add((cut.shape, cut.tobytes()))
    assert len(orientations[0]) > 2
    assert len(orientations[1]) == 2
    changed = (pasted['img'] != before).any(-1)
    copies = now[3:].any(0)
    assert not changed[~copies].any()
    assert changed[copies].mean() > 0.5


def test_a_copy_has_the_pixels_of_its_nucleus_inside(crop):
    results, masks = crop
    results['img'] = np.full((*masks.shape[1:], 3), 50, np.uint8)
    results['img'][masks[1]] = 200
    results.update(gt_masks=results['gt_masks'][[1]], gt_bboxes=results['gt_bboxes'][[1]])
    for key in ('gt_bboxes_labels', 'gt_ignore_flags'):
        results[key] = results[key][[1]]
    pasted = build('PasteNuclei', number=1)(results)
    copy = pasted['gt_masks'].to_ndarray()[1].astype(np.uint8)
    inside = cv2.erode(copy, np.ones((3, 3), np.uint8), borderType=cv2.BORDER_CONSTANT)
    assert (pasted['img'][inside > 0] == 200).all()
    edge = pasted['img'][(copy > 0) & (inside == 0)]
    assert 50 < edge.min() <= edge.max() < 200


def test_nothing_is_pasted_where_no_nucleus_is_whole_or_no_place_free(crop):
    results, masks = crop
    for key in ('gt_bboxes', 'gt_bboxes_labels', 'gt_ignore_flags', 'gt_masks'):
        results[key] = results[key][[2]]
    assert build('PasteNuclei')(dict(results)) == results
    full = np.ones(masks.shape[1:], bool)
    full[[0, -1]] = full[:, [0, -1]] = False
    results['gt_masks'] = PolygonMasks([[np.array(mask_to_polygons(full)[0])]], *full.shape)
    assert build('PasteNuclei')(dict(results)) == results


def test_wrong_number_of_copies_is_refused():
    with pytest.raises(UserError, match='number is -1'):
        build('PasteNuclei', number=-1)
