"""The class layout: lossless truth, folds, and one line for each thing that is wrong."""

import json
import shutil

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_mask

from nucseg_mmdet.commands import prepare as prepare_data
from nucseg_mmdet.converters import base, folds, vrdl
from nucseg_mmdet.structures.polygons import polygons_to_rle
from nucseg_mmdet.utils.errors import UserError


def read(path):
    return json.loads(path.read_text())


def write_png(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), image)


def write_mask(path, y, x, side=4, size=20):
    mask = np.zeros((size, size), dtype=np.uint8)
    mask[y : y + side, x : x + side] = 255
    write_png(path, mask)


@pytest.fixture
def raw(tmp_path):
    """Two training images with two nuclei each, one test image; free to be damaged."""
    folder = tmp_path / 'raw'
    for name in ('b', 'a'):
        image = folder / 'train' / name
        write_png(image / 'images' / f'{name}.png', np.full((20, 20, 3), 200, np.uint8))
        write_mask(image / 'masks' / 'mask_0001.png', 1, 2)
        write_mask(image / 'masks' / 'mask_0002.png', 10, 10)
    write_png(folder / 'test' / 't.png', np.zeros((20, 30, 3), np.uint8))
    listing = [dict(file_name='t.png', height=20, id=7, width=30)]
    (folder / 'test_img_ids.json').write_text(json.dumps(listing))
    return folder


def run(raw, *options):
    return prepare_data.main(['vrdl', str(raw), str(raw.parent / 'out'), '--workers=1', *options])


def test_written_records(raw):
    assert run(raw) == 0
    truth = read(raw.parent / 'out/annotations/train.json')
    assert truth['images'] == [
        dict(id=1, file_name='a.png', height=20, width=20),
        dict(id=2, file_name='b.png', height=20, width=20),
    ]
    assert truth['categories'] == [dict(id=1, name='nucleus')]
    assert [entry['id'] for entry in truth['annotations']] == [1, 2, 3, 4]
    assert truth['annotations'][0] == dict(
        id=1,
        image_id=1,
        category_id=1,
        segmentation=[[2, 1, 6, 1, 6, 5, 2, 5]],
        area=16,
        bbox=[2, 1, 4, 4],
        iscrowd=0,
    )
    test = read(raw.parent / 'out/annotations/test.json')
    assert test['images'] == [dict(id=7, file_name='t.png', height=20, width=30)]
    assert test['annotations'] == []
    assert (raw.parent / 'out/test/t.png').read_bytes() == (raw / 'test/t.png').read_bytes()


def test_files_of_another_suffix_are_said(raw, capsys):
    masks = raw / 'train/a/masks'
    (masks / 'mask_0001.png').rename(masks / 'mask_0001.PNG')
    for name in ('mask_0003.tif', 'notes.txt', '.hidden'):
        (masks / name).touch()
    (raw / 'train/b/masks/more').mkdir()
    (raw / 'train/b/masks/more/mask_0001.png').touch()
    (raw / 'train/c.png').touch()
    (raw / 'train/b/images/b.jpg').touch()
    (raw / 'test/u.png').touch()
    assert run(raw) == 0
    assert len(read(raw.parent / 'out/annotations/train.json')['annotations']) == 4
    said = capsys.readouterr().out
    left_out = 'no PNG by its suffix, left out:'
    assert f'note: {masks}: {left_out} mask_0003.tif, notes.txt\n' in said
    assert f'note: {raw}/train/b/images: {left_out} b.jpg\n' in said
    assert f'note: {raw}/train/b/masks: {left_out} more/ with 1 files\n' in said
    assert f'note: {raw}/train: images beside the folders, left out: c.png; expected a ' in said
    assert f'note: {raw}/test: not in test_img_ids.json, left out: u.png\n' in said


def test_several_processes_write_the_same(raw, tmp_path):
    assert run(raw) == 0
    assert prepare_data.main(['vrdl', str(raw), str(tmp_path / 'two'), '--workers=2']) == 0
    one, two = (
        folder / 'annotations/train.json' for folder in (raw.parent / 'out', tmp_path / 'two')
    )
    assert one.read_text() == two.read_text()


