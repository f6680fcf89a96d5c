"""Nuclei to write, and what they are expected to look like."""

import json
import sys

import cv2
import numpy as np

from nucseg_mmdet.export.formats import FORMATS, open_writers
from nucseg_mmdet.export.writer import Options, Target
from nucseg_mmdet.structures.nuclei import MEASUREMENTS, Nuclei
from nucseg_mmdet.structures.polygons import mask_to_polygons

# zarr 3 is for Python 3.11 and later.
ZARR = ('spatialdata', 'ome-zarr')
WRITABLE = [name for name in FORMATS if name not in ZARR or sys.version_info >= (3, 11)]

BAY = np.array([[1, 1, 1, 1], [1, 0, 0, 1], [1, 1, 0, 1], [1, 1, 1, 0]], bool)


def nuclei_of(masks, seed=0):
    """Nuclei of the first ring of each mask of one image; everything else is made up."""
    rng = np.random.default_rng(seed)
    rings = [np.array(mask_to_polygons(mask)[0], np.int32).reshape(-1, 2) for mask in masks]
    num = len(rings)
    return Nuclei(
        np.concatenate(rings),
        np.array([len(ring) for ring in rings], np.int32),
        rng.random(num).astype(np.float32),
        np.array([np.argwhere(mask).mean(0)[::-1] + 0.5 for mask in masks]),
        rng.random((num, len(MEASUREMENTS))).astype(np.float32),
        np.zeros(num, np.uint8),
    )


def ovals(num, height, width, seed=0, radii=(4, 14)):
    rng = np.random.default_rng(seed)
    masks = []
    for _ in range(num):
        canvas = np.zeros((height, width), np.uint8)
        center = int(rng.integers(width)), int(rng.integers(height))
        axes = tuple(rng.integers(*radii, 2).tolist())
        masks.append(cv2.ellipse(canvas, center, axes, rng.uniform(0, 180), 0, 360, 1, -1) > 0)
    return masks


def write(out_dir, formats, target, *batches, **options):
    with open_writers(formats, out_dir, target, Options(**options)) as writers:
        for batch in batches:
            writers.write(batch)
    return writers.paths


def halves(nuclei):
    middle = len(nuclei) // 2
    return nuclei.take(np.arange(middle)), nuclei.take(np.arange(middle, len(nuclei)))


def strict_json(text):
    def refuse(constant):
        raise AssertionError(f'{constant} is not JSON')

    return json.loads(text, parse_constant=refuse)


ONE = Nuclei(
    np.array([[2, 1], [5, 1], [5, 3], [2, 3]], np.int32),
    np.array([4], np.int32),
    np.array([0.75], np.float32),
    np.array([[3.5, 2.0]]),
    np.array([[6, 10, np.nan, 3, 2, 0.5, 1, 0.25, -0.125]], np.float32),
    np.zeros(1, np.uint8),
)
# A slide of 0.5 microns per px, brought to 0.25; the region begins at 100, 40.
REGION = Target('slide 1', 400, 300, scale=0.5, mpp=0.25, region=(100, 40, 30, 20))
PLAIN = Target('image', 90, 70, scale=1.0, mpp=0.25)


def painted(masks, scores, height, width):
    """Label map in which the higher score keeps a pixel, then the lower number."""
    labels = np.zeros((height, width), np.int32)
    for index in sorted(range(len(masks)), key=lambda i: (scores[i], -i)):
        labels[masks[index]] = index + 1
    return labels
