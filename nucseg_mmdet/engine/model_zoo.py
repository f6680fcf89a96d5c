"""The trained models of the project, and where its configs and weights lie.

Nothing here imports torch or mmengine, so that listing the models is quick.
"""

import hashlib
import sys
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from nucseg_mmdet.engine.old_names import new_name
from nucseg_mmdet.utils.errors import UserError


@dataclass(frozen=True)
class Scores:
    """What was measured, and on what.

    Attributes:
        on: images that the weights, or those of the same recipe, had not seen.
        values: by name, 0 to 1; label maps from nuclei with a score of 0.7 on.
    """

    on: str
    values: dict[str, float]


@dataclass(frozen=True)
class Model:
    """A trained model.

    Attributes:
        about: what it finds, in a line.
        config: its file, from the folder that ``find_file`` starts at.
        weights: likewise.
        sha256: of the weights, hexadecimal.
        license: of the weights.
        data: what it was trained on.
        scores: of held-out images.
    """

    about: str
    config: str
    weights: str
    sha256: str
    license: str
    data: str
    scores: tuple[Scores, ...]


CLASS_DATA = 'MoNuSeg 2018, 24 training images (class data)'
CC0_DATA = 'Data Science Bowl 2018, its 106 H&E-like images'
# configs/dense/metafile.yml has the same facts for MMDetection's tools.
MODELS = {
    'dense-r18': Model(
        about='nuclei in H&E at 0.25 microns per pixel, one class',
        config='configs/dense/mask-rcnn_r18-c4_fpn_dense_nuclei.py',
        weights='models/mask-rcnn_r18-c4_fpn_dense_nuclei.pth',
        sha256='86e155a67f90f6ca8732f74c97ffcc07ea21460d9397998e5995935eab60ed65',
        license='CC BY-NC-SA 4.0',
        data=CLASS_DATA,
        scores=(
            Scores(
                f'{CLASS_DATA}, four folds, truth_offset',
                {'AP': 0.4593, 'AP50': 0.8318, 'AJI': 0.6266, 'PQ': 0.6312, 'recall': 0.8053},
            ),
            Scores(
                f'{CLASS_DATA}, four folds',
                {'AP': 0.4277, 'AP50': 0.8254, 'AJI': 0.6162, 'PQ': 0.6169, 'recall': 0.8021},
            ),
            Scores(
                CC0_DATA,
                {'AP': 0.4406, 'AP50': 0.7601, 'AJI': 0.6254, 'PQ': 0.6238, 'recall': 0.7303},
            ),
        ),
    ),
    'dense-lite0': Model(
        about='the same by a network of half the size',
        config='configs/dense/mask-rcnn_lite0_fpn_dense_nuclei.py',
        weights='models/mask-rcnn_lite0_fpn_dense_nuclei.pth',
        sha256='9d204c24038de2d3b9743460c530d9c448ce8dfbb0a90dba3dda530a5cf46271',
        license='CC BY-NC-SA 4.0',
        data=CLASS_DATA,
        scores=(
            Scores(
                f'{CLASS_DATA}, folds 1 and 2, truth_offset',
                {'AP': 0.42854, 'AP50': 0.8007, 'AJI': 0.6260, 'PQ': 0.6281, 'recall': 0.7934},
            ),
            Scores(
                CC0_DATA,
                {'AP': 0.4596, 'AP50': 0.8015, 'AJI': 0.6241, 'PQ': 0.6165, 'recall': 0.7374},
            ),
        ),
    ),
    'dense-lite2': Model(
        about='a larger network from both data sets; for images of other labs',
        config='configs/dense/mask-rcnn_lite2_fpn_dense_nuclei-dsb2018.py',
        weights='models/mask-rcnn_lite2_fpn_dense_nuclei-dsb2018.pth',
        sha256='0cb3d31de29b503edce6edd054ec43c0711f21d9e562a8ea8a2c716a305538ea',
        license='CC BY-NC-SA 4.0',
        data=f'{CLASS_DATA}; {CC0_DATA}',
        scores=(
            Scores(
                f'{CLASS_DATA}, folds 1 and 2, truth_offset',
                {'AP': 0.4239, 'AP50': 0.7957, 'AJI': 0.6271, 'PQ': 0.6271, 'recall': 0.7859},
            ),
            Scores(
                f'{CC0_DATA}, fold 1',
                {'AP': 0.4821, 'AP50': 0.8498, 'AJI': 0.6536, 'PQ': 0.6461, 'recall': 0.7845},
            ),
        ),
    ),
    'dense-lite2-mended': Model(
        about='the same from the class data alone, whose truth models have mended',
        config='configs/dense/mask-rcnn_lite2_fpn_dense_mended.py',
        weights='models/mask-rcnn_lite2_fpn_dense_mended.pth',
        sha256='4fe96d586b2b1e29a37f891f46bd71d78168764bba017298498f5648cab88204',
        license='CC BY-NC-SA 4.0',
        data=f'{CLASS_DATA}, truth mended',
        scores=(
            Scores(
                f'{CLASS_DATA}, folds 1 and 2, truth_offset',
                {'AP': 0.41854, 'AP50': 0.7846, 'AJI': 0.6253, 'PQ': 0.6238, 'recall': 0.7928},
            ),
            Scores(
                CC0_DATA,
                {'AP': 0.4759, 'AP50': 0.8121, 'AJI': 0.6464, 'PQ': 0.6397, 'recall': 0.7637},
            ),
        ),
    ),
    'dense-lite0-cc0': Model(
        about='the same network from CC0 images alone, for commercial use; worse on H&E',
        config='configs/dense/mask-rcnn_lite0_fpn_dense_dsb2018.py',
        weights='models/mask-rcnn_lite0_fpn_dense_dsb2018.pth',
        sha256='387c98ddad5a387d3a779d17d1f4f3781bfb23502aa7156182bb46d3f7b73a2d',
        license='Apache-2.0',
        data=CC0_DATA,
        scores=(
            Scores(
                CLASS_DATA,
                {'AP': 0.3338, 'AP50': 0.6796, 'AJI': 0.4660, 'PQ': 0.5107, 'recall': 0.6029},
            ),
        ),
    ),
}
DEFAULT = 'dense-r18'
# Short names of configs that have no model yet.
RECIPES = {'finetune': 'configs/finetune/mask-rcnn_r18-c4_fpn_finetune_nuclei.py'}


