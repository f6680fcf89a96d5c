"""Time the viewer: python -m nucseg_mmdet.benchmarks.viewer [--nuclei 1000000] [--keep DIR].

Writes the results of a made-up slide, ellipses on a dense lattice over pieces of synthetic
tissue, opens them with ``nucseg view`` in Chromium without a GPU, and moves the view for a few
seconds at three zooms. What is told is the time between two frames, as
``requestAnimationFrame`` sees them; a screen shows one every 16.7 ms at best.

Needs Chromium, and Playwright to drive it: ``pip install playwright`` (no browser of its own).
"""

from nucseg_mmdet.utils.start import start_script

if __name__ == '__main__':
    start_script()

import json
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from itertools import product
from pathlib import Path

import numpy as np

from nucseg_mmdet.benchmarks.tiles import SHAPES, SPACING, make_shapes
from nucseg_mmdet.export.formats import open_writers
from nucseg_mmdet.export.writer import Target
from nucseg_mmdet.structures.nuclei import Nuclei
from nucseg_mmdet.synthetic.fields import synthesize
from nucseg_mmdet.synthetic.slides import Mosaic
from nucseg_mmdet.utils.arguments import ArgumentParser, summary_of
from nucseg_mmdet.utils.errors import UserError, exit_code

MPP = 0.25  # microns per px
PIECE = 512  # px
ZOOMS = (0.03, 0.1, 0.5)  # screen px an image px: density, dots, outlines
BROWSERS = ('chromium', 'chromium-browser', 'google-chrome')
# Moves the view for some seconds, a screen's width in two of them; ms of each frame.
PAN = """async ([zoom, seconds, nuclei]) => {
  nucseg.state.nuclei = nuclei;
  const { viewer, layer, slide } = nucseg, { viewport } = viewer;
  viewport.zoomTo(zoom * slide.width / viewport.getContainerSize().x, null, true);
  viewport.panTo(new OpenSeadragon.Point(0.3, 0.3), true);
  const frame = () => new Promise((resolve) => requestAnimationFrame(resolve));
  const wait = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
  const whole = () => (!nuclei || layer.canvas.dataset.drawn > 0) && !layer.canvas.dataset.behind
    && !layer.store.running.size;
  for (let tries = 0, seen = 0; tries < 600 && seen < 3; tries++) { // a change begins frames later
    await wait(100);
    seen = whole() ? seen + 1 : 0;
  }
  const drawn = Number(layer.canvas.dataset.drawn), mode = layer.canvas.dataset.mode;
  const step = viewport.getBounds().width / 2;
  const times = [], start = await frame();
  for (let last = start; last - start < 1000 * seconds;) {
    const now = await frame(), angle = (now - start) / 4000 * 2 * Math.PI;
    times.push(now - last);
    const by = (now - last) / 1000 * step;
    viewport.panBy(new OpenSeadragon.Point(by * Math.cos(angle), by * Math.sin(angle)), true);
    last = now;
  }
  return { mode, drawn, times: times.slice(1) };
}"""


def lattice(shapes: Nuclei, side: int, row: int) -> Nuclei:
    """A row of the lattice's nuclei, px of the slide, with scores and areas of their own."""
    rng = np.random.default_rng(row)
    x = np.arange(side)
    centers = np.stack([x, np.full(side, row)], 1) * SPACING + SPACING // 2
    nuclei = shapes.take((x + 7 * row) % SHAPES)
    measurements = np.array(nuclei.measurements)
    measurements[:, 0] = rng.gamma(6, 5, side)
    return Nuclei(
        (nuclei.points + np.repeat(centers, nuclei.sizes, axis=0)).astype(np.int32),
        nuclei.sizes,
        rng.beta(8, 2, side).astype(np.float32),
        centers + 0.5,
        measurements,
        nuclei.labels,
    )


def write_results(folder: Path, num: int) -> None:
    """Write a slide and its results as ``nucseg segment`` would."""
    side = round(num**0.5)
    width = side * SPACING
    slide = folder / 'slide.tif'
    pieces = [synthesize(seed, PIECE, PIECE, 80)[0] for seed in range(3)]
    Mosaic(pieces, width, width).write(slide, MPP, quality=75)
    shapes, formats = make_shapes(), ['geojson', 'csv']
    target = Target('slide', width, width, 1.0, MPP)
    with open_writers(formats, folder, target) as writers:
        for row in range(side):
            writers.write(lattice(shapes, side, row))
    summary = dict(name='slide', path=str(slide), width=width, height=width)
    summary |= dict(microns_per_pixel=MPP, nuclei=side**2, files=[p.name for p in writers.paths])
    (folder / 'slide.summary.json').write_text(json.dumps(summary))


def measure(folder: Path, seconds: float) -> None:
    """Open results in a browser and print what it measures."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        raise UserError('no Playwright, expected it: pip install playwright') from None
    browser_path = next((path for path in map(shutil.which, BROWSERS) if path), None)
    if browser_path is None:
        raise UserError(f'no browser, expected one of {", ".join(BROWSERS)}')
    command = [sys.executable, '-m', 'nucseg_mmdet.commands.view', str(folder)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        address = re.search(r'http\S+', server.stdout.readline())[0]
        with sync_playwright() as playwright:
            options = ['--no-sandbox', '--disable-gpu']
            browser = playwright.chromium.launch(executable_path=browser_path, args=options)
            page = browser.new_page(viewport=dict(width=1400, height=860))
            started = time.perf_counter()
            page.goto(address)
            while not page.evaluate('Boolean(window.nucseg?.layer?.canvas.dataset.drawn > 0)'):
                page.wait_for_timeout(200)
            print(f'opened, index made: {time.perf_counter() - started:.1f} s')
            for zoom, nuclei in product(ZOOMS, (False, True)):
                found = page.evaluate(PAN, [zoom, seconds, nuclei])
                middle, slow, worst = np.percentile(found['times'], [50, 95, 100])
                seen = f'{found["mode"]} of {found["drawn"]:,} nuclei' if nuclei else 'slide alone'
                print(
                    f'zoom {zoom}, {seen}: {middle:.1f} ms a frame (median), {slow:.1f} (95 %), '
                    f'{worst:.1f} (longest)'
                )
            browser.close()
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(10)


@exit_code
def main(argv: Sequence[str] | None = None) -> int:
    parser = ArgumentParser(description=summary_of(__doc__))
    parser.add_argument('--nuclei', type=int, default=1_000_000)
    parser.add_argument('--seconds', type=float, default=5.0, help='of moving at each zoom')
    parser.add_argument('--keep', type=Path, help='make the results here, or take those there')
    args = parser.parse_args(argv)
    if args.nuclei < 1:
        raise UserError(f'--nuclei {args.nuclei}: expected at least 1')
    with tempfile.TemporaryDirectory() as name:
        folder = args.keep or Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / 'slide.summary.json').is_file():
            started = time.perf_counter()
            write_results(folder, args.nuclei)
            print(f'results written: {time.perf_counter() - started:.1f} s')
        measure(folder, args.seconds)
    return 0


if __name__ == '__main__':
    raise SystemExit(main())