def test_truth_is_lossless(raw_data, data_root):
    truth = read(data_root / 'annotations/train.json')
    names = {image['id']: image['file_name'].removesuffix('.png') for image in truth['images']}
    seen = dict.fromkeys(names.values(), 0)
    for entry in truth['annotations']:
        name = names[entry['image_id']]
        seen[name] += 1
        mask = cv2.imread(str(raw_data / f'train/{name}/masks/mask_{seen[name]:04}.png'), 0) > 0
        back = coco_mask.decode(polygons_to_rle(entry['segmentation'], *mask.shape))
        assert (back == mask).all()
        assert entry['area'] == mask.sum()
        assert entry['bbox'] == list(cv2.boundingRect(mask.astype(np.uint8)))
    assert seen == {name: len(list((raw_data / f'train/{name}/masks').iterdir())) for name in seen}


def test_folds_part_the_images(data_root):
    every = {image['id'] for image in read(data_root / 'annotations/train.json')['images']}
    held_out = []
    for number in range(1, folds.NUM_FOLDS + 1):
        train, val = (
            read(data_root / f'annotations/fold{number}_{part}.json') for part in ('train', 'val')
        )
        ids = [{image['id'] for image in part['images']} for part in (train, val)]
        assert ids[0] | ids[1] == every
        assert not ids[0] & ids[1]
        assert {entry['image_id'] for entry in val['annotations']} == ids[1]
        held_out += ids[1]
    assert sorted(held_out) == sorted(every)


def test_folds_spread_the_organs(tmp_path):
    organs = ['liver'] * 4 + ['colon'] * 4
    images = [
        base.ImageFile(tmp_path / f'{index}.png', 1, 1, id=index, organ=organ)
        for index, organ in enumerate(organs)
    ]
    for fold in folds.deal_folds(images):
        assert sorted(organs[index] for index in fold) == ['colon', 'liver']


def truncate(path):
    path.write_bytes(path.read_bytes()[:60])


def overwrite_pixel(path, value):
    mask = cv2.imread(str(path), 0)
    mask[0, 0] = value
    write_png(path, mask)


DAMAGE = {
    'no train folder': (lambda raw: shutil.rmtree(raw / 'train'), 'train: no such folder'),
    'no test list': (
        lambda raw: (raw / 'test_img_ids.json').unlink(),
        'test_img_ids.json: No such file',
    ),
    'test list is no list': (
        lambda raw: (raw / 'test_img_ids.json').write_text('{}'),
        'test_img_ids.json: dict, expected a list',
    ),
    'test file elsewhere': (
        lambda raw: (raw / 'test_img_ids.json').write_text(
            json.dumps([dict(file_name='../t.png', height=20, id=7, width=30)])
        ),
        'expected a plain file name',
    ),
    'test image missing': (lambda raw: (raw / 'test/t.png').unlink(), 't.png: No such file'),
    'test image of another size': (
        lambda raw: write_png(raw / 'test/t.png', np.zeros((10, 10), np.uint8)),
        't.png: 10 x 10 px, expected 30 x 20 px',
    ),
    'test image of 16 bits': (
        lambda raw: write_png(raw / 'test/t.png', np.zeros((20, 30), np.uint16)),
        't.png: 16 bits a channel',
    ),
    'test image with alpha': (
        lambda raw: write_png(raw / 'test/t.png', np.zeros((20, 30, 4), np.uint8)),
        't.png: no upright, opaque PNG or JPEG',
    ),
    'test images that differ in case': (
        lambda raw: (raw / 'test_img_ids.json').write_text(
            json.dumps(
                [
                    dict(file_name=name, height=20, id=index, width=30)
                    for index, name in enumerate(('t.png', 'T.png'))
                ]
            )
        ),
        'file_name t.png stands there twice',
    ),
    'image without masks': (
        lambda raw: shutil.rmtree(raw / 'train/a/masks'),
        'a/masks: no PNG file',
    ),
    'no image': (lambda raw: (raw / 'train/a/images/a.png').unlink(), 'a/images: 0 PNG files'),
    'truncated image': (
        lambda raw: truncate(raw / 'train/a/images/a.png'),
        'a.png: PNG without its end',
    ),
    'truncated mask': (
        lambda raw: truncate(raw / 'train/a/masks/mask_0001.png'),
        'mask_0001.png: PNG without its end',
    ),
    'mask of another size': (
        lambda raw: write_mask(raw / 'train/a/masks/mask_0001.png', 1, 1, size=21),
        'mask_0001.png: 21 x 21 px, expected 20 x 20 px',
    ),
    'empty mask': (
        lambda raw: write_mask(raw / 'train/a/masks/mask_0001.png', 0, 0, side=0),
        'mask_0001.png: empty mask',
    ),
    'gray mask': (
        lambda raw: overwrite_pixel(raw / 'train/a/masks/mask_0001.png', 7),
        'mask_0001.png: 3 gray values',
    ),
    'overlapping masks': (
        lambda raw: write_mask(raw / 'train/a/masks/mask_0002.png', 4, 5),
        'mask_0002.png: shares 1 px with mask_0001.png',  # x from 5 to 6, y from 4 to 5
    ),
}