def find_file(name: str) -> Path:
    """Say where a file of the project lies: in the checkout, or in the installed package.

    The wheel has configs and weights where MMDetection's ``mim`` looks for them.

    Args:
        name: such as ``models/mask-rcnn_r18-c4_fpn_dense_nuclei.pth``.
    """
    package = Path(str(resources.files('nucseg_mmdet')))
    is_checkout = (package.parent / 'pyproject.toml').is_file()
    return (package.parent if is_checkout else package / '.mim') / name


def find_own_config(name: str) -> Path | None:
    """Find a config of the project by its file's name without ``.py``; None if there is none."""
    paths = sorted(find_file('configs').glob('[!_]*/**/*.py'))
    return next((path for path in paths if path.stem == name), None)


def find_config(config: str | Path) -> Path:
    """Find the config that a user names.

    Args:
        config: a file; 'finetune'; or the name of a model or of a config of the project, of today
            or of the release before, which a line on stderr tells.

    Raises:
        UserError: there is none of this name.
    """
    path = Path(config)
    if path.is_file():
        return path
    if str(config) in MODELS:
        return find_file(MODELS[str(config)].config)
    if str(config) in RECIPES:
        return find_file(RECIPES[str(config)])
    found = new_name(path.stem)
    if found:
        print(f'{config}: is {found} now', file=sys.stderr)
        return find_file(found)
    own = find_own_config(path.name.removesuffix('.py')) if path.parent == Path() else None
    if own:
        return own
    raise UserError(
        f'{config}: no such config, expected a file, the name of one in configs/ or '
        f'one of {", ".join([*RECIPES, *MODELS])}'
    )


def model_files(
    config: str | Path | None = None, checkpoint: str | Path | None = None
) -> tuple[Path, Path]:
    """Settle which model: the one named, or the default.

    Args:
        config: of the model, as for ``find_config``.
        checkpoint: its weights; may be left out for a model of the project and its config.

    Returns:
        Config and checkpoint.

    Raises:
        UserError: a checkpoint without a config, a config without a checkpoint, or no such file.
    """
    if config is None and checkpoint is not None:
        raise UserError(f'{checkpoint}: no config given, expected the one it was trained with')
    config = find_config(DEFAULT if config is None else config)
    if checkpoint is None:
        return config, _own_weights(config)
    checkpoint = Path(checkpoint)
    if not checkpoint.is_file():
        renamed = new_name(checkpoint.stem)
        own = next((one.weights for one in MODELS.values() if one.config == renamed), None)
        if checkpoint.suffix != '.pth' or own is None:
            raise UserError(f'{checkpoint}: no such checkpoint, expected a .pth file')
        print(f'{checkpoint}: is {own} now', file=sys.stderr)
        checkpoint = find_file(own)
    return config, checkpoint


def _own_weights(config: Path) -> Path:
    for model in MODELS.values():
        if config.resolve() == find_file(model.config).resolve():
            weights = find_file(model.weights)
            if not weights.is_file():
                raise UserError(f'{weights}: no such checkpoint, expected a .pth file')
            return weights
    raise UserError(
        f'{config}: no checkpoint given; only {", ".join(MODELS)} have one of their own'
    )


def check_weights(name: str) -> None:
    """Check that the weights of a model are the published ones, byte by byte.

    Args:
        name: of the model.

    Raises:
        UserError: they are not there, or differ.
    """
    model = MODELS[name]
    path = find_file(model.weights)
    if not path.is_file():
        raise UserError(f'{path}: no such checkpoint, expected a .pth file')
    found = hashlib.sha256(path.read_bytes()).hexdigest()
    if found != model.sha256:
        raise UserError(f'{path}: SHA-256 is {found}, expected {model.sha256}')
