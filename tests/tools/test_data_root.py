"""Data of the user: --data-root alone trains and tests on it, on images without nuclei too."""

import json

import cv2
import numpy as np
import pytest

from nucseg_mmdet.commands import prepare, test, train
from nucseg_mmdet.synthetic.fields import synthesize
from tests.tools.test_tools import TINY


@pytest.fixture(scope='module')
def own_data(tmp_path_factory):
    """Four fields and their label maps, prepared; there is nothing in two of them."""
    folder = tmp_path_factory.mktemp('own')
    for name in ('images', 'labels'):
        (folder / 'raw' / name).mkdir(parents=True)
    for seed in range(4):
        image, labels = synthesize(seed, 96, 96, 12)
        labels = labels * (seed < 2)
        cv2.imwrite(str(folder / f'raw/images/{seed}.png'), image[..., ::-1])
        np.save(folder / f'raw/labels/{seed}.npy', labels)
    out = folder / 'data'
    assert prepare.main(['label-map', str(folder / 'raw'), str(out), '--workers', '1']) == 0
    return out


def run(main, random_model, own_data, work_dir, *more):
    arguments = [random_model[0], *more, '--data-root', own_data, '--work-dir', work_dir]
    arguments += ['--cfg-options', *TINY, 'train_cfg.max_iters=2']
    assert main([str(argument) for argument in arguments]) == 0
    return json.loads((work_dir / 'run_card.json').read_text())


def test_scores_by_data_root_alone(random_model, own_data, tmp_path, capsys):
    """Such data has no test images: those of training are scored, and that is said."""
    card = run(test.main, random_model, own_data, tmp_path, random_model[1])
    assert 'test.json: has no images, those of annotations/train.json are tested' in (
        capsys.readouterr().out
    )
    assert list(card['scores']) == ['train.json']
    assert 0 <= card['scores']['train.json']['nuclei/AP'] <= 1


def test_one_start_is_enough(random_model, own_data, tmp_path, capsys):
    start = [random_model[0], '--data-root', own_data, '--work-dir', tmp_path / 'out']
    start += ['--initial-weights', 'FILE']
    for more in [], ['--resume']:  # of which there is nothing
        arguments = [*start, *more, '--cfg-options', f'load_from={random_model[1]}']
        assert train.main([str(argument) for argument in arguments]) == 2
        problem = '--initial-weights FILE: the whole model starts from '
        assert f'{problem}{random_model[1]}, expected one of both' in capsys.readouterr().err
        assert not (tmp_path / 'out').exists()


def test_a_checkpoint_and_the_whole_backbone(random_model, own_data, tmp_path):
    options = ['--initial-weights', 'none', '--cfg-options', f'load_from={random_model[1]}']
    arguments = [random_model[0], '--data-root', own_data, '--work-dir', tmp_path, *options, *TINY]
    assert train.main([str(argument) for argument in [*arguments, 'train_cfg.max_iters=3']]) == 0
    assert (tmp_path / 'iter_3.pth').exists()


@pytest.mark.parametrize(('option', 'images'), [([], 2), (['--keep-empty'], 4)])
def test_training_on_images_without_nuclei(random_model, own_data, tmp_path, option, images):
    card = run(train.main, random_model, own_data, tmp_path, '--initial-weights', 'none', *option)
    assert (card['images'], card['iteration']) == (images, 2)
    (log,) = tmp_path.glob('*/vis_data/scalars.json')
    losses = [json.loads(line)['loss'] for line in log.read_text().splitlines()]
    assert len(losses) == 2
    assert np.isfinite(losses).all()
