"""Fixtures shared by the tests: a small data set, the class data where there is some."""

import os
import tarfile
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope

from nucseg_mmdet.converters import base, vrdl
from nucseg_mmdet.synthetic import fields

ROOT = Path(__file__).parents[1]
DEMO_CONFIG = ROOT / 'configs/demo/mask-rcnn_r18_fpn_demo_nuclei.py'

Config.fromfile(DEMO_CONFIG)  # its custom_imports register the project's classes


def pytest_collection_modifyitems(items):
    """Skip what needs the class data where there is none; CI names the folder, so none skips."""
    if 'NUCSEG_SHARED' not in os.environ:
        skip = pytest.mark.skip(reason='NUCSEG_SHARED names no folder with data/vrdl_hw3.tar')
        for item in items:
            if 'class_data' in item.fixturenames:
                item.add_marker(skip)


@pytest.fixture
def seeded():
    """NumPy's global generator: set for the test, given back as it was."""
    state = np.random.get_state()
    np.random.seed(0)
    yield
    np.random.set_state(state)


@pytest.fixture(scope='session')
def img():
    """BGR, as mmdet loads it."""
    return np.ascontiguousarray(fields.synthesize(4, 80, 112)[0][..., ::-1])


@pytest.fixture
def files(tmp_path):
    """Two images on disk, and their pixels in RGB."""
    images = [fields.synthesize(seed, 64, 64)[0] for seed in (5, 6)]
    paths = [str(tmp_path / f'{index}.png') for index in range(2)]
    for path, target in zip(paths, images, strict=True):
        cv2.imwrite(path, target[..., ::-1])
    return paths, images


@pytest.fixture(scope='session')
def raw_data(tmp_path_factory):
    """Synthetic data in the class layout: 5 training, 6 test images of 96 px."""
    folder = tmp_path_factory.mktemp('raw') / 'data'
    fields.write_dataset(folder, num_train=5, num_test=6, size=96, seed=3)
    return folder


@pytest.fixture(scope='session')
def data_root(raw_data, tmp_path_factory):
    """The same, prepared."""
    out = tmp_path_factory.mktemp('prepared') / 'data'
    images, problems = vrdl.find_test_images(raw_data)
    base.prepare(vrdl.find_images(raw_data), vrdl.read_image, images, problems, out, workers=1)
    return out


@pytest.fixture(scope='session')
def random_model(tmp_path_factory):
    """Config and checkpoint of the demo's model, untrained: at most 20 nuclei a tile."""
    folder = tmp_path_factory.mktemp('model')
    config, checkpoint = folder / 'random_nuclei.py', folder / 'random.pth'
    config.write_text(
        f'_base_ = {str(DEMO_CONFIG)!r}\n'
        'model = dict(test_cfg=dict(rpn=dict(nms_pre=60, max_per_img=40, min_score=0.0),'
        ' rcnn=dict(max_per_img=20)))\n'
    )
    init_default_scope('mmdet')
    torch.manual_seed(0)
    model = MODELS.build(Config.fromfile(config).model)
    torch.save(dict(state_dict=model.state_dict()), checkpoint)
    return config, checkpoint


@pytest.fixture(scope='session')
def class_data(tmp_path_factory):
    """The class data as handed out, from the folder that NUCSEG_SHARED names."""
    folder = tmp_path_factory.mktemp('class')
    with tarfile.open(ROOT / os.environ['NUCSEG_SHARED'] / 'data/vrdl_hw3.tar') as archive:
        archive.extractall(folder, filter='data')
    return folder / 'vrdl_hw3'
