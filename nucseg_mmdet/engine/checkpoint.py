"""Reading checkpoints without running what is in them.

mmengine falls back to a full unpickling where ``weights_only`` refuses a file, unpickles
downloads in full, and on ``--resume`` runs ``meta['config']`` as Python. The loaders here
take the place of its own in its table, so that ``load_from``, ``init_cfg`` and ``--resume``
all go through them; they refuse instead. They take Detectron2's files too.
"""

import hashlib
import io
import os
import pickle
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import numpy as np
import torch
from mmengine.dist import barrier, is_main_process
from mmengine.logging import HistoryBuffer
from mmengine.runner.checkpoint import CheckpointLoader, get_external_models
from torch import nn

from nucseg_mmdet.engine import safe_pickle
from nucseg_mmdet.engine.detectron2 import is_detectron2, take_weights, to_checkpoint
from nucseg_mmdet.utils.errors import UserError
from nucseg_mmdet.utils.files import write_bytes


class _Curve(HistoryBuffer):
    """Stand in for mmengine's curve of the log until its numbers follow, and become one then.

    Called, mmengine's own makes arrays of whatever it is given: also of what says of itself, in
    NumPy's ``__array_interface__``, at which address it lies.
    """

    def __init__(self, *_: object) -> None:
        raise pickle.UnpicklingError('a call of HistoryBuffer')

    def __setstate__(self, state: dict[str, object]) -> None:
        if any(type(state[key]) is not np.ndarray for key in ('_log_history', '_count_history')):
            raise pickle.UnpicklingError('a curve of the log without numbers')
        self.__dict__.update(state)
        self.__class__ = HistoryBuffer


def _history_method(owner: object, name: str) -> object:
    """Stand in for ``getattr``, which mmengine's curves of the log are pickled with."""
    if owner is not _Curve:
        raise pickle.UnpicklingError(f'getattr of {owner!r}')
    return getattr(HistoryBuffer, name)


HEAD = re.compile(r'^(roi_head\.\w+_head)\.(?!\d)')
# Stages of a ``CascadeRoIHead``; the layers of other heads have names, not numbers.
STAGE = re.compile(r'^(roi_head\.\w+_(?:head|extractor))\.(\d+)\.')
DIGEST = re.compile(r'-[0-9a-f]{8,}\.\w+$')
# mmengine's own list admits all of ``getattr``, which reaches much further.
LOG_CURVES = [
    (_Curve, f'{HistoryBuffer.__module__}.HistoryBuffer'),
    (_history_method, 'builtins.getattr'),
]


@CheckpointLoader.register_scheme(prefixes='', force=True)
def load_weights_only(filename: str, map_location: str | torch.device | None = None) -> dict:
    """Load a checkpoint file, tensors and plain values only.

    Args:
        filename: path of a file of ``torch.save``, mmengine's or Detectron2's.
        map_location: as for ``torch.load``.

    Raises:
        UserError: no such file, no checkpoint, or it holds more than weights.
    """
    path = Path(filename).expanduser()
    checkpoint = safe_pickle.load_torch(path, LOG_CURVES, map_location)
    if not isinstance(checkpoint, dict):
        raise UserError(f'{path}: {type(checkpoint).__name__}, expected a checkpoint dictionary')
    if is_detectron2(checkpoint):
        return to_checkpoint(take_weights(checkpoint, path), path)
    weights, meta = checkpoint.get('state_dict', checkpoint), checkpoint.get('meta', {})
    if weights is not checkpoint and not isinstance(meta, dict):
        raise UserError(f'{path}: meta is {type(meta).__name__}, expected a dictionary')
    tensors = weights if isinstance(weights, dict) else {}
    tensors = {key: value for key, value in tensors.items() if isinstance(value, torch.Tensor)}
    if not tensors or not all(isinstance(key, str) for key in tensors):
        raise UserError(f'{path}: no weights by name, expected a checkpoint with state_dict')
    for key, value in tensors.items():
        safe_pickle.check_tensor(value, f'{path}: {key}')
    if isinstance(meta, dict):
        meta.pop('config', None)
    return checkpoint


