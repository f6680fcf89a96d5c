"""The default model trained on, on a few fields."""

import json

import cv2
import numpy as np
import pytest
from mmengine.config import Config

from nucseg_mmdet.commands import prepare, test, train
from nucseg_mmdet.engine import config_edits, finetune, model_zoo
from nucseg_mmdet.structures.polygons import mask_to_polygons
from nucseg_mmdet.synthetic import fields
from nucseg_mmdet.utils.errors import UserError

CONFIG = model_zoo.find_file('configs/finetune/mask-rcnn_r18-c4_fpn_finetune_nuclei.py')


def write_truth(folder, counts):
    """Annotations of images with so many nuclei each."""
    (folder / 'annotations').mkdir(parents=True)
    owners = [number for number, count in enumerate(counts, start=1) for _ in range(count)]
    truth = dict(
        images=[dict(id=number) for number in range(1, len(counts) + 1)],
        annotations=[dict(image_id=number) for number in owners],
        categories=[dict(id=1, name='nucleus')],
    )
    (folder / 'annotations/train.json').write_text(json.dumps(truth))
    return folder


@pytest.mark.parametrize(
    ('fields', 'iterations', 'fold'), [(1, 100, 0), (3, 100, 0), (4, 100, 1), (40, 1_000, 1)]
)
def test_the_recipe_follows_from_the_number_of_fields(tmp_path, fields, iterations, fold):
    cfg = Config.fromfile(CONFIG)
    config_edits.set_data_root(cfg, write_truth(tmp_path, [2] * fields + [0, 0]))
    recipe = finetune.fit_to_data(cfg)
    assert (recipe.iterations, recipe.fold) == (iterations, fold)
    assert cfg.train_cfg.max_iters == iterations
    assert cfg.optim_wrapper.optimizer.lr == recipe.lr
    assert [step.end for step in cfg.param_scheduler] == [iterations // 10, iterations]
    assert cfg.load_from == str(model_zoo.model_files('dense-r18')[1])
    held_out = 'annotations/fold1_train.json' if fold else 'annotations/train.json'
    assert cfg.train_dataloader.dataset.ann_file == held_out
    assert (cfg.val_dataloader is None) == (not fold)


def test_what_the_user_gives_holds(tmp_path):
    options = {'finetune.iterations': 30, 'finetune.lr': 1e-3, 'finetune.fold': 0}
    cfg = config_edits.load_config(CONFIG, options, tmp_path)
    config_edits.set_data_root(cfg, write_truth(tmp_path / 'a', [5] * 8))
    assert finetune.fit_to_data(cfg) == finetune.Recipe(30, 1e-3, 0)
    assert finetune.fit_to_data(cfg, fold=3).fold == 3
    assert cfg.train_dataloader.dataset.ann_file == 'annotations/fold3_train.json'


def test_data_without_nuclei_is_refused(tmp_path):
    cfg = Config.fromfile(CONFIG)
    config_edits.set_data_root(cfg, tmp_path / 'missing')
    with pytest.raises(UserError, match=r'not there; nucseg prepare makes the data'):
        finetune.fit_to_data(cfg)
    config_edits.set_data_root(cfg, write_truth(tmp_path / 'a', [0, 0]))
    with pytest.raises(UserError, match='no nucleus in it'):
        finetune.fit_to_data(cfg)


def as_qupath(labels):
    """The nuclei as annotations, and a region around all of them."""

    def annotation(ring, name):
        shape = dict(type='Polygon', coordinates=[[*ring, ring[0]]])
        kind = dict(name=name, color=[0, 0, 0])
        return dict(
            type='Feature',
            geometry=shape,
            properties=dict(objectType='annotation', classification=kind),
        )

    height, width = labels.shape
    corners = [[0, 0], [width, 0], [width, height], [0, height]]
    rings = [
        np.reshape(mask_to_polygons(labels == number)[0], (-1, 2)).tolist()
        for number in range(1, labels.max() + 1)
    ]
    features = [annotation(corners, 'Region*'), *(annotation(ring, 'Nucleus') for ring in rings)]
    return dict(type='FeatureCollection', features=features)


@pytest.mark.slow
def test_a_new_color_is_learned_from_four_fields(tmp_path):
    """docs/finetune.md, on made-up fields whose stroma is green and whose nuclei are brown."""
    raw, data = tmp_path / 'corrected', tmp_path / 'data'
    raw.mkdir()
    for number in range(4):
        image, labels = fields.synthesize(100 + number, 160, 160)
        cv2.imwrite(str(raw / f'field{number}.png'), image[..., [1, 0, 2]])  # G, B, R as RGB
        (raw / f'field{number}.geojson').write_text(json.dumps(as_qupath(labels)))
    assert prepare.main(['qupath', str(raw), str(data), '--workers', '1']) == 0

    weights = str(model_zoo.model_files('dense-r18')[1])
    loaders = [
        *('train_dataloader.num_workers=0', 'train_dataloader.persistent_workers=False'),
        *('test_dataloader.num_workers=0', 'test_dataloader.persistent_workers=False'),
    ]
    common = ['finetune', '--fold', '1', '--data', str(data)]
    before = tmp_path / 'before'
    command = [*common[:1], weights, *common[1:], '--work-dir', str(before)]
    assert test.main([*command, '--cfg-options', *loaders[2:]]) == 0
    # A tenth of the recipe's length is enough here, and what a test has time for.
    shorter = ['finetune.iterations=20', 'finetune.lr=5e-4', 'train_dataloader.batch_size=2']
    after = tmp_path / 'after'
    command = [*common, '--work-dir', str(after)]
    assert train.main([*command, '--cfg-options', *shorter, *loaders]) == 0

    scores = [
        json.loads((folder / 'run_card.json').read_text())['scores']['fold1_val.json']['nuclei/PQ']
        for folder in (before, after)
    ]
    assert scores[1] > scores[0] + 0.05, scores
