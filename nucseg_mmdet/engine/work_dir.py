"""What a run leaves in its work folder: checkpoints that are whole, and which run they are of."""

import contextlib
import json
import os
import re
from pathlib import Path
from typing import Any, ClassVar

from mmengine.fileio import LocalBackend, register_backend
from mmengine.runner.checkpoint import CheckpointLoader

from nucseg_mmdet.engine.checkpoint import load_weights_only
from nucseg_mmdet.evaluation.run_cards import CARD
from nucseg_mmdet.utils.errors import UserError, some
from nucseg_mmdet.utils.files import write_bytes
from nucseg_mmdet.utils.ownership import owned_folder
from nucseg_mmdet.utils.reading import read_bytes

ITERATION = re.compile(r'(?:iter|epoch)_(\d+)\.pth')
# Where a launcher says which of its processes this is.
RANKS = {'pytorch': 'RANK', 'slurm': 'SLURM_PROCID', 'mpi': 'OMPI_COMM_WORLD_RANK'}


@register_backend('WholeFiles')
class WholeFiles(LocalBackend):
    """mmengine's files, but whole or not there; what is removed goes after the next is written.

    mmengine's ``CheckpointHook`` removes the oldest checkpoint before it writes the next, in place:
    a process killed in between would leave none.
    """

    _to_remove: ClassVar[list[Path]] = []  # of all instances: the hook makes another to write

    def put(self, obj: bytes | memoryview, filepath: str | Path) -> None:
        write_bytes(Path(filepath), bytes(obj))
        while self._to_remove:
            path = self._to_remove.pop()
            if path != Path(filepath):
                path.unlink(missing_ok=True)

    def remove(self, filepath: str | Path) -> None:
        self._to_remove.append(Path(filepath))


def owned_by_this_run(work_dir: Path, launcher: str) -> contextlib.AbstractContextManager[None]:
    """Own a work folder during a block, so that no other training mixes its checkpoints in.

    Of the processes of a launcher, the first one owns it for all.

    Raises:
        UserError: as ``owned_folder``.
    """
    first = os.environ.get(RANKS.get(launcher, ''), '0') == '0'
    return owned_folder(work_dir) if first else contextlib.nullcontext()


def read_card(work_dir: str | Path) -> dict[str, Any]:
    """The run card of a work folder; empty if there is none, or none that can be read."""
    try:
        card = json.loads(read_bytes(Path(work_dir, CARD)))
    except (UserError, ValueError, RecursionError):
        return {}
    return card if isinstance(card, dict) else {}


def find_last_checkpoint(work_dir: str | Path) -> Path | None:
    """Find the newest whole checkpoint of the run that a work folder's card is of.

    mmengine's file ``last_checkpoint`` is not asked: it is written in place, may be torn, and
    may name a checkpoint of an earlier run in this folder.

    Returns:
        The file, None if there is none.
    """
    run = read_card(work_dir).get('run')
    found = [
        (int(match[1]), path)
        for path in Path(work_dir).glob('*.pth')
        if (match := ITERATION.fullmatch(path.name))
    ]
    for _, path in sorted(found, reverse=True):
        try:
            meta = load_weights_only(str(path), 'cpu').get('meta')
        except UserError:
            continue
        if isinstance(meta, dict) and meta.get('run') == run:
            return path
    return None


def find_resumed(work_dir: str | Path) -> Path | None:
    """Find the checkpoint that a run goes on from; says which ones of the folder it does not.

    Returns:
        As ``find_last_checkpoint``.

    Raises:
        UserError: there are checkpoints, and no card that says of which run they should be.
    """
    last = find_last_checkpoint(work_dir)
    others = sorted(path.name for path in Path(work_dir).glob('*.pth'))
    if last is None and others:
        if not read_card(work_dir).get('run'):
            raise UserError(
                f'{work_dir}: has {some(others)} and no {CARD} of their run, expected one; '
                '--resume CHECKPOINT goes on from one of them, --overwrite without it begins anew'
            )
        print(f'{work_dir}: found {some(others)}, none whole and of this run, which begins anew')
    return last


def refuse_to_replace(work_dir: str | Path) -> None:
    """Refuse to begin anew where a training has left its checkpoints.

    Raises:
        UserError: as said.
    """
    if found := sorted(path.name for path in Path(work_dir).glob('*.pth')):
        raise UserError(
            f'{work_dir}: has {some(found)} of an earlier training, expected --resume, another '
            '--work-dir, or --overwrite'
        )


def check_resumed(checkpoint: str, work_dir: str | Path, data_sha256: str | None = None) -> None:
    """Refuse to go on from what is no state of a training, in another run's folder, on other data.

    Args:
        checkpoint: file, or an address.
        work_dir: where the run goes on.
        data_sha256: digest of the data that it goes on with. With another fold it would learn from
            the images that are held out, and the card say that it never saw them.

    Raises:
        UserError: as said.
    """
    state = CheckpointLoader.load_checkpoint(checkpoint, 'cpu')
    meta = state.get('meta') if isinstance(state.get('meta'), dict) else {}
    numbers = [meta.get(key) for key in ('iter', 'epoch')]
    has_state = all(isinstance(state.get(key), dict) for key in ('optimizer', 'message_hub'))
    if not has_state or not all(type(number) is int and number >= 0 for number in numbers):
        raise UserError(
            f'{checkpoint}: has no state of a training, expected a checkpoint of nucseg train; '
            '--cfg-options load_from=FILE begins with weights alone'
        )
    card = read_card(work_dir)
    run = card.get('run')
    if run and meta.get('run') != run:
        raise UserError(
            f'{checkpoint}: is of run {meta.get("run")}, expected {run} as in {work_dir}/{CARD}; '
            'another --work-dir takes it'
        )
    if run and data_sha256 and card.get('data_sha256') not in (None, data_sha256):
        raise UserError(
            f'{work_dir}/{CARD}: the run was trained on other data ({card.get("annotations")}: of '
            'another fold, or changed), expected the same to go on; another --work-dir begins anew'
        )
