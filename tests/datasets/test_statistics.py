"""The report on a data set: its numbers, and when it warns."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmdet.registry import DATASETS, TASK_UTILS
from mmdet.structures.bbox import bbox_overlaps
from mmengine.config import Config
from mmengine.registry import init_default_scope

from nucseg_mmdet.datasets import statistics, statistics_report
from nucseg_mmdet.engine import config_edits
from nucseg_mmdet.structures.polygons import mask_to_polygons
from nucseg_mmdet.utils.errors import UserError
from tools.analysis_tools import browse_data

CONFIG = Path(__file__).parents[2] / 'configs/demo/mask-rcnn_r18_fpn_demo_nuclei.py'


@pytest.fixture
def cfg(data_root):
    cfg = Config.fromfile(CONFIG)
    config_edits.set_data_root(cfg, data_root)
    init_default_scope('mmdet')
    return cfg


def collect(cfg):
    return statistics.collect(cfg, DATASETS.build(cfg.train_dataloader.dataset))


@pytest.mark.parametrize('settings', [{}, dict(scales=[2, 3]), dict(ratios=[0.3, 4.0])])
@pytest.mark.parametrize(('height', 'width'), [(96, 160), (90, 150)])
def test_best_anchor_is_that_of_all(cfg, settings, height, width):
    """Against mmdet's own anchors, every one of them."""
    cfg.model.rpn_head.anchor_generator.update(settings)
    anchors = statistics.read_anchors(cfg)
    rng = np.random.default_rng(0)
    low = rng.uniform(0, [width, height], (300, 2))
    high = np.minimum(low + rng.uniform(1, 80, (300, 2)), [width, height])
    boxes = np.hstack([low, high])
    generator = TASK_UTILS.build(cfg.model.rpn_head.anchor_generator)
    # Padded to multiples of 32: 96 x 160 px in both cases.
    grids = [(-(-96 // stride), -(-160 // stride)) for stride, _ in generator.strides]
    every = torch.cat(generator.grid_priors(grids, dtype=torch.float64, device='cpu'))
    expected = bbox_overlaps(torch.from_numpy(boxes), every.double()).max(1).values.numpy()
    found = statistics.best_anchor_iou(boxes, anchors, height, width)
    np.testing.assert_allclose(found, expected, atol=1e-5)  # base anchors are float32


def test_overlapping_boxes():
    # 10 x 10 px each. IoU of the first two: 60 / 140 = 0.43; the third is apart.
    boxes = np.array([[0, 0, 10, 10], [4, 0, 14, 10], [40, 0, 50, 10]], float)
    assert statistics.overlapping(boxes, 0.42).tolist() == [True, True, False]
    assert statistics.overlapping(boxes, 0.43).tolist() == [False, False, False]
    assert statistics.overlapping(boxes[:1], 0.1).tolist() == [False]


def test_spacing_is_in_diameters():
    # Centers at 5, 25 and 65 px; a circle of 25 pi px has a diameter of 10 px.
    boxes = np.array([[0, 0, 10, 10], [20, 0, 30, 10], [60, 0, 70, 10]], float)
    areas = np.full(3, 25 * np.pi)
    np.testing.assert_allclose(statistics.spacing(boxes, areas), [2, 2, 4])
    assert statistics.spacing(boxes[:1], areas[:1]).tolist() == [np.inf]
    areas[1] = 0
    np.testing.assert_allclose(statistics.spacing(boxes, areas), [2, np.inf, 4])


def test_area_of_a_ring_and_of_two_parts():
    mask = np.zeros((9, 9), bool)
    mask[1:6, 1:6] = True
    mask[2:5, 2:5] = False  # 25 less 9
    mask[8, 8] = True
    assert statistics.polygon_area(mask_to_polygons(mask)) == 17


def test_numbers_of_the_files(cfg, data_root):
    stats = collect(cfg)
    truth = json.loads((data_root / 'annotations/train.json').read_text())
    assert [field.name for field in stats.fields] == [i['file_name'] for i in truth['images']]
    areas = [entry['area'] for entry in truth['annotations']]
    np.testing.assert_allclose(np.concatenate([field.areas for field in stats.fields]), areas)
    text = statistics_report.format_stats(stats)
    assert f'nuclei                           {len(areas)}; ' in text
    assert 'anchor sizes, px                 16 32 64 128 256' in text
    assert '5, 96 x 96 px' in text


def test_sizes_are_those_in_the_network(cfg):
    native = dict(type='Resize', scale_factor=1.0)
    pipeline = cfg.train_dataloader.dataset.pipeline
    cfg.train_dataloader.dataset.pipeline = [*pipeline[:2], native, pipeline[-1]]
    before = statistics.box_sides(collect(cfg).views)
    cfg.train_dataloader.dataset.pipeline[2].scale_factor = 3.0
    after = statistics.box_sides(collect(cfg).views)
    np.testing.assert_allclose(after, 3 * before, rtol=1e-6)


def test_a_config_that_fits_has_no_warnings(cfg):
    cfg.model.rpn_head.anchor_generator.update(scales=[2, 3])
    assert collect(cfg).warnings == []


MISFITS = {
    'anchors': (
        'model.rpn_head.anchor_generator.scales',
        [32],
        'of the nuclei have no anchor with IoU 0.5: anchors are 128 to 2048 px',
    ),
    'detections': ('model.test_cfg.rcnn.max_per_img', 1, 'test_cfg.rcnn.max_per_img is 1: 5 of 5'),
    'proposals': ('model.test_cfg.rpn.max_per_img', 1, 'test_cfg.rpn.max_per_img is 1: 5 of 5'),
    'suppression': ('model.test_cfg.rcnn.nms.iou_threshold', 0.0, 'of the nuclei have a neighbor'),
    'boxes': (
        'model.roi_head.bbox_head.num_classes',
        2,
        'bbox_head.num_classes is 2, the data set',
    ),
    'masks': (
        'model.roi_head.mask_head.num_classes',
        2,
        'mask_head.num_classes is 2, the data set',
    ),
    'classes': (
        'train_dataloader.dataset.metainfo.classes',
        ('nucleus', 'dead'),
        'class dead is no category of train.json',
    ),
}


@pytest.mark.parametrize('case', MISFITS)
def test_misfit_is_told(cfg, case):
    key, value, message = MISFITS[case]
    cfg.merge_from_dict({key: value})
    assert any(message in line for line in collect(cfg).warnings)


def test_category_that_is_no_class(cfg, data_root, tmp_path):
    truth = json.loads((data_root / 'annotations/train.json').read_text())
    truth['categories'].append(dict(id=2, name='dead'))
    path = tmp_path / 'two.json'
    path.write_text(json.dumps(truth))
    cfg.train_dataloader.dataset.ann_file = str(path)
    line = 'category dead of two.json, without nuclei, is no class of the config'
    assert line in collect(cfg).warnings
    truth['annotations'][0]['category_id'] = 2
    path.write_text(json.dumps(truth))
    with pytest.raises(UserError, match='of category 2, which is none of the classes'):
        collect(cfg)


def test_dark_gray_images_are_told(cfg, data_root, tmp_path):
    annotations = tmp_path / 'annotations'
    annotations.mkdir()
    (annotations / 'train.json').write_text((data_root / 'annotations/train.json').read_text())
    (tmp_path / 'train').mkdir()
    for path in (data_root / 'train').iterdir():
        dark = cv2.cvtColor(255 - cv2.imread(str(path), 0), cv2.COLOR_GRAY2BGR) // 3
        assert cv2.imwrite(str(tmp_path / 'train' / path.name), dark)
    config_edits.set_data_root(cfg, tmp_path)
    warnings = collect(cfg).warnings
    assert any('5 images are dark, as fluorescence is' in line for line in warnings)
    assert any('5 images show no two stains' in line for line in warnings)


def test_no_nuclei(cfg, data_root, tmp_path):
    truth = json.loads((data_root / 'annotations/train.json').read_text())
    (tmp_path / 'none.json').write_text(json.dumps(dict(truth, annotations=[])))
    cfg.train_dataloader.dataset.update(
        ann_file=str(tmp_path / 'none.json'), filter_cfg=dict(filter_empty_gt=False)
    )
    with pytest.raises(UserError, match=r'none\.json: no nucleus of the classes nucleus'):
        collect(cfg)


def test_tool_prints_and_plots(data_root, tmp_path, capsys):
    arguments = [str(CONFIG), '--stats', '--out', str(tmp_path), '--data-root', str(data_root)]
    assert browse_data.main(arguments) == 0
    assert 'with an anchor of IoU 0.7' in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ['stats.png']
    assert cv2.imread(str(tmp_path / 'stats.png')).std() > 10
