"""The experiment configs compute what Detectron2 computes, from the same weights.

The reference was made with Detectron2 0.6. A part of it lies in ``data/detectron2``; the
whole is read from the folder that ``NUCSEG_SHARED`` names.
"""

import functools
import gzip
import hashlib
import json
import os
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
import pytest
import torch
from mmdet.models import MaskRCNN  # noqa: F401, registers mmdet's models
from mmdet.models.roi_heads.mask_heads.fcn_mask_head import _do_paste_mask
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.registry import init_default_scope
from pycocotools import mask as coco_mask

from nucseg_mmdet.engine.detectron2 import convert, parameter_shapes

ROOT = Path(__file__).parents[2]
COPY = Path(__file__).parents[1] / 'data' / 'detectron2'
WHOLE = Path(os.environ.get('NUCSEG_SHARED', ''), 'reference', 'detectron2')
needs_whole = pytest.mark.skipif(
    'NUCSEG_SHARED' not in os.environ, reason='NUCSEG_SHARED names no folder with the reference'
)
HEIGHT, WIDTH = 448, 480


class Case(NamedTuple):
    model: str  # of parameters.json.gz
    config: str
    pixel_std: float


CASES = {
    'R_101': Case('R_101', 'mask-rcnn_r101_fpn_e08_vrdl', 1),
    'R_101_anchors8to128': Case('R_101', 'mask-rcnn_r101_fpn_e10_vrdl', 1),
    'X_101_32x8d': Case('X_101_32x8d', 'mask-rcnn_x101-32x8d_fpn_e14_vrdl', 57.375),
}
SOURCES = [pytest.param(COPY, id='copy'), pytest.param(WHOLE, id='whole', marks=needs_whole)]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.parametrize('case', CASES),
    pytest.mark.parametrize('source', SOURCES),
]


def stand_in(name, shape, pixel_std):
    """Weights of one parameter, the same numbers as the reference was computed from.

    Noise seeded by the name, scaled so that activations stay near 1 and some hundred
    detections pass the score threshold.
    """
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], 'little') % 2**63
    noise = torch.randn(
        tuple(shape), generator=torch.Generator().manual_seed(seed), dtype=torch.float64
    )
    module, part = name.rsplit('.', 1)
    if module.endswith('.norm'):
        if part == 'running_var':
            return ((1 + 0.1 * noise).abs() + 0.05).float()
        return ((part == 'weight') + 0.1 * noise).float()
    if part == 'bias':
        return (0.05 * noise).float()
    gains = {'fpn_': 0.1, 'anchor_deltas': 0.1, 'objectness_logits': 1.5, 'bbox_pred': 0.3}
    gains |= {'.conv3.': 0.4, 'cls_score': 2.0, 'mask_head.predictor': 2.0}
    gain = next((value for key, value in gains.items() if key in name), 2**0.5)
    if 'stem.conv1' in name and pixel_std == 1:
        gain /= 60
    fan_in = shape[0] if 'mask_head.deconv' in name else np.prod(shape[1:])
    return (noise * gain / fan_in**0.5).float()


@functools.cache
def weights(model, pixel_std):
    shapes = json.loads(gzip.decompress((COPY / 'parameters.json.gz').read_bytes()))[model]
    return convert({name: stand_in(name, shape, pixel_std) for name, shape in shapes.items()})[1]


@functools.cache
@torch.no_grad()
def outputs(case):
    """Run the model of an experiment config on the reference's input."""
    model_name, config, pixel_std = CASES[case]
    init_default_scope('mmdet')
    cfg = Config.fromfile(ROOT / 'configs' / 'vrdl' / f'{config}.py')
    cfg.model.backbone.init_cfg = None
    model = MODELS.build(cfg.model).eval()
    model.load_state_dict(weights(model_name, pixel_std), strict=True)
    image = torch.from_numpy(cv2.imread(str(COPY / 'input_448x480.webp')))
    shape = dict(img_shape=(HEIGHT, WIDTH), ori_shape=(HEIGHT, WIDTH), scale_factor=(1.0, 1.0))
    batch = model.data_preprocessor(
        dict(inputs=[image.permute(2, 0, 1)], data_samples=[DetDataSample(metainfo=shape)])
    )
    features = model.extract_feat(batch['inputs'])
    samples = batch['data_samples']
    proposals = model.rpn_head.predict(features, samples, rescale=False)
    logits = []
    hook = model.roi_head.mask_head.register_forward_hook(lambda *args: logits.append(args[2]))
    found = model.roi_head.predict(features, proposals, samples, rescale=True)[0]
    hook.remove()
    pixels = [level[0].flatten(1).double() for level in features]
    return dict(
        mean=np.stack([level.mean(1) for level in pixels]),
        std=np.stack([level.std(1) for level in pixels]),
        proposal_boxes=proposals[0].bboxes.numpy(),
        proposal_logits=proposals[0].scores.double().logit().numpy(),
        boxes=found.bboxes.numpy(),
        scores=found.scores.numpy(),
        mask_probs=torch.cat(logits).sigmoid()[:, 0].numpy(),
        rle=[rle_counts(mask) for mask in found.masks],
    )


