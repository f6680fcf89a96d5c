"""The steps that change stains: what they draw, what they read, what they leave alone."""

import warnings
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmcv.transforms import Compose
from mmdet.registry import TRANSFORMS
from mmengine.config import Config
from mmengine.registry import init_default_scope

from nucseg_mmdet.datasets.transforms import stain as stain_transforms
from nucseg_mmdet.imaging import stain
from nucseg_mmdet.utils.errors import UserError

DENSE = Path(__file__).parents[2] / 'configs/dense'
NAMES = ['StainJitter', 'MacenkoNormalize', 'ReinhardNormalize', 'ReinhardJitter']
NORMALIZE = {'MacenkoNormalize': 'normalize_stains', 'ReinhardNormalize': 'normalize_colors'}
MEASURE = {'MacenkoNormalize': 'measure_stains', 'ReinhardNormalize': 'measure_colors'}
pytestmark = pytest.mark.usefixtures('seeded')
by_name = pytest.mark.parametrize('name', NAMES)
normalizations = pytest.mark.parametrize('name', NORMALIZE)


def build(name, **kwargs):
    return TRANSFORMS.build(dict(type=name, **kwargs))


def test_jitter_draws_one_factor_for_each_stain(img):
    np.random.seed(7)
    hematoxylin, eosin = np.random.uniform(0.7, 1.3, size=2)
    amounts = -np.log((img[..., ::-1] + 1.0) / 256) @ np.linalg.inv(stain.STAIN_OD)
    light = 256 * np.exp(-(amounts * [hematoxylin, eosin, eosin]) @ stain.STAIN_OD) - 1
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


@pytest.mark.parametrize('sigma', [-0.1, 1.0, float('nan'), '0.2', None])
def test_wrong_sigma_is_refused(sigma):
    with pytest.raises(UserError, match=f'sigma is {sigma!r}, expected'):
        stain_transforms.StainJitter(sigma=sigma)


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
    cls = getattr(stain_transforms, name)
    for path, problem in ((missing, 'No such file'), (text, 'not readable'), (blank, 'unfit')):
        with pytest.raises(UserError, match=problem) as error:
            cls(target=[path])
        assert path in str(error.value)
        assert '\n' not in str(error.value)
    with pytest.raises(UserError, match='empty list'):
        cls(target=[])
    for odd in (5, [5], [None]):
        with pytest.raises(UserError, match='expected paths of images or numbers'):
            cls(target=odd)


@pytest.mark.parametrize('wrong', ['abc', [1, [2], 3], [1, None, {}]])
def test_targets_that_are_no_numbers_are_refused(wrong):
    target = dict(mean=wrong, std=[1, 2, 3])
    with pytest.raises(UserError, match='expected numbers'):
        stain_transforms.ReinhardNormalize(target)
    right = dict(mean=[1, 2, 3], std=[1, 2, 3], covariance_of_mean=np.eye(3))
    with pytest.raises(UserError, match='expected numbers'):
        stain_transforms.ReinhardJitter(slides=dict(right, covariance_of_log_std=wrong))


@normalizations
def test_a_tile_is_normalized_as_its_slide(name, img):
    measured = getattr(stain, MEASURE[name])(img[..., ::-1])
    whole = build(name)(dict(img=img))['img']
    tile = build(name)(dict(img=img[20:60, 30:80], measured=measured))
    np.testing.assert_allclose(tile['img'], whole[20:60, 30:80], atol=1)
    assert tile.keys() == {'img'}
    alone = build(name)(dict(img=img[20:60, 30:80]))['img']
    assert np.abs(alone.astype(int) - tile['img']).max() > 2


@pytest.mark.parametrize('odd', [-1, float('nan'), '1', None])
def test_wrong_strength_is_refused(odd):
    with pytest.raises(UserError, match=f'strength is {odd!r}, expected 0 or more'):
        stain_transforms.ReinhardJitter(odd)
    with pytest.raises(UserError, match='slides is 5, expected numbers by their names'):
        stain_transforms.ReinhardJitter(slides=5)


@pytest.mark.parametrize('strength', [0.5, 2.0])
def test_targets_spread_as_the_slides_do(strength):
    jitter = stain_transforms.ReinhardJitter(strength)
    drawn = [jitter.draw_target() for _ in range(4000)]
    means = np.array([target.mean for target in drawn]) - stain.TARGET_COLORS.mean
    ratios = np.log([target.std for target in drawn] / stain.TARGET_COLORS.std)
    for values, covariance in (
        (means, stain.COVARIANCE_OF_MEAN),
        (ratios, stain.COVARIANCE_OF_LOG_STD),
    ):
        spread = strength * np.sqrt(np.diag(covariance))
        np.testing.assert_allclose(values.mean(0) / spread, 0, atol=0.08)
        expected = strength**2 * covariance / np.outer(spread, spread)
        np.testing.assert_allclose(np.cov(values.T) / np.outer(spread, spread), expected, atol=0.1)


def test_the_image_takes_the_colors_drawn(img):
    jitter = build('ReinhardJitter')
    np.random.seed(0)
    target = jitter.draw_target()
    np.random.seed(0)
    expected = stain.normalize_colors(img[..., ::-1], target)[..., ::-1]
    np.testing.assert_array_equal(jitter(dict(img=img))['img'], expected)
    assert (jitter(dict(img=img))['img'] != expected).any()


def test_jitter_of_strength_0_is_the_normalization(img):
    expected = build('ReinhardNormalize')(dict(img=img))['img']
    np.testing.assert_array_equal(
        build('ReinhardJitter', strength=0)(dict(img=img))['img'], expected
    )


@by_name
@pytest.mark.parametrize('color', [(255, 255, 255), (0, 0, 0), (140, 90, 180)])
def test_one_color_is_left_with_a_warning(name, color):
    img = np.full((30, 40, 3), color, dtype=np.uint8)
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
    init_default_scope('mmdet')
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
    plain, jittered = (
        Config.fromfile(
            DENSE / f'ablations/half-width{change}.py', import_custom_modules=False
        ).to_dict()
        for change in ('', '-jitter')
    )
    steps = jittered['train_dataloader']['dataset']['pipeline']
    added = [step for step in steps if step['type'] == 'StainJitter']
    assert added == [dict(type='StainJitter', sigma=0.25)]
    steps.remove(added[0])
    jittered.pop('jitter')  # the step's name in the file
    assert jittered == plain