@pytest.mark.parametrize('case', DAMAGE)
def test_damage_is_named_and_nothing_written(raw, capsys, case):
    damage, message = DAMAGE[case]
    damage(raw)
    before = sorted(raw.parent.iterdir())
    assert run(raw) == 2
    assert message in capsys.readouterr().err
    assert sorted(raw.parent.iterdir()) == before


@pytest.mark.parametrize(
    ('case', 'images', 'nuclei', 'tests'),
    [
        ('image without masks', 1, 2, 1),
        ('truncated mask', 2, 3, 1),
        ('overlapping masks', 2, 3, 1),
        ('test image missing', 2, 4, 0),
    ],
)
def test_skip_bad_goes_on_and_lists(raw, capsys, case, images, nuclei, tests):
    damage, message = DAMAGE[case]
    damage(raw)
    assert run(raw, '--skip-bad') == 0
    printed = capsys.readouterr().out
    assert printed.count('left out:') == 1
    assert message in printed
    truth = read(raw.parent / 'out/annotations/train.json')
    assert (len(truth['images']), len(truth['annotations'])) == (images, nuclei)
    assert len(read(raw.parent / 'out/annotations/test.json')['images']) == tests


def test_existing_output_is_kept(raw, capsys):
    out = raw.parent / 'out'
    assert run(raw) == 0
    assert run(raw) == 2
    assert '--overwrite' in capsys.readouterr().err
    assert run(raw, '--overwrite') == 0
    (out / 'notes.txt').write_text('mine')
    assert run(raw, '--overwrite') == 2
    assert (out / 'notes.txt').read_text() == 'mine'


def test_output_in_the_folder_where_one_is(raw, tmp_path, monkeypatch):
    (tmp_path / 'here').mkdir()
    monkeypatch.chdir(tmp_path / 'here')
    assert prepare_data.main(['vrdl', str(raw), '.', '--workers=1']) == 0
    assert (tmp_path / 'here/annotations/train.json').is_file()


def test_missing_raw_folder(tmp_path):
    with pytest.raises(UserError, match='nowhere: no such folder'):
        vrdl.find_images(tmp_path / 'nowhere')


@pytest.mark.slow
def test_class_data_comes_back_exactly(class_data):
    """Every mask of the densest image; the counts of all are what the data is known for."""
    folders = vrdl.find_images(class_data)
    counts = {folder.name: len(list((folder / 'masks').iterdir())) for folder in folders}
    assert len(folders) == 24
    assert sum(counts.values()) == 14_598
    densest = max(folders, key=lambda folder: counts[folder.name])
    annotated = vrdl.read_image(densest)
    assert len(annotated.nuclei) == 1_862
    assert annotated.problems == []
    for nucleus, path in zip(annotated.nuclei, sorted((densest / 'masks').iterdir()), strict=True):
        mask = cv2.imread(str(path), 0) > 0
        assert (coco_mask.decode(polygons_to_rle(nucleus.polygons, *mask.shape)) == mask).all()
        assert nucleus.area == mask.sum()