def rle_counts(mask):
    """Counts of a mask that is a bitmap or, from the direct head, a COCO RLE already."""
    if isinstance(mask, dict):
        return mask['counts']
    return coco_mask.encode(np.asfortranarray(mask.numpy().astype(np.uint8)))['counts']


@functools.cache
def reference(source, case):
    found = dict(np.load(source / f'outputs_{case}.npz'))
    if source == WHOLE:
        found['rle_rows'] = np.arange(len(found['rle']))
    if 'p2_mean' in found:
        for part in ('mean', 'std'):
            found[part] = np.stack([found[f'p{level}_{part}'] for level in range(2, 7)])
    return found


def nearest(boxes, others):
    """For each box the index of the one of the others whose corners are closest."""
    distance = np.abs(boxes[:, None].astype(np.float64) - others[None]).max(2)
    index = distance.argmin(1)
    assert len(set(index)) == len(index), 'two boxes have the same partner'
    return index


def test_names_and_shapes(source, case):
    model = CASES[case].model
    if source == COPY:
        shapes = json.loads(gzip.decompress((source / 'parameters.json.gz').read_bytes()))[model]
    else:
        shapes = json.loads((source / f'parameters_{model}.json').read_text())
    groups, base_width = {'R_101': (1, 64), 'X_101_32x8d': (32, 8)}[model]
    assert parameter_shapes(101, groups, base_width, 1) == {k: tuple(v) for k, v in shapes.items()}


def test_input(source, case):
    found = cv2.imread(str(next(source.glob('input_448x480.*'))))
    assert np.array_equal(found, cv2.imread(str(COPY / 'input_448x480.webp')))
    assert found.shape == (HEIGHT, WIDTH, 3)


def test_features(source, case):
    expected = reference(source, case if source == WHOLE else CASES[case].model)
    for part in ('mean', 'std'):  # about 0.1 and 0.02
        np.testing.assert_allclose(outputs(case)[part], expected[part], rtol=0, atol=1e-6)


def test_proposals(source, case):
    expected, found = reference(source, case), outputs(case)
    assert len(found['proposal_boxes']) == 1000
    # Proposals whose scores are equal in float32 may change places: MMDetection sorts the
    # scores, Detectron2 the logits.
    count = len(expected['proposal_logits'])
    assert count == (150 if source == COPY else 1000)
    logits = found['proposal_logits']
    np.testing.assert_allclose(logits[:count], expected['proposal_logits'], rtol=0, atol=1e-5)
    index = nearest(expected['proposal_boxes'], found['proposal_boxes'])
    np.testing.assert_allclose(
        found['proposal_boxes'][index], expected['proposal_boxes'], rtol=0, atol=0.01
    )
    np.testing.assert_allclose(logits[index], expected['proposal_logits'], rtol=0, atol=1e-5)


def test_detections(source, case):
    expected, found = reference(source, case), outputs(case)
    assert len(found['boxes']) == len(expected['boxes'])
    index = nearest(expected['boxes'], found['boxes'])
    np.testing.assert_allclose(found['boxes'][index], expected['boxes'], rtol=0, atol=0.01)
    np.testing.assert_allclose(found['scores'][index], expected['scores'], rtol=0, atol=1e-4)


def test_mask_probabilities(source, case):
    expected, found = reference(source, case), outputs(case)
    count = len(expected['mask_probs'])
    index = nearest(expected['boxes'][:count], found['boxes'])
    # The reference is float16: half a unit in the last place is 2.4e-4 below 1.
    np.testing.assert_allclose(
        found['mask_probs'][index], expected['mask_probs'], rtol=0, atol=2.5e-4
    )


def test_masks(source, case):
    """The same pixels, but for a few whose probability is the threshold up to rounding.

    How many these are depends on the CPU and the number of threads.
    """
    expected, found = reference(source, case), outputs(case)
    rows = expected['rle_rows']
    index = nearest(expected['boxes'][rows], found['boxes'])
    differing = 0
    for row, ours in enumerate(index):
        counts = expected['rle'][row]
        counts = counts.encode() if isinstance(counts, str) else bytes(counts)
        truth, mask = (
            coco_mask.decode(dict(size=[HEIGHT, WIDTH], counts=text))
            for text in (counts, found['rle'][ours])
        )
        differ = truth != mask
        if differ.any():
            probs = torch.from_numpy(found['mask_probs'][ours, None, None])
            box = torch.from_numpy(found['boxes'][ours, None])
            pasted = _do_paste_mask(probs, box, HEIGHT, WIDTH, skip_empty=False)[0][0]
            np.testing.assert_allclose(pasted.numpy()[differ], 0.5, rtol=0, atol=3e-7)
            differing += np.count_nonzero(differ)
    assert differing <= max(5, len(index) / 20)