def cached_download(name: str) -> tuple[str, Path]:
    """Say where weights come from, and where they lie once downloaded: in torch hub's cache.

    A name that ends in a digest, as those of torch and of MMDetection do, is that of one file; to
    others that of their address is added, since every project has a ``model.pth``.

    Args:
        name: an address, or ``open-mmlab://`` and a name of mmengine's list.

    Raises:
        UserError: another kind of address, or no name of the list.
    """
    scheme, rest = name.split('://', 1)
    url = get_external_models().get(rest, '') if 'mmlab' in scheme else name
    if not url.startswith(('https://', 'http://')):
        raise UserError(f'{name}: expected a file, https:// or open-mmlab:// and a listed name')
    name = Path(urlparse(url).path).name
    if not DIGEST.search(name):
        address = hashlib.sha256(url.encode()).hexdigest()[:8]
        name = f'{Path(name).stem}-{address}{Path(name).suffix}'
    return url, Path(torch.hub.get_dir(), 'checkpoints', name)


@CheckpointLoader.register_scheme(
    prefixes=[
        *('https://', 'http://', 'open-mmlab://', 'openmmlab://'),
        # These are refused: they take libraries or networks that few have.
        *('torchvision://', 'modelzoo://', 'mmcls://', 'pavi://'),
        *(r'(\S+\:)?s3://', r'(\S+\:)?petrel://'),
    ],
    force=True,
)
def load_from_web(filename: str, map_location: str | torch.device | None = None) -> dict:
    """Download a checkpoint unless it is in the cache, and load it as any file.

    Args:
        filename: as for ``cached_download``.
        map_location: as for ``torch.load``.

    Raises:
        UserError: as ``cached_download`` and ``load_weights_only``, or it can't be had.
    """
    url, path = cached_download(filename)
    is_new = not path.exists()
    if is_main_process() and is_new:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(path), progress=os.isatty(0))
        except OSError as error:
            raise UserError(f'{url}: not downloaded ({error})') from None
    barrier()
    try:
        return CheckpointLoader.load_checkpoint(str(path), map_location)
    except UserError:
        if is_new:  # perhaps cut off on its way: the next try begins anew
            path.unlink(missing_ok=True)
        raise


def refuse_unfit(model: nn.Module, checkpoint: dict, name: str) -> None:
    """Refuse a checkpoint whose keys or shapes differ from the model's.

    Class layers that the loader of a Detectron2 file dropped may be missing.

    Args:
        model: that the weights are meant for.
        checkpoint: as loaded.
        name: of the file, for the message.

    Raises:
        UserError: the first keys that differ.
    """
    expected = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    for key in checkpoint.get('meta', {}).get('dropped', ()):
        expected.pop(key, None)
    found = {key: tuple(value.shape) for key, value in _tensors(checkpoint).items()}
    differences = [
        f'{key} is {found.get(key, "missing")}, expected {expected.get(key, "no such key")}'
        for key in [*expected, *(key for key in found if key not in expected)]
        if found.get(key) != expected.get(key)
    ]
    if differences:
        raise UserError(
            f'{name}: does not fit this config, {len(differences)} keys differ: '
            + '; '.join(differences[:3])
        )


def refuse_without_class_layers(meta: dict, path: str | Path) -> None:
    """Refuse weights whose class layers were dropped: random ones would find random nuclei.

    Args:
        meta: what the checkpoint says of itself.
        path: of the file, for the message.

    Raises:
        UserError: as said.
    """
    if dropped := meta.get('dropped'):
        raise UserError(f'{path}: has no class layers for this config, missing {dropped[0]}')


def load_fit(model: nn.Module, checkpoint: dict, path: str | Path) -> None:
    """Load a checkpoint that has all weights of a model, and no others.

    Args:
        model: that they are meant for.
        checkpoint: as loaded.
        path: of the file, for the message.

    Raises:
        UserError: as ``refuse_unfit``, or the class layers of a Detectron2 file were dropped.
    """
    refuse_unfit(model, checkpoint, str(path))
    refuse_without_class_layers(checkpoint.get('meta', {}), path)
    model.load_state_dict(_tensors(checkpoint))


def _tensors(checkpoint: dict) -> dict[str, torch.Tensor]:
    """The weights of a checkpoint by the model's names, without those of a distributed model."""
    weights = checkpoint.get('state_dict', checkpoint)
    return {
        key.removeprefix('module.'): value
        for key, value in weights.items()
        if isinstance(value, torch.Tensor)
    }


