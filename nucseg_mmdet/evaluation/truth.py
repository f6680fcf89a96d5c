"""COCO truth of any tool, made what the format says: what ``nucseg score`` takes for truth."""

from pathlib import Path
from typing import Any

from nucseg_mmdet.imaging.image_files import read_size
from nucseg_mmdet.structures.coco import TruthImage, load_json, parse_truth
from nucseg_mmdet.structures.coco_tidy import as_one_class, tidy
from nucseg_mmdet.utils.errors import UserError


def load_tidy_truth(path: Path, images: Path) -> tuple[Any, list[str]]:
    """Load truth and make it tidy, with the sizes of its images where it does not say them.

    Args:
        path: of the truth.
        images: folder that its names of files start at; an image may be missing.

    Returns:
        As ``coco_tidy.tidy``: the truth, not checked yet, and a line for each kind of change.

    Raises:
        UserError: the file cannot be read.
    """

    def size_of(name: str) -> tuple[int, int] | None:
        try:
            return read_size(images / name)
        except UserError:
            return None  # who needs the image says what is wrong

    return tidy(load_json(path), size_of)


def read_tidy_truth(path: Path) -> list[TruthImage]:
    """Read truth beside its images as one class, where ``coco.read_truth`` takes exact COCO alone.

    Raises:
        UserError: the file cannot be read, or is not as it should be.
    """
    data, _ = load_tidy_truth(path, path.parent)
    return parse_truth(as_one_class(data)[0], str(path))
