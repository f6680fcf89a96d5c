"""Nuclei as COCO results."""

import json

import numpy as np

from nucseg_mmdet.export.writer import Target, Writer
from nucseg_mmdet.structures import rle
from nucseg_mmdet.structures.coco_entries import CATEGORY_ID
from nucseg_mmdet.structures.nuclei import Nuclei
from nucseg_mmdet.structures.polygons import ring_runs

COCO_LIMIT = 1 << 32  # px; pycocotools counts them in 32 bits


class CocoResults(Writer):
    """COCO results with run lengths at the size of the slide; categories count from 1."""

    suffix = '.coco.json'
    nucleus_bytes = 200

    @classmethod
    def obstacle(cls, target: Target) -> str | None:
        if target.width * target.height >= COCO_LIMIT:
            return f'{target.width} x {target.height} px are more than pycocotools can count'
        return None

    def _start(self) -> None:
        self._empty = True

    def _write(self, nuclei: Nuclei, ids: np.ndarray) -> None:
        height, width = self.target.height, self.target.width
        points = self.target.to_pixels(nuclei.points)
        owner, x, top, bottom = ring_runs(points, nuclei.sizes, axis=1)
        if not len(owner):
            return
        masks = rle.from_runs(x * height + top, bottom - top, owner, len(nuclei), height, width)
        kept = np.unique(owner)  # at low resolution a nucleus may have no pixel
        first = np.flatnonzero(np.diff(owner, prepend=-1))
        last = np.append(first[1:], len(owner)) - 1
        low, high = np.minimum.reduceat(top, first), np.maximum.reduceat(bottom, first)
        boxes = np.stack([x[first], low, x[last] + 1 - x[first], high - low], 1).tolist()
        head = f'{{"image_id":{self.target.image_id},"category_id":'
        lines = [
            f'{head}{CATEGORY_ID + label},"bbox":{box},"score":{score:.6g},'
            f'"segmentation":{{"size":[{height},{width}],"counts":{json.dumps(masks[index]["counts"].decode())}}}}}'
            for index, label, box, score in zip(
                kept.tolist(),
                nuclei.labels[kept].tolist(),
                boxes,
                nuclei.scores[kept].tolist(),
                strict=True,
            )
        ]
        text = ('[\n' if self._empty else ',\n') + ',\n'.join(lines)
        self._file.write(text.encode())
        self._empty = False

    def _finish(self) -> None:
        self._file.write(b'[]\n' if self._empty else b'\n]\n')