def publish(sources: Sequence[Path], out: Path, facts: dict, first_stage: bool = False) -> int:
    """Write the weights of a checkpoint alone, in half precision, as a file to share.

    Statistics of batch norms stay float32: a variance may be smaller than float16 goes.

    Args:
        sources: checkpoints of a training; of several, the mean of their weights is written.
        out: the file, written beside and renamed.
        facts: plain values to keep in ``meta``, such as config, data and license.
        first_stage: of a cascade, write the Mask R-CNN that its first stage is.

    Returns:
        Size of the file, bytes.

    Raises:
        UserError: no checkpoint, checkpoints of different models, no cascade where one is to be,
            a weight that is too large for float16, or no place to write.

    Source:
        Wortsman et al., "Model soups", ICML 2022, for means of trainings that went on from one.
    """
    checkpoints = [load_weights_only(str(source), 'cpu') for source in sources]
    parts = [_weights_of(one, source) for one, source in zip(checkpoints, sources, strict=True)]
    if first_stage:
        parts = [_first_stage(part, source) for part, source in zip(parts, sources, strict=True)]
    for part, source in zip(parts, sources, strict=True):
        _check_same_model(part, parts[0], source, sources[0])
    weights = {}
    for key, value in parts[0].items():
        half = value.is_floating_point() and 'running_' not in key
        if value.is_floating_point():
            mean = torch.stack([part[key].double() for part in parts]).mean(0)
            value = mean.half() if half else mean.to(value.dtype)
        weights[key] = value.clone()
        if half and not weights[key].isfinite().all():
            raise UserError(f'{sources[0]}: {key} has values beyond float16 or not finite')
    known = checkpoints[0].get('meta', {})
    kept = dict(iteration=known.get('iter'))
    if 'dataset_meta' in known:  # names of the classes
        kept['dataset_meta'] = {
            key: value
            for key, value in known['dataset_meta'].items()
            if key != 'cumulative_sizes'  # of the data sets of ``ConcatDataset``
        }
    save(dict(meta=facts | kept, state_dict=weights), out)
    return out.stat().st_size


def _weights_of(checkpoint: dict, source: Path) -> dict[str, torch.Tensor]:
    weights = checkpoint.get('state_dict', checkpoint)
    for key, value in weights.items():
        if not isinstance(value, torch.Tensor):
            raise UserError(f'{source}: {key} is no tensor, expected the weights of a model')
    return weights


def _first_stage(weights: dict[str, torch.Tensor], source: Path) -> dict[str, torch.Tensor]:
    stages = {key: STAGE.match(key) for key in weights}
    if not any(stages.values()):
        raise UserError(
            f'{source}: no cascade, expected weights such as roi_head.bbox_head.0.fc_cls'
        )
    return {
        STAGE.sub(r'\1.', key): value
        for key, value in weights.items()
        if not stages[key] or stages[key][2] == '0'
    }


def fill_stages(checkpoint: dict[str, Any], num_stages: int) -> None:
    """Make of the heads of a Mask R-CNN those of every stage of a cascade, in place.

    Those of a cascade are left as they are, and so is the rest: the later stages begin with what
    the first one knows, instead of at random.

    Args:
        checkpoint: as loaded.
        num_stages: of the cascade.
    """
    weights = checkpoint.get('state_dict', checkpoint)
    for key in [key for key in weights if HEAD.match(key)]:
        value = weights.pop(key)
        for stage in range(num_stages):
            weights[HEAD.sub(rf'\1.{stage}.', key)] = value.clone()


def _check_same_model(
    weights: dict[str, torch.Tensor], others: dict[str, torch.Tensor], source: Path, other: Path
) -> None:
    """Refuse weights that have other names or shapes than those of another file."""
    for key in [*others, *weights]:
        shapes = [
            tuple(part[key].shape) if key in part else 'missing' for part in (weights, others)
        ]
        if shapes[0] != shapes[1]:
            raise UserError(f'{source}: {key} is {shapes[0]}, expected {shapes[1]} as in {other}')


def save(content: dict, path: Path) -> None:
    """Write a file of ``torch.save``, whole or not at all.

    Raises:
        UserError: it cannot be written.
    """
    buffer = io.BytesIO()  # torch's own writing raises no OSError
    torch.save(content, buffer)
    write_bytes(path, buffer.getvalue())
