"""PanNuke: patches out of mapped arrays, five types, overlaps kept."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmdet.registry import DATASETS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from pycocotools import mask as coco_mask

from nucseg_mmdet.commands import prepare as prepare_data
from nucseg_mmdet.engine import config_edits
from nucseg_mmdet.structures.polygons import polygons_to_rle

COUNT, SIDE = 3, 12  # patches a fold, px


def arrays(seed=0):
    """Patch 0: a neoplastic nucleus, an epithelial one that shares a pixel. Patch 1: none.

    Patch 2: one dead nucleus in two parts.
    """
    images = np.random.default_rng(seed).integers(0, 256, (COUNT, SIDE, SIDE, 3)).astype(float)
    masks = np.zeros((COUNT, SIDE, SIDE, 6))
    masks[0, 1:4, 1:4, 0] = 4
    masks[0, 3:6, 3:6, 4] = 9
    masks[2, 0, 0, 3] = masks[2, 5, 5, 3] = 2
    masks[..., 5] = masks[..., :5].max(3) == 0
    return dict(images=images, masks=masks, types=np.array(['Breast', 'Colon', 'Breast']))


def write(raw, fold, content):
    """The folders of the archive: images and types together, masks apart."""
    for name, array in content.items():
        kind = 'masks' if name == 'masks' else 'images'
        folder = raw / f'Fold {fold}' / kind / f'fold{fold}'
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / f'{name}.npy', array, allow_pickle=True)


@pytest.fixture
def raw(tmp_path):
    write(tmp_path / 'raw', 1, arrays())
    return tmp_path / 'raw'


def run(raw, *options):
    return prepare_data.main(
        ['pannuke', str(raw), str(raw.parent / 'out'), '--workers=1', *options]
    )


def read(raw):
    return json.loads((raw.parent / 'out/annotations/train.json').read_text())


def test_patches_and_types(raw):
    assert run(raw) == 0
    truth = read(raw)
    assert [(image['file_name'], image['organ']) for image in truth['images']] == [
        ('fold1_0000.png', 'Breast'),
        ('fold1_0001.png', 'Colon'),
        ('fold1_0002.png', 'Breast'),
    ]
    assert [
        (entry['image_id'], entry['type'], entry['area']) for entry in truth['annotations']
    ] == [
        (1, 'neoplastic', 9),
        (1, 'epithelial', 9),
        (3, 'dead', 2),
    ]
    assert truth['categories'] == [dict(id=1, name='nucleus')]
    masks = arrays()['masks']
    for entry, channel in zip(truth['annotations'], [0, 4, 3], strict=True):
        mask = coco_mask.decode(polygons_to_rle(entry['segmentation'], SIDE, SIDE))
        assert (mask == (masks[entry['image_id'] - 1, ..., channel] > 0)).all()


def test_images_are_the_same_pixels(raw):
    assert run(raw) == 0
    for index, rgb in enumerate(arrays()['images']):
        written = cv2.imread(str(raw.parent / f'out/train/fold1_{index:04}.png'))
        assert (written[..., ::-1] == rgb).all()


def test_several_folds(raw):
    write(raw, 2, arrays(seed=2))
    assert run(raw, '--classes') == 0
    truth = read(raw)
    assert [image['file_name'] for image in truth['images']][3:] == [
        'fold2_0000.png',
        'fold2_0001.png',
        'fold2_0002.png',
    ]
    assert [category['name'] for category in truth['categories']] == [
        'dead',
        'epithelial',
        'neoplastic',
    ]


def test_three_files_in_one_folder(tmp_path):
    (tmp_path / 'raw').mkdir()
    for name, array in arrays().items():
        np.save(tmp_path / f'raw/{name}.npy', array)
    assert run(tmp_path / 'raw', '--limit', '2') == 0
    assert [image['file_name'] for image in read(tmp_path / 'raw')['images']] == [
        '0000.png',
        '0001.png',
    ]


def test_the_example_config_reads_the_types(tmp_path):
    """Each of its classes is the type of that name, and both heads have as many."""
    content = arrays()
    content['masks'][1, 8, 8:10, 1] = content['masks'][1, 10, 10, 2] = 1  # the two not there yet
    write(tmp_path / 'raw', 1, content)
    assert run(tmp_path / 'raw', '--classes') == 0
    root = Path(__file__).parents[2]
    cfg = Config.fromfile(root / 'configs/pannuke/mask-rcnn_r18_fpn_types_pannuke.py')
    config_edits.set_data_root(cfg, tmp_path / 'out')
    assert cfg.val_evaluator.ann_file == f'{tmp_path}/out/annotations/fold1_val.json'
    init_default_scope('mmdet')
    cfg.train_dataloader.dataset.ann_file = 'annotations/train.json'
    dataset = DATASETS.build(cfg.train_dataloader.dataset)
    names = dataset.metainfo['classes']
    found = [
        {(names[instance['bbox_label']], tuple(instance['bbox'])) for instance in info['instances']}
        for info in map(dataset.get_data_info, range(len(dataset)))
    ]
    assert found == [
        {('neoplastic', (1, 1, 4, 4)), ('epithelial', (3, 3, 6, 6))},
        {('inflammatory', (8, 8, 10, 9)), ('connective', (10, 10, 11, 11))},
        {('dead', (0, 0, 6, 6))},
    ]
    head = cfg.model.roi_head
    assert head.bbox_head.num_classes == head.mask_head.num_classes == len(names)


def changed(name, change):
    content = arrays()
    content[name] = change(content[name])
    return content


def with_value(array, value):
    array = array.copy()
    array[1, 2, 3, 0] = value
    return array


BAD = {
    'no masks': ({k: v for k, v in arrays().items() if k != 'masks'}, "fold '1' has no masks.npy"),
    'fewer types': (changed('types', lambda a: a[:2]), 'images.npy: shape (3, 12, 12, 3)'),
    'five channels': (changed('masks', lambda a: a[..., :5]), 'masks.npy: shape (3, 12, 12, 5)'),
    'other size': (changed('masks', lambda a: a[:, :9]), 'masks.npy: shape (3, 9, 12, 6)'),
    'pickled types': (changed('types', lambda a: a.astype(object)), 'types.npy: not readable'),
    'above 255': (
        changed('images', lambda a: with_value(a, 256.0)),
        'images.npy: patch 1 has values from 0.0 to 256.0',
    ),
    'not whole': (changed('images', lambda a: with_value(a, 0.5)), 'images.npy: patch 1'),
    'negative label': (
        changed('masks', lambda a: with_value(a, -1.0)),
        'masks.npy/patch 1, channel 0: label -1',
    ),
}


@pytest.mark.parametrize('case', BAD)
def test_bad_arrays_are_named(tmp_path, capsys, case):
    content, message = BAD[case]
    write(tmp_path / 'raw', 1, content)
    assert run(tmp_path / 'raw') == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / 'out').exists()
