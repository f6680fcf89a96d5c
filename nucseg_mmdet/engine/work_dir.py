"""What a run leaves in its work folder: checkpoints that are whole, and which run they are of."""

import json
import re
from pathlib import Path
from typing import Any, ClassVar

from mmengine.fileio import LocalBackend, register_backend

from nucseg_mmdet.engine.checkpoint import load_weights_only
from nucseg_mmdet.utils.errors import UserError
from nucseg_mmdet.utils.files import write_bytes
from nucseg_mmdet.utils.reading import read_bytes

CARD = 'run_card.json'
ITERATION = re.compile(r'(?:iter|epoch)_(\d+)\.pth')


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
