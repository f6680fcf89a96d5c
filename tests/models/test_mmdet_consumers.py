"""mmdet's own consumers of masks run on the masks of ``RLEMaskHead``."""

import importlib.util
import json
import pickle
import sys
from pathlib import Path

import cv2
import mmdet
import numpy as np
import pytest
from mmdet.apis import DetInferencer
from pycocotools import mask as coco_mask

from nucseg_mmdet.commands.test import main

SIDE = 96  # px; of the synthetic images


@pytest.fixture(scope='module')
def tested(random_model, data_root, tmp_path_factory):
    """A test of four images with mmdet's hook that draws, and its dump of all predictions."""
    config, checkpoint = random_model
    work = tmp_path_factory.mktemp('work')
    hook = 'default_hooks.visualization'
    options = [
        *(f'{hook}.type=DetVisualizationHook', f'{hook}.draw=True', f'{hook}.test_out_dir=drawn'),
        f'{hook}.score_thr=0.0',
    ]
    arguments = [config, checkpoint, '--work-dir', work, '--data-root', data_root]
    arguments += ['--format-only', '--out', work / 'all.pkl', '--cfg-options', *options]
    assert main([str(argument) for argument in arguments]) == 0
    return work


def test_det_visualization_hook_draws_the_nuclei(tested, data_root):
    drawn = sorted(tested.glob('*/drawn/*.png'))
    assert len(drawn) == 6
    for path in drawn:
        # Where there are two pictures side by side, the prediction is the right one.
        prediction = cv2.imread(str(path))[:, -SIDE:]
        difference = cv2.absdiff(prediction, cv2.imread(f'{data_root}/test/{path.name}'))
        assert (difference.max(axis=2) > 0).mean() > 0.01


def test_dumped_predictions_are_those_of_the_answer(tested):
    with (tested / 'all.pkl').open('rb') as file:
        samples = pickle.load(file)  # our own
    answer = json.loads((tested / 'answer.json').read_text())
    assert len(samples) == 6
    for sample in samples:
        results = [result for result in answer if result['image_id'] == sample['img_id']]
        pred = sample['pred_instances']
        assert sorted(pred['scores'].tolist()) == sorted(result['score'] for result in results)
        dumped = sorted(mask['counts'].decode() for mask in pred['masks'])
        assert dumped == sorted(result['segmentation']['counts'] for result in results)


def test_analyze_results_sorts_and_draws(tested, random_model, data_root, monkeypatch):
    path = Path(mmdet.__file__).parent / '.mim/tools/analysis_tools/analyze_results.py'
    spec = importlib.util.spec_from_file_location('analyze_results', path)
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    out = tested / 'analysis'
    root = f'{data_root}/'
    options = [f'{part}_dataloader.dataset.data_root={root}' for part in ('train', 'test')]
    options.append('visualizer.name=analysis')
    monkeypatch.setattr(
        sys, 'argv', ['', str(random_model[0]), str(tested / 'all.pkl'), str(out), '--topk', '2',
                      '--cfg-options', *options],
    )  # fmt: skip
    tool.main()
    for folder in ('good', 'bad'):
        assert len(list((out / folder).glob('*.png'))) == 2


# It warns of weights without names of classes and of a visualizer without a folder.
@pytest.mark.filterwarnings('ignore::UserWarning:mmdet', 'ignore::UserWarning:mmengine')
def test_det_inferencer_predicts_and_draws(random_model, data_root, tmp_path):
    config, checkpoint = random_model
    image = sorted((data_root / 'test').glob('*.png'))[0]
    inferencer = DetInferencer(str(config), str(checkpoint), device='cpu', show_progress=False)
    found = inferencer(str(image), out_dir=str(tmp_path), pred_score_thr=0.0, no_save_pred=False)
    (prediction,) = found['predictions']
    masks = [coco_mask.decode(mask) for mask in prediction['masks']]
    assert len(masks) == len(prediction['scores']) > 0
    assert {mask.shape for mask in masks} == {(SIDE, SIDE)}
    assert np.any(masks)
    assert (tmp_path / 'vis' / image.name).is_file()
    assert json.loads((tmp_path / 'preds' / f'{image.stem}.json').read_text()) == prediction
