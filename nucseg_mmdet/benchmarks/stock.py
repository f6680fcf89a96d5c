"""One side of one benchmark, in a process of its own: python -m nucseg_mmdet.benchmarks.stock SPEC.

``tools/analysis_tools/benchmark.py`` starts two such processes, stock MMDetection and this
project, and asks them in turn for one run each, so that both see the same load of the machine.
"""

from nucseg_mmdet.utils.start import start_script

if __name__ == '__main__':
    start_script()

import hashlib
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from mmdet.registry import DATASETS, MODELS, TASK_UTILS
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.dataset import pseudo_collate
from mmengine.logging import MMLogger
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData
from pycocotools import mask as coco_mask

from nucseg_mmdet.models.half_precision import prepare_for_inference
from nucseg_mmdet.structures.coco_entries import make_annotations, make_categories, make_image
from nucseg_mmdet.synthetic.fields import synthesize

STOCK_TYPES = {
    'SparseMaxIoUAssigner': 'MaxIoUAssigner',
    'RLEMaskHead': 'FCNMaskHead',
    'SeparableRoIExtractor': 'SingleRoIExtractor',
}


class Spec(NamedTuple):
    """What to run.

    Attributes:
        step: assign, rle, test, train or load.
        side: stock or ours.
        config: path of the model's config.
        count: nuclei or detections.
        size: side of the square image, px.
        device: cpu or cuda.
        precision: of our side when testing and training.
        data_root: prepared data; its densest images are trained on or loaded.
        batch: images together.
    """

    step: str
    side: str
    config: str
    count: int
    size: int
    device: str
    precision: str
    data_root: str
    batch: int


def plain(node: Any) -> Any:
    """Put MMDetection's own parts in the place of this project's, in a copy of a config."""
    if isinstance(node, dict):
        return {key: plain(value) for key, value in node.items()}
    if isinstance(node, list | tuple):
        return [plain(item) for item in node]
    return STOCK_TYPES.get(node, node) if isinstance(node, str) else node


def make_boxes(count: int, size: int, device: str) -> torch.Tensor:
    """Scatter boxes of 10 to 40 px, as nuclei at 40x have: float32, (N, 4), xyxy, px."""
    generator = torch.Generator().manual_seed(0)
    side = 10 + 30 * torch.rand(count, 2, generator=generator)
    corner = torch.rand(count, 2, generator=generator) * (size - side)
    return torch.cat([corner, corner + side], dim=1).to(device)


def write_data(folder: Path, counts: list[int], size: int) -> None:
    """Write synthetic images and their truth as ``tools/prepare_data.py`` would.

    Args:
        folder: gets ``train/*.png`` and ``annotations/train.json``.
        counts: nuclei to place in each image.
        size: side of the square images, px.
    """
    truth = dict(images=[], annotations=[], categories=make_categories())
    for path in (folder / 'train', folder / 'annotations'):
        path.mkdir(parents=True)
    for image_id, count in enumerate(counts, start=1):
        img, labels = synthesize(image_id, size, size, count)
        name = f'{image_id}.png'
        cv2.imwrite(str(folder / 'train' / name), img[..., ::-1])
        truth['images'].append(make_image(image_id, name, size, size))
        truth['annotations'] += make_annotations(labels, image_id, len(truth['annotations']) + 1)
    (folder / 'annotations' / 'train.json').write_text(json.dumps(truth))


def count_nuclei(data_root: Path) -> list[tuple[int, int]]:
    """List (image id, nuclei) of ``annotations/train.json``, the densest image first."""
    truth = json.loads((data_root / 'annotations' / 'train.json').read_text())
    return Counter(annotation['image_id'] for annotation in truth['annotations']).most_common()


def digest(*arrays: torch.Tensor | np.ndarray | bytes) -> str:
    """Condense results, in order, to compare two sides to the bit."""
    found = hashlib.sha256()
    for array in arrays:
        if isinstance(array, torch.Tensor):
            array = array.detach().cpu().numpy()
        found.update(array if isinstance(array, bytes) else np.ascontiguousarray(array).tobytes())
    return found.hexdigest()


