"""What ``tools/test.py`` does to a config for data, views and models that it does not name."""

from collections.abc import Sequence
from pathlib import Path

from mmengine.config import Config, ConfigDict

from nucseg_mmdet.engine.config_parts import as_list
from nucseg_mmdet.evaluation.truth import load_tidy_truth
from nucseg_mmdet.structures.coco import check_truth, load_shared_json
from nucseg_mmdet.structures.coco_entries import make_categories
from nucseg_mmdet.structures.coco_tidy import as_one_class
from nucseg_mmdet.utils.errors import UserError
from nucseg_mmdet.utils.files import make_folder, write_json

TRUTH_OFFSET = 'model.test_cfg.rcnn.truth_offset'


def set_test_data(cfg: Config, annotations: Path, images: Path) -> list[str]:
    """Test on images and truth from anywhere, in place; odd truth is made what COCO says.

    Truth that is changed for that, such as its one category to the config's one class, goes to
    the work folder.

    Returns:
        A line for each kind of change.

    Raises:
        UserError: a file, an image or the folder is missing, or the truth is none.
    """
    if not images.is_dir():
        raise UserError(f'--images {images}: no such folder')
    data, notes = load_tidy_truth(annotations, images)
    dataset = cfg.test_dataloader.dataset
    classes = (dataset.get('metainfo') or {}).get('classes') or ('nucleus',)
    if len(classes) == 1:
        data, more, _ = as_one_class(data)
        notes += more
        if isinstance(data, dict):
            data['categories'] = make_categories(classes)
    check_truth(data, str(annotations))
    for image in data['images']:  # before anything is written
        if not (images / image['file_name']).is_file():
            raise UserError(
                f'{images / image["file_name"]}: no such image, expected it as listed in '
                f'{annotations}'
            )
    path = annotations.resolve()
    if data != load_shared_json(annotations):  # which the data set reads as well
        path = Path(cfg.work_dir, f'{annotations.stem}_read.json').resolve()
        make_folder(path.parent)
        write_json(path, data, indent=None)
    dataset.data_root, dataset.ann_file = '', str(path)
    dataset.data_prefix = dict(img=str(images.resolve()))
    for evaluator in as_list(cfg.test_evaluator):
        if 'ann_file' in evaluator:
            evaluator.ann_file = str(path)
    return [f'{annotations}: {note}' for note in notes]


def notes_on_offset(cfg: Config, data_root: Path | None, options: dict) -> list[str]:
    """What to say of ``truth_offset``, where a fold of data is tested that may not be the config's.

    Args:
        cfg: before ``set_data_root``.
        data_root: of the data, None for the config's.
        options: of ``--cfg-options``.
    """
    offset = _rcnn(cfg).get('truth_offset')
    same = data_root is None or data_root.resolve() == Path(cfg.data_root).resolve()
    if same or not offset or not any(offset) or TRUTH_OFFSET in options:
        return []
    x, y = offset
    return [
        f'nuclei are moved by ({x:g}, {y:g}) px, which is where the truth of the class data lies; '
        f'if this data is not of its kind: --cfg-options {TRUTH_OFFSET}=0,0'
    ]


def leave_out_truth_offset(cfg: Config) -> str | None:
    """Leave masks where the nuclei are, in place: ``truth_offset`` is that of the config's data.

    Returns:
        A line that says so, if there was one.
    """
    offset = _rcnn(cfg).pop('truth_offset', None)
    if not offset:
        return None
    x, y = offset
    return (
        f'nuclei are not moved by ({x:g}, {y:g}) px, which is where the truth of the class data '
        f'lies; if this data is of its kind: --cfg-options {TRUTH_OFFSET}={x:g},{y:g}'
    )


def test_on_training_images(cfg: Config) -> str | None:
    """Test on the training images where a folder of ``nucseg prepare`` has no others, in place.

    Returns:
        A line that says so.
    """
    root, train = Path(cfg.data_root), 'annotations/train.json'
    dataset = cfg.test_dataloader.dataset
    path = root / dataset.ann_file
    if path.name != 'test.json' or not path.is_file() or not (root / train).is_file():
        return None
    if load_shared_json(path).get('images'):
        return None
    dataset.ann_file, dataset.data_prefix = train, dict(img='train/')
    for evaluator in as_list(cfg.test_evaluator):
        if 'ann_file' in evaluator:
            evaluator.ann_file = str(root / train)
    return f'{path}: has no images, those of {train} are tested'


def check_evaluators(cfg: Config, key: str = 'test_evaluator') -> None:
    """Check the truth of evaluators before any image is looked at.

    Raises:
        UserError: a file is missing, or no COCO truth.
    """
    for evaluator in as_list(cfg.get(key)):
        if evaluator.get('ann_file'):
            check_truth(load_shared_json(Path(evaluator.ann_file)), evaluator.ann_file)


def use_views(
    cfg: Config, path: Path, every: bool, others: Sequence[tuple[ConfigDict, Path]]
) -> None:
    """Let a test average over views and models, in place.

    Args:
        cfg: with ``tta_model`` and ``tta_pipeline``, whose first view is the plain one.
        path: of the config, for the message.
        every: whether all views are looked at, or the first alone.
        others: models beside the first: config and checkpoint.

    Raises:
        UserError: the config has no views, or models are to be averaged in another than the plain
            one.
    """
    if 'tta_model' not in cfg:
        raise UserError(f'{path}: has no tta_model, expected one and a tta_pipeline')
    cfg.model = ConfigDict(**cfg.tta_model, module=cfg.model)
    pipeline = cfg.tta_pipeline
    if not every:
        views = pipeline[-1].transforms
        first = [*pipeline[:-1], *(steps[0] for steps in views)]
        if _seen(first) != _seen(cfg.test_dataloader.dataset.pipeline):
            raise UserError(
                f'{path}: the first view of tta_pipeline, by which models are averaged, is not '
                'what test_dataloader does, expected the same'
            )
        pipeline = [*pipeline[:-1], dict(pipeline[-1], transforms=[steps[:1] for steps in views])]
    cfg.test_dataloader.dataset.pipeline = pipeline
    if others:
        models, checkpoints = zip(*others, strict=True)
        cfg.model.update(type='MaskEnsembleModel', others=list(models))
        checkpoints = [str(path) for path in checkpoints]
        cfg.custom_hooks.append(dict(type='EnsembleHook', checkpoints=checkpoints))


def _rcnn(cfg: Config) -> dict:
    """How the RoI heads are tested; empty for a model without any."""
    return (cfg.model.get('test_cfg') or {}).get('rcnn') or {}


def _seen(pipeline: Sequence[dict]) -> list[dict]:
    """The steps that change an image."""
    return [step for step in pipeline if step['type'] not in ('Orient', 'PackDetInputs')]
