"""The parts of a config: data sets, evaluators, steps of pipelines."""

from pathlib import Path

from mmengine.config import Config, ConfigDict

from nucseg_mmdet.evaluation.summary import SCORE_THR
from nucseg_mmdet.structures.coco import load_shared_json

LOADERS = ('train_dataloader', 'val_dataloader', 'test_dataloader')
EVALUATORS = ('val_evaluator', 'test_evaluator')


def find_datasets(node: object) -> list[ConfigDict]:
    """The data sets with an annotation file under a config node, wrapped ones included."""
    if isinstance(node, dict):
        if 'ann_file' in node and 'data_prefix' in node:
            return [node]
        return [found for value in node.values() for found in find_datasets(value)]
    if isinstance(node, list | tuple):
        return [found for value in node for found in find_datasets(value)]
    return []


def find_data(dataloader: dict | None) -> set[Path]:
    """The annotation files, images and folders of images that a checked dataloader reads."""
    found: set[Path] = set()
    for dataset in find_datasets(dataloader):
        root = Path(dataset.get('data_root') or '')
        folder = root / dataset.data_prefix.img
        found |= {root / dataset.ann_file, folder}
        for image in load_shared_json(root / dataset.ann_file)['images']:
            path = folder / image['file_name']
            found |= {path, path.parent}
    return found


def find_steps(node: object, inside: bool = False) -> list[dict]:
    """The steps of all pipelines under a config node, also those inside of other steps.

    Args:
        node: a part of a config.
        inside: whether it is a pipeline itself.
    """
    if isinstance(node, dict):
        own = [node] if inside and 'type' in node else []
        parts = node.items()
        return own + [
            step for key, value in parts for step in find_steps(value, inside or key == 'pipeline')
        ]
    if isinstance(node, list | tuple):
        return [step for item in node for step in find_steps(item, inside)]
    return []


def as_list(node: ConfigDict | list[ConfigDict] | None) -> list[ConfigDict]:
    """The evaluators of a config, which may be one, several or none."""
    return node if isinstance(node, list) else [node] if node else []


def score_threshold(cfg: Config) -> float:
    """The score from which on a config's label maps show a nucleus."""
    evaluators = as_list(cfg.get('test_evaluator') or [])
    return next((one.score_thr for one in evaluators if 'score_thr' in one), SCORE_THR)


def inner(node: dict, *keys: str) -> dict:
    """The part of a config under some keys, empty where there is none."""
    for key in keys:
        found = node.get(key)
        node = found if isinstance(found, dict) else {}
    return node
