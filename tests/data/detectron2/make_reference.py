"""Write this folder's ``outputs_*.npz`` and ``parameters.json.gz``, where Detectron2 is installed.

    python make_reference.py OUT

The files beside this script were made with Detectron2 0.6 on the CPU by the same steps; the script
itself was put together afterwards from their description and has not been run: Detectron2 does not
install on the machines that this project is developed on. README.md says what is in the files, and
``tests/models/test_detectron2_parity.py`` has the stand-in weights, which both sides compute alike.
"""

import argparse
import gzip
import hashlib
import json
from pathlib import Path

import cv2
import numpy as np
import torch
from detectron2 import model_zoo
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from pycocotools import mask as coco_mask

HERE = Path(__file__).parent
LEVELS = ('p2', 'p3', 'p4', 'p5', 'p6')
PROPOSALS = 150  # of 1,000 that are kept
MASKS = 2  # detections whose probabilities are kept
RLE_STEP = 80  # every so many detections' masks are kept
MODELS = {
    'R_101': ('R_101_FPN_3x', None),
    'R_101_anchors8to128': ('R_101_FPN_3x', [[8], [16], [32], [64], [128]]),
    'X_101_32x8d': ('X_101_32x8d_FPN_3x', None),
}


def stand_in(name: str, shape: tuple[int, ...], pixel_std: float) -> torch.Tensor:
    """Weights of one parameter, as the parity test computes them."""
    seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], 'little') % 2**63
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(tuple(shape), generator=generator, dtype=torch.float64)
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


def make_config(name: str, anchors: list[list[int]] | None) -> CfgNode:
    cfg = model_zoo.get_config(f'COCO-InstanceSegmentation/mask_rcnn_{name}.yaml')
    cfg.MODEL.DEVICE, cfg.MODEL.WEIGHTS = 'cpu', ''
    cfg.MODEL.ROI_HEADS.NUM_CLASSES = 1
    cfg.MODEL.ROI_HEADS.SCORE_THRESH_TEST = 0.05
    cfg.TEST.DETECTIONS_PER_IMAGE = 600
    if anchors:
        cfg.MODEL.ANCHOR_GENERATOR.SIZES = anchors
    return cfg


@torch.no_grad()
def outputs_of(cfg: CfgNode, image: np.ndarray) -> tuple[dict[str, np.ndarray], dict[str, list]]:
    """What a model computes of an image, BGR, and the shapes of its parameters."""
    model = build_model(cfg).eval()
    pixel_std = cfg.MODEL.PIXEL_STD[0]
    state = {
        name: tensor
        for name, tensor in model.state_dict().items()
        if not name.startswith('pixel_') and 'cell_anchors' not in name
    }
    for name, tensor in state.items():
        if 'num_batches_tracked' not in name:
            tensor.copy_(stand_in(name, tensor.shape, pixel_std))
    height, width = image.shape[:2]
    tensor = torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))
    inputs = [dict(image=tensor, height=height, width=width)]
    images = model.preprocess_image(inputs)
    features = model.backbone(images.tensor)
    (proposals,), _ = model.proposal_generator(images, features)
    (found,), _ = model.roi_heads(images, features, [proposals])
    (final,) = model.inference(inputs)
    instances = final['instances']
    masks = instances.pred_masks.numpy()
    rows = np.arange(0, len(masks), RLE_STEP)
    levels = [features[level][0] for level in LEVELS]
    arrays = dict(
        mean=np.stack([level.mean((1, 2)).numpy() for level in levels]),
        std=np.stack([level.std((1, 2)).numpy() for level in levels]),
        proposal_boxes=proposals.proposal_boxes.tensor[:PROPOSALS].numpy(),
        proposal_logits=proposals.objectness_logits[:PROPOSALS].numpy(),
        boxes=instances.pred_boxes.tensor.numpy(),
        scores=instances.scores.numpy(),
        mask_probs=found.pred_masks[:MASKS, 0].numpy().astype(np.float16),
        rle_rows=rows.astype(np.int16),
        rle=np.array([coco_mask.encode(np.asfortranarray(masks[row]))['counts'] for row in rows]),
    )
    return arrays, {name: list(tensor.shape) for name, tensor in state.items()}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('out', type=Path)
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    image = cv2.imread(str(HERE / 'input_448x480.webp'))
    parameters = {}
    for name, (architecture, anchors) in MODELS.items():
        arrays, shapes = outputs_of(make_config(architecture, anchors), image)
        np.savez_compressed(out / f'outputs_{name}.npz', **arrays)
        if anchors is None:
            parameters[name] = shapes
    (out / 'parameters.json.gz').write_bytes(
        gzip.compress(json.dumps(parameters).encode(), mtime=0)
    )
    return 0


if __name__ == '__main__':
    raise SystemExit(main())
