"""Color targets of the images that are trained on."""

import json

import cv2
import numpy as np
import pytest
from mmdet.registry import TRANSFORMS
from mmengine.config import Config

import nucseg_mmdet.registration  # noqa: F401
from nucseg_mmdet.engine.fold_colors import use_training_colors
from nucseg_mmdet.imaging import stain
from nucseg_mmdet.utils.errors import UserError


@pytest.fixture
def cfg(tmp_path):
    """Three training images of noise, of different colors, and a pipeline that has them all."""
    random = np.random.default_rng(0)
    (tmp_path / 'train').mkdir()
    names = [f'{number}.png' for number in range(3)]
    for name, middle in zip(names, ((90, 60, 140), (150, 80, 170), (120, 90, 120)), strict=True):
        rgb = np.clip(random.normal(middle, 30, (40, 40, 3)), 0, 255).astype(np.uint8)
        cv2.imwrite(str(tmp_path / 'train' / name), rgb[..., ::-1])
    (tmp_path / 'fold.json').write_text(
        json.dumps(dict(images=[dict(file_name=name) for name in names]))
    )
    dataset = dict(data_root=str(tmp_path), ann_file='fold.json', data_prefix=dict(img='train/'))
    jitter = dict(type='RandomApply', prob=0.5, transforms=[dict(type='ReinhardJitter')])
    normalize = dict(type='ReinhardNormalize')
    return Config(
        dict(
            train_dataloader=dict(dataset=dict(**dataset, pipeline=[jitter])),
            test_dataloader=dict(dataset=dict(pipeline=[normalize, dict(type='Resize')])),
            tta_pipeline=[normalize],
        )
    )


def read(cfg, number):
    path = f'{cfg.train_dataloader.dataset.data_root}/train/{number}.png'
    return stain.measure_colors(cv2.imread(path)[..., ::-1])


def test_all_steps_get_the_medians_of_the_training_images(cfg):
    use_training_colors(cfg)
    colors = [read(cfg, number) for number in range(3)]
    means = np.sort([each.mean for each in colors], axis=0)
    stds = np.sort([each.std for each in colors], axis=0)
    for step in (cfg.test_dataloader.dataset.pipeline[0], cfg.tta_pipeline[0]):
        built = TRANSFORMS.build(step)
        np.testing.assert_allclose(built.targets[0].mean, means[1], atol=1e-12)
        np.testing.assert_allclose(built.targets[0].std, stds[1], atol=1e-12)
    jitter = TRANSFORMS.build(cfg.train_dataloader.dataset.pipeline[0].transforms[0])
    np.testing.assert_allclose(jitter.targets[0].mean, means[1], atol=1e-12)
    centered = means - means.mean(0)
    np.testing.assert_allclose(jitter.covariances[0], centered.T @ centered / 2, rtol=1, atol=1)
    diagonal = np.diag(jitter.covariances[0])
    np.testing.assert_allclose(diagonal, (centered**2).sum(0) / 2, atol=1e-12)


def test_a_target_that_is_given_stays(cfg):
    given = dict(mean=[0, 0, 0], std=[1, 1, 1])
    cfg.tta_pipeline[0].target = given
    use_training_colors(cfg)
    assert cfg.tta_pipeline[0].target == given


def test_one_image_is_not_enough_and_a_missing_one_is_named(cfg):
    dataset = cfg.train_dataloader.dataset
    path = f'{dataset.data_root}/fold.json'
    with open(path, 'w') as file:
        json.dump(dict(images=[dict(file_name='0.png'), dict(file_name='gone.png')]), file)
    with pytest.raises(UserError, match=r'gone\.png'):
        use_training_colors(cfg)
    with open(path, 'w') as file:
        json.dump(dict(images=[dict(file_name='0.png')]), file)
    with pytest.raises(UserError, match='1 training images'):
        use_training_colors(cfg)


def test_a_gray_image_has_no_part_in_the_target(cfg, capsys):
    root = cfg.train_dataloader.dataset.data_root
    path = f'{root}/train/1.png'
    cv2.imwrite(path, cv2.imread(path, cv2.IMREAD_GRAYSCALE))
    use_training_colors(cfg)
    means = [read(cfg, number).mean for number in (0, 2)]
    target = cfg.tta_pipeline[0].target
    np.testing.assert_allclose(target['mean'], np.mean(means, axis=0), atol=1e-12)
    assert capsys.readouterr().err.startswith(f'{path}: left out of the target of colors, spread')
    cv2.imwrite(f'{root}/train/0.png', np.zeros((40, 40), np.uint8))
    with pytest.raises(UserError, match='1 training images whose colors can be measured, expected'):
        use_training_colors(cfg)


def test_a_pipeline_without_such_steps_needs_no_images():
    use_training_colors(Config(dict(test_dataloader=dict(dataset=dict(pipeline=[])))))


@pytest.mark.parametrize(
    ('name', 'values'),
    [
        ('ReinhardNormalize', dict(target=dict(mean=[0, 0, 0]))),
        ('ReinhardNormalize', dict(target=dict(mean=[0, 0], std=[1, 1]))),
        ('ReinhardJitter', dict(slides=dict(mean=[0, 0, 0], std=[1, 1, 1]))),
    ],
)
def test_missing_numbers_are_refused(name, values):
    with pytest.raises(UserError, match='expected'):
        TRANSFORMS.build(dict(type=name, **values))