def prepare_assign(spec: Spec, cfg: Config) -> Callable[[], Callable[[], str]]:
    """RPN targets of one image."""
    anchors = TASK_UTILS.build(cfg.model.rpn_head.anchor_generator)
    sizes = [(-(-spec.size // stride),) * 2 for stride, _ in anchors.strides]
    priors = torch.cat(anchors.grid_priors(sizes, device=spec.device))
    boxes = make_boxes(spec.count, spec.size, spec.device)
    nuclei = InstanceData(bboxes=boxes, labels=boxes.new_zeros(len(boxes), dtype=torch.long))
    assigner = TASK_UTILS.build(cfg.model.train_cfg.rpn.assigner)

    def run() -> Callable[[], str]:
        found = assigner.assign(InstanceData(priors=priors), nuclei)
        return lambda: digest(found.gt_inds, found.labels, found.max_overlaps)

    return run


def prepare_rle(spec: Spec, cfg: Config) -> Callable[[], Callable[[], str]]:
    """Mask logits of one image to run lengths."""
    head = MODELS.build(cfg.model.roi_head.mask_head).to(spec.device)
    generator = torch.Generator().manual_seed(0)
    axis = torch.linspace(-1, 1, 28)
    logits = (0.7 - axis[:, None] ** 2 - axis**2) * 6
    logits = logits + torch.randn(spec.count, 1, 28, 28, generator=generator)
    logits, boxes = logits.to(spec.device), make_boxes(spec.count, spec.size, spec.device)
    labels = boxes.new_zeros(spec.count, dtype=torch.long)
    meta = dict(ori_shape=(spec.size,) * 2, img_shape=(spec.size,) * 2, scale_factor=(1.0, 1.0))

    def run() -> Callable[[], str]:
        nuclei = InstanceData(bboxes=boxes.clone(), labels=labels)
        (found,) = head.predict_by_feat(
            [logits], [nuclei], [meta], cfg.model.test_cfg.rcnn, rescale=True
        )
        masks = found.masks
        if isinstance(masks, torch.Tensor):  # what the COCO metric does with them
            masks = [
                coco_mask.encode(np.array(mask[:, :, None], order='F', dtype='uint8'))[0]
                for mask in masks.cpu().numpy()
            ]
        return lambda: digest(*(mask['counts'] for mask in masks))

    return run


def prepare_test(spec: Spec, cfg: Config) -> Callable[[], Callable[[], None]]:
    """The whole test of one image, up to masks; stock ones are bitmaps still."""
    cfg.model.test_cfg.rcnn.update(score_thr=0.0, max_per_img=spec.count)  # weights are random
    model = build_model(cfg, spec.device).eval()
    if spec.side == 'ours':
        prepare_for_inference(model, spec.precision)
    img = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (3, spec.size, spec.size)))
    meta = dict(ori_shape=(1000, 1000), img_shape=(spec.size,) * 2)
    meta['scale_factor'] = (spec.size / 1000,) * 2

    def run() -> Callable[[], None]:
        data = dict(inputs=[img.byte()], data_samples=[DetDataSample(metainfo=meta)])
        with torch.no_grad():
            (found,) = model.test_step(data)
        if len(found.pred_instances) != spec.count:
            raise RuntimeError(f'{len(found.pred_instances)} detections, expected {spec.count}')
        return lambda: None

    return run


def prepare_train(spec: Spec, cfg: Config) -> Callable[[], Callable[[], float]]:
    """Iterations on one batch of the densest images; their losses are compared."""
    dataset = build_dataset(spec, cfg)
    np.random.seed(0)  # of the transforms
    batch = [dataset[index] for index in range(spec.batch)]
    model = build_model(cfg, spec.device).train()
    if spec.side == 'ours' and spec.precision != 'fp32':
        cfg.optim_wrapper.type = 'BFloat16OptimWrapper'
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)

    def run() -> Callable[[], float]:
        torch.manual_seed(0)  # of the samplers
        losses = model.train_step(pseudo_collate(batch), wrapper)
        return lambda: losses['loss'].item()

    return run


def prepare_load(spec: Spec, cfg: Config) -> Callable[[], Callable[[], str]]:
    """Training samples of the densest images, one after the other, in one process."""
    if spec.side == 'stock':
        for step in cfg.train_dataloader.dataset.pipeline:
            if step['type'] == 'LoadAnnotations':
                step['poly2mask'] = True  # the default
    dataset = build_dataset(spec, cfg)

    def run() -> Callable[[], str]:
        np.random.seed(0)
        kept = []
        for index in range(spec.batch):
            sample = dataset[index]
            kept += [sample['inputs'], sample['data_samples'].gt_instances.bboxes.tensor]
        return lambda: digest(*kept)

    return run


PREPARE = dict(
    assign=prepare_assign,
    rle=prepare_rle,
    test=prepare_test,
    train=prepare_train,
    load=prepare_load,
)


def build_model(cfg: Config, device: str) -> torch.nn.Module:
    cfg.model.backbone.init_cfg = None  # the time is the same with any weights
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    model.init_weights()
    return model.to(device)


def build_dataset(spec: Spec, cfg: Config) -> Any:
    node = cfg.train_dataloader.dataset
    node.data_root, node.ann_file = spec.data_root, 'annotations/train.json'
    dataset = DATASETS.build(node)
    chosen = count_nuclei(Path(spec.data_root))[: spec.batch]
    ids = [dataset.get_data_info(index)['img_id'] for index in range(len(dataset))]
    return torch.utils.data.Subset(dataset, [ids.index(image_id) for image_id, _ in chosen])


def reset_peak(device: str) -> int:
    """Forget the peak so far and return the memory in use, bytes."""
    if device == 'cuda':
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    Path('/proc/self/clear_refs').write_text('5')
    return _status('VmRSS')


def peak(device: str) -> int:
    """Most memory in use since ``reset_peak``, bytes."""
    return torch.cuda.max_memory_allocated() if device == 'cuda' else _status('VmHWM')


def _status(key: str) -> int:
    lines = Path('/proc/self/status').read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(key)) * 1024


def main() -> int:
    """Serve runs: a line on stdin asks for one, a line of JSON on stdout answers."""
    answers = os.fdopen(os.dup(1), 'w')
    os.dup2(2, 1)  # what libraries print is no answer
    spec = Spec(**json.loads(sys.argv[1]))
    cfg = Config.fromfile(spec.config)
    init_default_scope('mmdet')
    MMLogger.get_instance('benchmark', log_level='ERROR')
    if spec.side == 'stock':
        cfg.model = plain(cfg.model)
    run = PREPARE[spec.step](spec, cfg)
    base = reset_peak(spec.device)
    print(json.dumps(dict(base=base)), file=answers, flush=True)
    for _ in sys.stdin:
        started, started_cpu = time.perf_counter(), time.process_time()
        outcome = run()
        if spec.device == 'cuda':
            torch.cuda.synchronize()
        answer = dict(
            seconds=time.perf_counter() - started,
            cpu_seconds=time.process_time() - started_cpu,  # of all threads; for a busy machine
            peak_bytes=peak(spec.device) - base,
            result=outcome(),
        )
        print(json.dumps(answer), file=answers, flush=True)
    return 0


if __name__ == '__main__':
    raise SystemExit(main())
