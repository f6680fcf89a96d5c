"""A model of the zoo, trained on with a few fields of a user's own."""

from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from mmengine.config import Config

from nucseg_mmdet.converters.folds import NUM_FOLDS
from nucseg_mmdet.engine.folds import hold_out_fold
from nucseg_mmdet.engine.model_zoo import model_files
from nucseg_mmdet.engine.types_of_nuclei import set_types
from nucseg_mmdet.structures.coco import check_truth, load_json
from nucseg_mmdet.utils.errors import UserError

WARM_UP = 10  # of so many iterations one warms up
CHOSEN = {  # of the config: by this option of ``finetune`` instead
    'train_cfg.max_iters': 'iterations',
    'train_cfg.val_interval': 'iterations',
    'param_scheduler.0.end': 'iterations',
    'param_scheduler.1.begin': 'iterations',
    'param_scheduler.1.end': 'iterations',
    'optim_wrapper.optimizer.lr': 'lr',
}


class Recipe(NamedTuple):
    """How to train on.

    Attributes:
        iterations: of 4 crops.
        lr: highest rate of AdamW; the model's own last stage had 5e-4.
        fold: that is held out and scored; 0 for none.
        types: of nuclei, where the data has several.
    """

    iterations: int
    lr: float
    fold: int
    types: tuple[str, ...] = ()


def choose_recipe(num_fields: int) -> Recipe:
    """Choose by the number of fields.

    The fewer fields, the shorter and slower, lest the model forget what it knows for the sake of
    a few hundred nuclei. Of fewer fields than folds none is held out: there would be nothing to
    train on.

    Args:
        num_fields: annotated images, at least 1.
    """
    iterations = min(max(25 * num_fields, 100), 2_000)
    lr = 2.5e-4 if num_fields < 16 else 5e-4
    return Recipe(iterations, lr, int(num_fields >= NUM_FOLDS))


def check_options(options: dict, fold: int | None = None) -> None:
    """Refuse what ``fit_to_data`` would set to something else.

    Args:
        options: of ``--cfg-options``.
        fold: of ``--fold``.

    Raises:
        UserError: as said.
    """
    for option in options:
        if option in CHOSEN:
            raise UserError(
                f'--cfg-options {option}: follows from finetune.{CHOSEN[option]}, expected that'
            )
    given = options.get('finetune.fold', fold)
    if fold is not None and given != fold:
        raise UserError(f'--fold {fold}, --cfg-options finetune.fold={given}: expected one of both')


def fit_to_data(cfg: Config, fold: int | None = None, options: Collection[str] = ()) -> Recipe:
    """Complete a config that has ``finetune`` by the data that it is trained on, in place.

    Args:
        cfg: whose ``finetune`` has ``model``, of the zoo, and ``iterations``, ``lr`` and ``fold``,
            which are None where they follow from the number of fields. Its ``load_from``, where
            there is one, takes the model's place.
        fold: held out whatever the number of fields.
        options: keys of ``--cfg-options``. There is one checkpoint, at the end, unless they say
            otherwise.

    Returns:
        What was chosen.

    Raises:
        UserError: there is no data, or none of its fields has a nucleus, there is no such model,
            or too few iterations, an odd rate or an odd fold are wanted.
    """
    given = cfg.finetune
    num_fields, types = _read_data(cfg)
    chosen = choose_recipe(num_fields)
    iterations = chosen.iterations if given.iterations is None else given.iterations
    if not isinstance(iterations, int) or iterations < WARM_UP:
        raise UserError(f'finetune.iterations={iterations}: expected a number from {WARM_UP} on')
    lr = chosen.lr if given.lr is None else given.lr
    if not isinstance(lr, int | float) or not 0 < lr < 1:
        raise UserError(f'finetune.lr={lr}: expected a number between 0 and 1')
    fold = next(one for one in (fold, given.fold, chosen.fold) if one is not None)
    if type(fold) is not int or fold < 0:
        raise UserError(f'finetune.fold={fold}: expected the number of a fold, or 0 for none')
    if not isinstance(given.model, str):
        raise UserError(f'finetune.model={given.model}: expected the name of a model')

    cfg.load_from = cfg.get('load_from') or str(model_files(given.model)[1])
    cfg.train_cfg.update(max_iters=iterations, val_interval=iterations)
    if 'default_hooks.checkpoint.interval' not in options:
        cfg.default_hooks.checkpoint.interval = iterations
    cfg.optim_wrapper.optimizer.lr = lr
    warm_up, decay = cfg.param_scheduler
    warm_up.end = decay.begin = iterations // WARM_UP
    decay.end = iterations
    if types:
        set_types(cfg, types)
    if fold:
        hold_out_fold(cfg, fold)
    return Recipe(iterations, lr, fold, types)


def set_types_of_data(cfg: Config) -> None:
    """Let a config that has ``finetune`` tell the types of its data apart, in place.

    Raises:
        UserError: there is no data, or none of its fields has a nucleus.
    """
    _, types = _read_data(cfg)
    if types:
        set_types(cfg, types)


def describe(recipe: Recipe) -> str:
    """Say in one line what was chosen."""
    held_out = f'fold {recipe.fold} is held out and scored' if recipe.fold else 'nothing held out'
    types = f', types {", ".join(recipe.types)}' if recipe.types else ''
    return f'finetune: {recipe.iterations:,} iterations, rate {recipe.lr:g}, {held_out}{types}'


def _read_data(cfg: Config) -> tuple[int, tuple[str, ...]]:
    """The number of images with nuclei, and the types of these if there are several."""
    path = Path(cfg.data_root, 'annotations/train.json')
    if not path.is_file():
        raise UserError(
            f'{path}: not there; nucseg prepare makes the data, --data names its folder'
        )
    truth = load_json(path)
    check_truth(truth, str(path))
    fields = {annotation['image_id'] for annotation in truth['annotations']}
    if not fields:
        raise UserError(f'{path}: no nucleus in it, expected fields to train on')
    names = tuple(str(category.get('name')) for category in truth['categories'])
    return len(fields), names if len(names) > 1 else ()
