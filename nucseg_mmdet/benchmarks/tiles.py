"""Time the joining of tiles: python -m nucseg_mmdet.benchmarks.tiles [--nuclei 1000000].

Known nuclei on a dense lattice are seen by every tile that they reach into, as a network would:
cut at the border of the tile, and shifted a little from tile to tile. Rows of tiles are made and
kept as in a run; what is timed is the joining of the rows: alone, into files, and with features.
"""

from nucseg_mmdet.utils.start import start_script

if __name__ == '__main__':
    start_script()

import resource
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from nucseg_mmdet.export.formats import FORMATS, open_writers
from nucseg_mmdet.export.writer import Target
from nucseg_mmdet.inference import shards, tiling
from nucseg_mmdet.inference.features import with_features
from nucseg_mmdet.inference.frame import make_frame
from nucseg_mmdet.inference.tiling import Grid
from nucseg_mmdet.slides.base import ArraySlide
from nucseg_mmdet.structures.nuclei import MEASUREMENTS, Nuclei
from nucseg_mmdet.structures.polygons import mask_to_polygons
from nucseg_mmdet.utils.arguments import ArgumentParser
from nucseg_mmdet.utils.errors import UserError, exit_code

SPACING = 28  # px between nuclei: 20,000 per mm2, denser than the densest class image
RADIUS = 16  # px, no nucleus reaches further from its center
SHAPES = 64


def make_shapes() -> Nuclei:
    """Ellipses of many sizes and directions around 0, 0."""
    rings = []
    for index in range(SHAPES):
        mask = np.zeros((2 * RADIUS + 1,) * 2, np.uint8)
        axes = (9 + index % 6, 7 + index % 5)
        cv2.ellipse(mask, (RADIUS, RADIUS), axes, index * 37 % 180, 0, 360, 1, -1)
        (ring,) = mask_to_polygons(mask.astype(bool), (-RADIUS, -RADIUS))
        rings.append(np.array(ring, np.int32).reshape(-1, 2))
    return Nuclei(
        np.concatenate(rings),
        np.array([len(ring) for ring in rings], np.int32),
        np.ones(SHAPES, np.float32),
        np.full((SHAPES, 2), 0.5),
        np.ones((SHAPES, len(MEASUREMENTS)), np.float32),
        np.zeros(SHAPES, np.uint8),
    )


def see(shapes: Nuclei, grid: Grid, side: int, row: int, column: int) -> Nuclei:
    """What a tile shows of the lattice, px of the tile."""
    corner, size = np.split(np.array(grid.tile(row, column)), 2)
    low = np.maximum((corner - RADIUS) // SPACING, 0)
    high = np.minimum((corner + size + RADIUS) // SPACING + 1, side)
    x, y = (axis.ravel() for axis in np.meshgrid(*map(np.arange, low, high)))
    rng = np.random.default_rng([row, column])
    centers = np.stack([x, y], 1) * SPACING + SPACING // 2 + rng.integers(-1, 2, (x.size, 2))
    centers -= corner
    inside = np.flatnonzero(((centers > -3) & (centers < size + 3)).all(axis=1))
    centers = centers[inside]
    seen = shapes.take((x + 7 * y)[inside] % SHAPES)
    points = seen.points + np.repeat(centers, seen.sizes, axis=0)
    return replace(
        seen,
        points=np.clip(points, 0, size).astype(np.int32),
        centroids=np.clip(centers + 0.5, 0, size),
        scores=rng.uniform(0.5, 1, inside.size).astype(np.float32),
    )


def write_rows(folder: Path, grid: Grid, side: int) -> list[Path]:
    """Keep every row of tiles as a run does."""
    shapes, paths = make_shapes(), []
    for row in range(len(grid.tops)):
        tiles = (
            (column, see(shapes, grid, side, row, column)) for column in range(len(grid.lefts))
        )
        paths.append(folder / f'row_{row:05d}.npz')
        shards.write_row(paths[-1], tiling.join_row(tiles, grid, row))
    return paths


class Clock:
    """Time since it was made: on the wall, and of the processor, for a busy machine."""

    def __init__(self) -> None:
        self._wall, self._processor = time.perf_counter(), time.process_time()

    def __str__(self) -> str:
        wall, processor = time.perf_counter() - self._wall, time.process_time() - self._processor
        return f'{wall:.1f} s, {processor:.1f} s of CPU'


def join_rows(paths: Sequence[Path], grid: Grid) -> Iterator[Nuclei]:
    rows = (shards.read_row(path) for path in paths)
    return (part.nuclei for part in tiling.join_rows(rows, grid))


def noise(width: int) -> ArraySlide:
    """A slide of columns of one color each, which needs no memory."""
    row = np.random.default_rng(0).integers(0, 256, (1, width, 3), np.uint8)
    return ArraySlide(np.broadcast_to(row, (width, width, 3)), 0.25)


@exit_code
def main(argv: Sequence[str] | None = None) -> int:
    parser = ArgumentParser(description=__doc__)
    parser.add_argument('--nuclei', type=int, default=1_000_000)
    parser.add_argument('--format', nargs='*', choices=list(FORMATS), default=['geojson'])
    parser.add_argument('--features', action='store_true', help='also time those of segment')
    args = parser.parse_args(argv)
    if args.nuclei < 1:
        raise UserError(f'--nuclei {args.nuclei}: expected at least 1')
    side = round(args.nuclei**0.5)
    width = side * SPACING
    grid = tiling.make_grid(width, width, 512, 128)
    print(f'{side**2:,} nuclei on {width:,} x {width:,} px, {len(grid.tops)}^2 tiles of 512 px')
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clock = Clock()
        paths = write_rows(folder, grid, side)
        size = sum(path.stat().st_size for path in paths)
        print(f'rows made and kept: {clock}, {size / 1e6:,.0f} MB')
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

        clock = Clock()
        found = sum(len(nuclei) for nuclei in join_rows(paths, grid))
        print(f'rows joined: {clock}, {found:,} nuclei')

        clock = Clock()
        target = Target('benchmark', width, width, 1.0, 0.25)
        with open_writers(args.format, folder, target) as writers:
            for nuclei in join_rows(paths, grid):
                writers.write(nuclei)
        print(f'rows joined into {", ".join(args.format) or "no file"}: {clock}')
        more = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        print(f'memory at most {more / 1024:.0f} MB above what making the rows took')

        if args.features:
            slide = noise(width)
            clock = Clock()
            found = sum(
                len(nuclei)
                for nuclei in with_features(
                    lambda: join_rows(paths, grid), slide, make_frame(slide)
                )
            )
            print(f'rows joined twice, with features: {clock}, {found:,} nuclei')
    return int(found != side**2)


if __name__ == '__main__':
    sys.exit(main())
