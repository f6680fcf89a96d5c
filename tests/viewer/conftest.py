"""Results of a small made-up slide: rectangles for nuclei, every number known."""

import csv
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from nucseg_mmdet.export.formats import open_writers
from nucseg_mmdet.export.writer import Options, Target
from nucseg_mmdet.structures.nuclei import MEASUREMENTS, Nuclei

WIDTH, HEIGHT, PITCH = 2600, 1800, 100  # px
MPP = 0.25
NAME = 'made <b>&"up'  # a good name for a file


def make_nuclei() -> Nuclei:
    """26 x 18 rectangles of 24 x 16 px, nucleus i, j around x = 100 i + 50, y = 100 j + 50.

    Scores go from 0.6 to 0.999 in steps of 0.001 and begin again; areas grow with x, hematoxylin
    with y, eosin the other way.
    """
    y, x = (axis.ravel() for axis in np.mgrid[: HEIGHT // PITCH, : WIDTH // PITCH])
    centers = np.stack([x, y], 1) * PITCH + PITCH // 2
    corners = np.array([[-12, -8], [12, -8], [12, 8], [-12, 8]])
    num = len(x)
    measurements = np.ones((num, len(MEASUREMENTS)), np.float32)
    grown = dict(area_um2=10 + x, hematoxylin_od_mean=y / 20, eosin_od_mean=1 - y / 20)
    for name, values in grown.items():
        measurements[:, MEASUREMENTS.index(name)] = values
    measurements[0, MEASUREMENTS.index('circularity')] = np.nan
    return Nuclei(
        (centers[:, None] + corners).reshape(-1, 2).astype(np.int32),
        np.full(num, 4, np.int32),
        (0.6 + np.arange(num) % 400 / 1000).astype(np.float32),
        centers.astype(float),
        measurements,
        np.zeros(num, np.uint8),
    )


def write_results(
    folder: Path,
    name: str = NAME,
    options: Options | None = None,
    formats: Sequence[str] = ('geojson', 'csv'),
    **more: Any,
) -> None:
    """Write a slide, its results and their summary, with more entries, as a run does.

    Where the options have several classes, nuclei are of one after the other.
    """
    nuclei, options = make_nuclei(), options or Options()
    kinds = np.arange(len(nuclei)) % len(options.classes)
    nuclei = replace(nuclei, labels=kinds.astype(np.uint8))
    image = np.full((HEIGHT, WIDTH, 3), (200, 170, 210), np.uint8)
    for x, y in nuclei.centroids.astype(int):
        cv2.rectangle(image, (x - 12, y - 8), (x + 11, y + 7), (120, 60, 70), -1)
    slide = folder / f'{name}.png'
    cv2.imwrite(str(slide), image)
    target = Target(name, WIDTH, HEIGHT, 1.0, MPP)
    with open_writers(formats, folder, target, options) as writers:
        writers.write(nuclei)
    summary = dict(name=name, path=str(slide), width=WIDTH, height=HEIGHT, microns_per_pixel=MPP)
    summary |= dict(nuclei=len(nuclei), tissue_mm2=0.29, broken_tiles=[], notes=[])
    summary['classes'] = [one._asdict() for one in options.classes]
    summary |= dict(files=[path.name for path in writers.paths], **more)
    (folder / f'{name}.summary.json').write_text(json.dumps(summary))


def write_again(folder: Path) -> None:
    """The results of another run: rows lie at other bytes, the first nucleus has another score.

    The summary tells of another area of tissue.
    """
    path = folder / f'{NAME}.csv'
    head, first, *lines = path.read_text().splitlines(keepends=True)
    names = head.strip().split(',')
    cells = first.strip().split(',')
    cells[names.index('score')] = '0.12345'
    write_results(folder, tissue_mm2=0.5)
    path.write_text(''.join([head, ','.join(cells) + '\n', *lines]))


def table(folder: Path, name: str = NAME) -> list[dict[str, str]]:
    """The rows of the CSV."""
    with (folder / f'{name}.csv').open(newline='') as file:
        return list(csv.DictReader(file))


@pytest.fixture
def folder(tmp_path):
    """Results that a test may change."""
    write_results(tmp_path)
    return tmp_path


@pytest.fixture(scope='session')
def shared_folder(tmp_path_factory):
    """Results of two slides that no test changes."""
    folder = tmp_path_factory.mktemp('results')
    write_results(folder)
    write_results(folder, 'second', Options(compress=True))
    return folder


@pytest.fixture(scope='session')
def rows(shared_folder):
    return table(shared_folder)
