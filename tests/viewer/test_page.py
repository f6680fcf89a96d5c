"""The page in a real browser, and the command that serves it.

Chromium is Debian's or the machine's; Playwright drives it. Where there is none these tests
fail: they are what tells whether the page works.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
import pytest
from playwright.sync_api import sync_playwright

from nucseg_mmdet.commands.view import main
from nucseg_mmdet.inference.features import FEATURES
from tests.viewer.conftest import NAME, write_results

ROOT = Path(__file__).parents[2]
BROWSERS = ('chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable')
GREEN = (0, 158, 115)  # of the nuclei of a slide with one class
LOW, HIGH = (30, 80, 230), (255, 235, 40)  # the ends of the colors of a measurement
PATIENCE = 60  # s
WHOLE = """() => {
  const { layer, viewer } = window.nucseg ?? {};
  return layer && viewer.world.getItemAt(0)?.getFullyLoaded()
    && layer.canvas.dataset.mode !== undefined && !layer.canvas.dataset.behind
    && !layer.moving && !layer.store.running.size;
}"""


@contextmanager
def served(folder):
    """The address at which the command serves a folder."""
    command = [sys.executable, str(ROOT / 'tools' / 'view.py'), str(folder)]
    env = {**os.environ, 'PYTHONPATH': str(ROOT)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=env) as server:
        try:
            yield re.search(r'http://127\.0\.0\.1:\d+/\S+/', server.stdout.readline())[0]
        finally:
            server.send_signal(signal.SIGINT)
            assert server.wait(PATIENCE) == 0


@pytest.fixture(scope='module')
def address(tmp_path_factory):
    """Where the command serves two slides, with a class of their own in the second."""
    folder = tmp_path_factory.mktemp('page')
    write_results(folder)
    half = dict(lefts=[0, 1300], widths=[1300, 1300], tops=[0], heights=[1800], looked_at=['10'])
    write_results(folder, 'second', tile_grid=half)
    path = folder / 'second.geojson'
    lines = path.read_text().splitlines(keepends=True)
    marked = [line.replace('"name":"Nucleus"', '"name":"<i>Tumor"') for line in lines[:101]]
    path.write_text(''.join(marked + lines[101:]))
    with served(folder) as found:
        yield found


@pytest.fixture(scope='module')
def browser():
    path = next((path for path in map(shutil.which, BROWSERS) if path), None)
    assert path, f'no browser, expected one of {", ".join(BROWSERS)}'
    with sync_playwright() as playwright:
        options = ['--no-sandbox', '--disable-gpu']
        browser = playwright.chromium.launch(executable_path=path, args=options)
        yield browser
        browser.close()


class Reader:
    """A page as its reader has it before him."""

    def __init__(self, page, address):
        self.page, self.address, self.problems, self.requests = page, address, [], []
        page.on('pageerror', lambda error: self.problems.append(str(error)))
        page.on('console', self._note)
        page.on('request', lambda request: self.requests.append(request.url))

    def _note(self, message):
        if message.type == 'error' and 'not wanted any more' not in message.text:
            self.problems.append(message.text)

    def open(self, hash=''):
        self.page.goto('about:blank')
        self.page.goto(self.address + hash)
        self.settle()

    def until(self, script, argument=None):
        stop = time.monotonic() + PATIENCE
        while not self.page.evaluate(script, argument):
            assert time.monotonic() < stop, (script, self.problems)
            self.page.wait_for_timeout(50)

    def settle(self):
        """Wait until all that is wanted is drawn, twice: a change begins with the next frame."""
        for _ in range(2):
            self.page.wait_for_timeout(150)
            self.until(WHOLE)

    def text(self, selector):
        return self.page.inner_text(selector).replace('\u202f', '')

    def all(self, selector, attribute):
        return self.page.eval_on_selector_all(selector, f'all => all.map((one) => one.{attribute})')

    def mode(self):
        return self.page.evaluate('nucseg.layer.canvas.dataset.mode')

    def screen(self, x, y):
        """Where a point of the slide is on the screen."""
        place = self.page.evaluate('nucseg.layer.place()')
        return (x - place['x']) * place['scale'], (y - place['y']) * place['scale']

    def pixels(self):
        """A picture of the screen: uint8, (H, W, 3), RGB."""
        data = np.frombuffer(self.page.screenshot(), np.uint8)
        return cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1]

    def is_near(self, x, y, color, within=3):
        """Whether a color is seen around a point of the slide."""
        px, py = (round(v) for v in self.screen(x, y))
        part = self.pixels()[py - within : py + within + 1, px - within : px + within + 1]
        return (np.abs(part.astype(int) - color).max(axis=2) < 40).any()


@pytest.fixture
def reader(browser, address):
    context = browser.new_context(viewport=dict(width=1300, height=800), accept_downloads=True)
    reader = Reader(context.new_page(), address)
    yield reader
    context.close()
    assert not reader.problems
    asked = [url for url in reader.requests if url.startswith('http')]
    assert [url for url in asked if not url.startswith(address)] == []


def at(x, y, zoom, **more):
    parts = dict(x=x, y=y, zoom=zoom, **more)
    return '#' + '&'.join(f'{key}={value}' for key, value in parts.items())


def test_opens_with_the_slide_and_its_nuclei(reader):
    reader.open()
    assert reader.text('#title') == NAME  # as text: a name is no HTML
    assert reader.text('#count') == reader.text('#in-view') == '468'
    assert re.search(r'2600 . 1800 px, 0\.25 µm a pixel', reader.text('#facts'))
    assert any('/image/' in url for url in reader.requests)
    assert reader.is_near(1025, 1000, (200, 170, 210)[::-1])  # the slide's own color, RGB
    assert reader.mode() == 'outlines'


FAIL_ONCE = """
let failed = false;
self.onmessage = (event) => {
  if (failed) return work(event);
  failed = true;
  throw new Error('on purpose');
};"""


def test_a_picture_that_fails_holds_up_no_other(reader):
    source = (ROOT / 'nucseg_mmdet/viewer/static/painter.js').read_text()
    body = source.replace('self.onmessage =', 'const work =') + FAIL_ONCE
    reader.page.route(
        '**/painter.js', lambda route: route.fulfill(body=body, content_type='text/javascript')
    )
    reader.open(at(1300, 900, 4))
    reader.page.evaluate('nucseg.viewer.viewport.zoomBy(0.5)')
    reader.settle()
    assert reader.is_near(1262, 850, GREEN)
    assert reader.problems
    assert all('on purpose' in problem for problem in reader.problems)
    reader.problems.clear()


@pytest.mark.parametrize('zoom', [0.42, 0.3, 0.7, 1.3])
def test_pixels_lie_where_the_nuclei_are(reader, zoom):
    """On all tiles, not only at their upper left."""
    reader.open(at(1300, 900, zoom, show=''))
    dark = 200 - reader.pixels()[:, :1000, 0].astype(float).clip(120, 200)
    half, apart = round(25 * zoom), []
    for x, y in np.stack(np.mgrid[0:26, 0:18], -1).reshape(-1, 2) * 100 + 50:
        px, py = reader.screen(x, y)
        if not (200 < px < 800 - half and 80 < py < 700):  # beneath no button
            continue
        left, top = round(px) - half, round(py) - half
        part = dark[top : top + 2 * half, left : left + 2 * half]
        down, across = np.mgrid[: 2 * half, : 2 * half] + 0.5
        middle = (part * across).sum() / part.sum(), (part * down).sum() / part.sum()
        apart.append((left + middle[0] - px, top + middle[1] - py))
    assert len(apart) > 10
    assert np.abs(apart).max() < 0.15  # screen px


def test_zoom_changes_what_is_drawn(reader):
    reader.open(at(1300, 900, 4))
    assert reader.mode() == 'outlines'
    assert reader.is_near(1262, 850, GREEN)  # the right side of the nucleus at 1250, 850
    assert not reader.is_near(1250, 850, GREEN)  # and not its middle
    reader.open(at(1300, 900, 0.15))
    assert reader.mode() == 'dots'
    assert reader.is_near(1250, 850, GREEN)
    assert not reader.is_near(1300, 900, GREEN)  # between nuclei
    reader.open(at(1300, 900, 0.05))
    assert reader.mode() == 'density'
    assert not reader.is_near(1250, 850, GREEN)
    reader.page.keyboard.press('n')
    reader.settle()
    bare = reader.pixels()
    reader.page.keyboard.press('n')
    reader.settle()
    x, y = (round(v) for v in reader.screen(1300, 900))
    assert np.abs(reader.pixels()[y, x].astype(int) - bare[y, x]).max() > 30  # the heat map


def test_buttons_and_wheel_zoom(reader):
    reader.open(at(1300, 900, 0.5))
    scales = [0.5]

    def note():
        reader.settle()
        scales.append(reader.page.evaluate('nucseg.layer.place().scale'))

    reader.page.click('#zoom-in')
    note()
    reader.page.mouse.move(500, 400)
    reader.page.mouse.wheel(0, -100)
    note()
    reader.page.click('#full-size')
    note()
    reader.page.keyboard.press('-')
    note()
    assert scales[1] == pytest.approx(0.75, rel=0.01)
    assert scales[2] > 1.2 * scales[1]
    assert scales[3] == pytest.approx(1, rel=0.01)
    assert scales[4] == pytest.approx(1 / 1.5, rel=0.01)


@pytest.mark.parametrize('score', [0.6, 0.7, 0.853, 0.999, 1.0])
def test_slider_counts_what_the_table_says(reader, rows, score):
    reader.open()
    reader.page.fill('#score', str(score))
    reader.settle()
    want = sum(float(row['score']) >= score for row in rows)
    assert reader.text('#count') == str(want)
    reader.until('want => document.querySelector("#in-view").textContent === want', str(want))
    assert reader.page.evaluate('Number(nucseg.layer.canvas.dataset.drawn)') == want
    assert f'score={score:g}' in reader.page.evaluate('location.hash')


def test_slider_hides_what_is_below(reader, rows):
    # The first nucleus has the score 0.6, the 100th 0.699.
    reader.open(at(150, 50, 4))
    assert reader.is_near(62, 50, GREEN)
    reader.page.fill('#score', '0.601')
    reader.settle()
    assert not reader.is_near(62, 50, GREEN)
    assert reader.is_near(162, 50, GREEN)


def test_click_shows_the_row_of_the_table(reader, rows):
    reader.open(at(1300, 900, 2))
    reader.page.mouse.click(*reader.screen(1258, 845))  # within the nucleus at 1250, 850
    reader.until('() => document.querySelector("#nucleus td")')
    row = next(
        row
        for row in rows
        if row['centroid_x_px'] == '1250.00' and row['centroid_y_px'] == '850.00'
    )
    names = reader.page.eval_on_selector_all(
        '#nucleus th', 'all => all.map((one) => one.dataset.name)'
    )
    texts = reader.page.eval_on_selector_all(
        '#nucleus td', 'all => all.map((one) => one.textContent)'
    )
    assert dict(zip(names, texts, strict=True)) == row
    reader.settle()
    assert f'nucleus={row["id"]}' in reader.page.evaluate('location.hash')
    reader.page.mouse.click(*reader.screen(1300, 900))  # between nuclei
    reader.until('() => !document.querySelector("#nucleus td")')


def test_link_reopens_the_view(reader):
    reader.open()
    reader.page.fill('#score', '0.75')
    reader.page.select_option('#color', 'area_um2')
    reader.page.keyboard.press('+')
    reader.page.keyboard.press('ArrowRight')
    reader.page.mouse.click(*reader.screen(1050, 850))
    reader.settle()
    reader.page.wait_for_timeout(400)
    link, seen = reader.page.evaluate('location.hash'), reader.pixels()
    place = reader.page.evaluate('nucseg.layer.place()')
    reader.open(link)
    reader.page.wait_for_timeout(400)
    assert reader.page.evaluate('location.hash') == link
    again = reader.page.evaluate('nucseg.layer.place()')
    assert again['x'] == pytest.approx(place['x'], abs=1)
    assert again['scale'] == pytest.approx(place['scale'], rel=1e-3)
    assert np.abs(reader.pixels()[:, :1000].astype(int) - seen[:, :1000]).mean() < 4


def test_go_to(reader):
    reader.open()
    reader.page.keyboard.press('c')
    reader.page.keyboard.type('2050, 1650')
    reader.page.keyboard.press('Enter')
    reader.settle()
    x, y = reader.screen(2050, 1650)
    assert (x, y) == (pytest.approx(500, abs=2), pytest.approx(400, abs=2))
    assert reader.page.inner_text('#nucleus td >> nth=1') == '2050.00'
    reader.page.fill('#go-text', 'there')
    reader.page.keyboard.press('Enter')
    assert reader.page.evaluate('document.querySelector("#go-text").validity.customError')


@pytest.mark.parametrize('text', ['50000, 60000', '-1 5', '1e9,1e9'])
def test_go_to_stays_on_the_slide(reader, text):
    reader.open(at(1300, 900, 2))
    before = reader.page.evaluate('nucseg.layer.place()')
    reader.page.fill('#go-text', text)
    reader.page.press('#go-text', 'Enter')
    told = reader.page.evaluate('document.querySelector("#go-text").validationMessage')
    assert '2600 × 1800 px' in told.replace('\u202f', '')  # noqa: RUF001
    reader.settle()
    assert reader.page.evaluate('nucseg.layer.place()') == before
    reader.page.fill('#go-text', '50 50')
    reader.page.press('#go-text', 'Enter')
    reader.until('() => document.querySelector("#nucleus td")')


def test_link_to_a_place_that_is_not_on_the_slide(reader):
    reader.open(at(50000, 60000, 2))
    assert 'x 50000, y 60000 px is not on this slide of 2600' in reader.text('#message')
    assert reader.page.evaluate('nucseg.layer.place().scale') == pytest.approx(1000 / 2600)
    assert 'x=50000&y=60000&zoom=2' in reader.page.evaluate('location.hash')


@pytest.mark.parametrize(('asked', 'scale'), [(1e9, 8), (1e-9, 64 / 2600), (-1, 64 / 2600)])
def test_zoom_of_a_link_is_brought_into_its_range(reader, asked, scale):
    reader.open(at(1300, 900, asked))
    assert reader.page.evaluate('nucseg.layer.place().scale') == pytest.approx(scale, rel=1e-3)


def test_histogram_of_the_view(reader, rows):
    reader.open(at(500, 450, 1))
    reader.page.select_option('#measurement', 'area_um2')
    reader.settle()
    seen = [
        row for row in rows
        if 0 <= float(row['centroid_x_px']) < 1000 and 50 <= float(row['centroid_y_px']) < 850
    ]  # fmt: skip
    reader.until('want => document.querySelector("#in-view").textContent === want', str(len(seen)))
    bins = reader.page.eval_on_selector_all(
        '#histogram rect', 'all => all.map((one) => +one.dataset.count)'
    )
    assert sum(bins) == len(seen)
    values = [float(row['area_um2']) for row in seen]
    assert f'median {np.median(values):g}' in reader.text('#histogram figcaption')


def test_scale_bar_is_as_long_as_it_says(reader):
    reader.open(at(1300, 900, 1))
    # 160 screen px are 40 microns; the longest of 1, 2, 5, 10, ... is 20: 80 px.
    assert reader.text('#scale-bar span') == '20 µm'
    assert reader.page.evaluate('document.querySelector("#scale-bar i").offsetWidth') == 80
    assert reader.text('#magnification')[:-1] == '40'


@pytest.mark.parametrize(
    ('name', 'low', 'high'),
    [
        ('area_um2', (50, 850), (2550, 850)),
        ('score', (50, 50), (950, 1550)),
        ('hematoxylin_od_mean', (1250, 50), (1250, 1750)),
        ('eosin_od_mean', (1250, 1750), (1250, 50)),
    ],
)
def test_color_by_a_measurement(reader, name, low, high):
    reader.open(at(1300, 900, 0.15))
    reader.page.select_option('#color', name)
    reader.settle()
    for place, color, other in ((low, LOW, HIGH), (high, HIGH, LOW)):
        assert reader.is_near(*place, color)
        assert not reader.is_near(*place, other)
    assert reader.page.input_value('#measurement') == name  # its histogram, in the same colors
    fills = reader.all('#histogram rect', 'getAttribute("fill")')
    assert len(set(fills)) == len(fills)


def test_scale_of_the_heat_map_is_the_slide_s(reader):
    # The nuclei from 0.95 on lie in a few rows; the scale is that of all 468, on either way there.
    reader.open(at(1300, 900, 0.05))
    scale = reader.text('#legend .ends')
    assert 'nuclei per mm' in scale
    reader.page.fill('#score', '0.95')
    reader.settle()
    reader.page.wait_for_timeout(400)
    link, seen = reader.page.evaluate('location.hash'), reader.pixels()
    assert 'score=0.95&' in link
    assert reader.text('#legend .ends') == scale
    reader.open(link)
    assert reader.text('#legend .ends') == scale
    # The slide's own pixels may come from another level of it, so means of 15 px are compared.
    blurred, other = (cv2.blur(one[:, :1000], (15, 15)) for one in (reader.pixels(), seen))
    assert cv2.absdiff(blurred, other).max() < 12


def test_heat_map_of_a_measurement(reader):
    reader.open(at(1300, 900, 0.05, color='area_um2'))
    assert reader.mode() == 'density'
    pixels = reader.pixels().astype(int)
    places = [[round(v) for v in reader.screen(x, 900)] for x in (250, 2350)]
    (red, _, blue), (other_red, _, other_blue) = (pixels[y, x] for x, y in places)
    assert blue > other_blue + 60
    assert other_red > red + 60


def test_overview_moves_the_view(reader):
    reader.open(at(1300, 900, 2))
    box = reader.page.locator('.navigator').bounding_box()
    # Its picture has the slide's shape, in the middle of the box.
    scale = min(box['width'] / 2600, box['height'] / 1800)
    middle = box['x'] + box['width'] / 2, box['y'] + box['height'] / 2
    reader.page.mouse.click(middle[0] + (1900 - 1300) * scale, middle[1] + (500 - 900) * scale)
    reader.page.wait_for_timeout(800)
    reader.settle()
    x, y = reader.screen(1900, 500)
    assert (x, y) == (pytest.approx(500, abs=60), pytest.approx(400, abs=60))  # 30 px of the slide


def test_keys(reader):
    reader.open(at(1300, 900, 2))

    def press(key):
        reader.page.keyboard.press(key)
        reader.page.wait_for_timeout(700)
        reader.settle()
        place = reader.page.evaluate('nucseg.layer.place()')
        return tuple(round(place[name], 3) for name in ('x', 'y', 'scale'))

    # The view is 500 x 400 px of the slide, from 1050, 700 on; an arrow moves it by a quarter.
    near = dict(abs=2)
    assert press('ArrowRight') == pytest.approx((1175, 700, 2), **near)
    assert press('ArrowDown') == pytest.approx((1175, 800, 2), **near)
    assert press('ArrowLeft') == pytest.approx((1050, 800, 2), **near)
    assert press('ArrowUp') == pytest.approx((1050, 700, 2), **near)
    assert press('=')[2] == pytest.approx(3, rel=0.01)
    assert press('1')[2] == pytest.approx(1, rel=0.01)
    assert press('0')[2] == pytest.approx(1000 / 2600, rel=0.01)
    press('[')
    assert reader.text('#title') == 'second'  # the one before the first
    press('f')
    assert reader.page.evaluate('document.fullscreenElement?.id') == 'stage'
    press('f')
    assert reader.page.evaluate('document.fullscreenElement') is None


def test_keys_work_after_the_slider_was_used(reader):
    reader.open()
    reader.page.click('#score')
    reader.page.keyboard.press('n')
    assert not reader.page.is_checked('[data-switch=nuclei]')
    # The arrows are the slider's, until Escape.
    place, score = (
        reader.page.evaluate(of) for of in ('nucseg.layer.place()', 'nucseg.state.score')
    )
    reader.page.keyboard.press('ArrowRight')
    reader.settle()
    assert reader.page.evaluate('nucseg.state.score') > score
    assert reader.page.evaluate('nucseg.layer.place()') == place
    reader.page.keyboard.press('Escape')
    reader.page.keyboard.press('ArrowRight')
    reader.page.wait_for_timeout(700)
    assert reader.page.evaluate('nucseg.layer.place().x') > place['x']


def test_letters_are_keys_with_shift_too_and_text_in_a_field(reader):
    reader.open()
    shown = '[data-switch=nuclei]'
    reader.page.keyboard.press('Shift+N')
    assert not reader.page.is_checked(shown)
    reader.page.keyboard.press('N')  # as with Caps Lock
    assert reader.page.is_checked(shown)
    reader.page.keyboard.press('Control+Shift+N')
    reader.page.keyboard.press('Alt+n')
    assert reader.page.is_checked(shown)
    reader.page.keyboard.press('C')
    reader.page.keyboard.type('nNtT')
    assert reader.page.input_value('#go-text') == 'nNtT'
    # A list of choices takes the arrows alone.
    chosen = reader.page.input_value('#color')
    reader.page.focus('#color')
    reader.page.keyboard.press('n')
    assert not reader.page.is_checked(shown)
    assert reader.page.input_value('#color') == chosen


def test_second_slide_and_its_classes(reader):
    reader.open()
    reader.page.keyboard.press(']')
    reader.page.wait_for_timeout(500)
    reader.settle()
    assert reader.text('#title') == 'second'
    labels = reader.page.locator('#legend label').all_inner_texts()
    assert [label.split() for label in labels] == [['<i>Tumor', '100'], ['Nucleus', '368']]
    reader.page.uncheck('[data-class="0"]')
    reader.settle()
    assert reader.text('#count') == '368'
    reader.page.click('#slides button >> nth=0')
    reader.page.wait_for_timeout(500)
    reader.settle()
    assert reader.text('#title') == NAME


def test_focus_stays_on_a_control_that_was_used(reader):
    focus = 'document.activeElement.textContent || document.activeElement.dataset.class'
    reader.open('#slide=second')
    reader.page.focus('[data-class="1"]')
    for count in ('100', '468'):
        reader.page.keyboard.press('Space')
        assert reader.text('#count') == count
        reader.settle()
        assert reader.page.evaluate(focus) == '1'
    reader.page.focus('#slides button >> nth=0')
    reader.page.keyboard.press('Enter')
    reader.until('name => window.nucseg.slide?.name === name', NAME)
    reader.settle()
    assert reader.page.evaluate(focus) == f'{NAME}468'
    reader.page.focus('#picture')
    with reader.page.expect_download():
        reader.page.keyboard.press('Enter')
    assert reader.page.evaluate(focus) == 'Save picture'


def test_what_takes_the_focus_has_a_name(reader):
    reader.open('#slide=second')
    names = reader.page.evaluate(
        """() => [...document.querySelectorAll('*')]
          .filter((one) => one.tabIndex >= 0 && one.checkVisibility())
          .map((one) => one.getAttribute('aria-label')
            ?? (one.labels?.[0] ?? one).textContent.trim())"""
    )
    assert 'Slide: arrows move, plus and minus zoom' in names
    assert len(names) > 15
    assert all(names)


def test_nothing_of_a_slide_stays_beside_another(browser, tmp_path):
    for name in 'abc':
        write_results(tmp_path, name)
    table = tmp_path / 'b.csv'
    table.write_text(''.join(table.read_text().splitlines(keepends=True)[:-5]))
    context = browser.new_context(viewport=dict(width=1300, height=800))
    with served(tmp_path) as address:
        reader = Reader(context.new_page(), address)
        reader.open(at(50, 50, 2, slide='a', nucleus=1))
        reader.until("document.querySelectorAll('#nucleus td').length > 0")
        reader.page.keyboard.press(']')  # b is damaged
        reader.until("document.getElementById('message').textContent.includes('b.csv')")
        shown = [reader.text(f'#{name}') for name in ('title', 'count', 'facts', 'histogram')]
        assert shown == ['b', '', '', '']
        assert 'Click one' in reader.text('#nucleus')
        reader.page.click('#link')  # of which there is none
        reader.page.keyboard.press(']')
        reader.page.wait_for_timeout(500)
        reader.settle()
        assert (reader.text('#title'), reader.text('#count')) == ('c', '468')
        assert 'Click one' in reader.text('#nucleus')
    context.close()
    assert [one for one in reader.problems if 'status of 422' not in one] == []


def test_page_that_is_loaded_again_lists_the_slides_of_then(browser, tmp_path):
    write_results(tmp_path, 'b')
    write_results(tmp_path, 'c')
    context = browser.new_context(viewport=dict(width=1300, height=800))
    with served(tmp_path) as address:
        reader, open_before = (Reader(context.new_page(), address) for _ in range(2))
        open_before.open()
        reader.open()
        (tmp_path / 'b.summary.json').unlink()
        write_results(tmp_path, 'a')
        reader.open('#slide=a')
        assert reader.all('#slides span', 'textContent') == ['a', 'c']
        assert reader.text('#title') == 'a'
        for key, title in ((']', 'c'), (']', 'a'), ('[', 'c')):
            reader.page.keyboard.press(key)
            reader.until('title => document.getElementById("title").textContent === title', title)
        open_before.page.keyboard.press(']')  # the numbers are those of before
        open_before.until('window.nucseg.slide?.name === "c"')
        open_before.page.keyboard.press('[')
        open_before.until(
            'document.getElementById("message").textContent.startsWith("b: no longer")'
        )
        open_before.problems.clear()
        for name in 'ac':
            (tmp_path / f'{name}.summary.json').unlink()
        reader.page.reload()
        reader.until('document.getElementById("message").textContent.startsWith("No slides in")')
        assert 'expected the results of nucseg segment' in reader.text('#problems')
    context.close()
    assert not reader.problems


def test_columns_have_names_of_words_with_units(reader):
    reader.open()
    script = 'async (names) => names.map((await import("./panel.js")).columnText)'
    shown = reader.page.evaluate(script, ['area_um2', 'hematoxylin_od_mean', *FEATURES])
    assert shown == [
        'area, µm²',
        'hematoxylin mean, OD',
        'distance to the nearest, µm',
        'mean distance to 5 nearest, µm',
        'other nuclei within 25 µm',
        'nuclei per mm² within 50 µm',
        'Delaunay neighbors',
        'hematoxylin SD, OD',
        'eosin SD, OD',
        'hematoxylin contrast',
    ]


def test_switches(reader):
    reader.open(at(1300, 900, 4))
    before = reader.pixels()
    x, y = (round(v) for v in reader.screen(1250, 850))
    reader.page.keyboard.press('i')
    reader.settle()
    filled = reader.pixels()[y, x].astype(int)
    assert (np.abs(filled - (0.65 * before[y, x] + 0.35 * np.array(GREEN))) < 4).all()
    reader.page.keyboard.press('t')
    reader.until('() => nucseg.state.tissue')
    reader.until(
        'performance.getEntriesByType("resource").some((one) => one.name.endsWith("tissue.json"))'
    )
    assert reader.page.is_disabled('[data-switch=skipped]')  # this run did not say which


def test_hidden_nuclei_are_not_gone_to(reader):
    reader.open('#slide=second&hidden=0')  # the nucleus at 50, 50 is of this class
    reader.page.fill('#go-text', '50 50')
    for shown in (0, 1):
        reader.page.press('#go-text', 'Enter')
        reader.page.wait_for_timeout(500)
        reader.settle()
        assert (reader.page.locator('#nucleus tr').count() > 0) == shown
        reader.page.check('[data-class="0"]')


@pytest.mark.parametrize('zoom', [0.3, 1, 8])
def test_tissue_has_a_thin_line_around_it(reader, zoom):
    reader.open(at(0, 900, zoom))  # all of this slide is tissue: the line follows its edge
    y, x = 400, np.s_[400:600]  # across the edge
    before = reader.pixels()[y, x].astype(int)
    reader.page.keyboard.press('t')
    reader.until('nucseg.state.tissue')
    reader.settle()
    after = reader.pixels()[y, x].astype(int)
    changed = np.flatnonzero(np.abs(after - before).max(axis=1) > 10)
    assert 1 <= len(changed) <= 4  # screen px: 2, or 3 in part
    assert (np.abs(changed - 100) <= 3).all()
    assert np.abs(after - (0, 140, 0)).max(axis=1).min() < 40


def test_skipped_tiles(reader):
    # The second slide's run has left out the tile from x 1300 on, the right half.
    reader.open('#slide=second&x=1300&y=900&zoom=0.3')
    before = reader.pixels()
    reader.page.keyboard.press('l')
    reader.settle()
    after = reader.pixels()
    shares = []
    for x, y in ((1200, 900), (1400, 900)):
        px, py = (round(v) for v in reader.screen(x, y))
        shares.append(np.abs(after[py, px].astype(int) - before[py, px]).max())
    assert shares[0] == 0
    assert shares[1] > 20


def test_region_is_framed_opened_first_and_told(browser, tmp_path):
    write_results(tmp_path, identity=dict(region=[1000, 600, 500, 400]))
    context = browser.new_context(viewport=dict(width=1300, height=800))
    with served(tmp_path) as address:
        reader = Reader(context.new_page(), address)
        reader.open()
        left, top = reader.screen(1000, 600)
        right, bottom = reader.screen(1500, 1000)
        assert 0 < left < 100 < 900 < right < 1000
        assert 0 < top < bottom < 800
        assert 'region 1000, 600, 500 × 400 px' in reader.text('#facts')  # noqa: RUF001
        reader.open(at(1000, 900, 1))  # the link says where
        x, y = reader.screen(1000, 900)
        assert (x, y) == (pytest.approx(500, abs=2), pytest.approx(400, abs=2))
        assert reader.is_near(1000, 900, (0, 0, 0), within=1)  # the frame, between nuclei
        pixels = reader.pixels().astype(int)
        (inside, outside) = (pixels[400, round(500 + shift)] for shift in (10, -10))
        assert np.abs(inside - (210, 170, 200)).max() < 8
        # 110 / 255 of the shade, 70, 70, 78, over it.
        assert np.abs(outside - (150, 127, 147)).max() < 8
    context.close()
    assert not reader.problems


def picture_of(download):
    """A saved picture: uint8, (H, W, 3), RGB."""
    data = np.frombuffer(Path(download.value.path()).read_bytes(), np.uint8)
    return cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1]


def test_saved_picture_is_the_view(reader):
    reader.open(at(1300, 900, 2))
    with reader.page.expect_download() as download:
        reader.page.click('#picture')
    assert re.fullmatch(r'[\w.-]+\.png', download.value.suggested_filename)
    picture = picture_of(download)
    assert picture.shape == (800, 1000, 3)
    seen = reader.pixels()[150:700, 300:800].astype(int)  # without buttons and overview
    assert np.abs(picture[150:700, 300:800] - seen).mean() < 3


def open_held(reader, hash, pattern, **answer):
    """Open a view some of whose parts do not come, until the returned function is called.

    They come as they are, or as an answer of one's own.
    """
    held = []

    def let(route):
        if held is None:
            route.continue_()
        else:
            held.append(route)

    def let_go():
        nonlocal held
        routes, held = held, None
        for route in routes:
            route.fulfill(**answer) if answer else route.continue_()

    reader.page.route(pattern, let)
    reader.page.goto(reader.address + hash)
    stop = time.monotonic() + PATIENCE
    while not held or not reader.page.evaluate('Boolean(window.nucseg?.layer)'):
        assert time.monotonic() < stop
        reader.page.wait_for_timeout(50)
    return let_go


@pytest.mark.parametrize(
    ('pattern', 'zoom', 'more'),
    [
        ('**/tiles/0/*', 2, {}),
        ('**/image/*/*', 2, {}),
        ('**/density?*', 0.05, {}),
        ('**/tissue.json', 0.3, dict(show='nuclei,tissue')),
    ],
)
def test_picture_is_saved_when_all_of_the_view_is_drawn(reader, pattern, zoom, more):
    let_go = open_held(reader, at(1300, 900, zoom, **more), pattern)
    with reader.page.expect_download() as download:
        reader.page.keyboard.press('p')
        let_go()
    reader.settle()
    # What of the slide lies beneath no button.
    left, top = (max(150, round(v) + 2) for v in reader.screen(0, 0))
    right, bottom = (min(700, round(v) - 2) for v in reader.screen(2600, 1800))
    part = np.s_[top:bottom, left:right]
    apart = np.abs(picture_of(download)[part].astype(int) - reader.pixels()[part]).max(axis=2)
    assert (apart > 40).mean() < 0.001  # outlines alone are 1 %


def test_page_says_while_nuclei_are_still_to_come(reader):
    let_go = open_held(reader, at(1300, 900, 2), '**/tiles/0/*')
    reader.until('Number(document.getElementById("in-view").textContent) > 0')
    assert reader.page.is_visible('#drawing')
    let_go()
    reader.settle()
    assert not reader.page.is_visible('#drawing')


@pytest.mark.parametrize('part', ['**/tiles/0/*', '**/image/12/*'])
def test_no_picture_is_saved_of_what_does_not_come(reader, part):
    downloads = []
    reader.page.on('download', lambda download: downloads.append(download))
    answer = dict(status=500, json=dict(error='on purpose'))
    let_go = open_held(reader, at(1300, 900, 2), part, **answer)
    reader.page.keyboard.press('p')
    let_go()
    reader.until('document.getElementById("message").textContent.includes("No picture is saved")')
    assert 'on purpose' in reader.text('#message')
    assert reader.text('#picture') == 'Save picture'
    assert not downloads
    told = ('status of 500', 'failed to load')
    assert all(any(words in problem for words in told) for problem in reader.problems)
    reader.problems.clear()


@pytest.mark.parametrize(
    ('place', 'asked'),
    [
        (at(1300, 900, 2), '**/tiles/0/*'),
        (at(1300, 900, 0.05), '**/slides/*/density*'),
        (at(1300, 900, 2), '**/image/12/*'),
        (at(1300, 900, 0.05), '**/image/*/*'),
    ],
    ids=['nuclei', 'heat map', 'finest level of the slide', 'slide from afar'],
)
def test_a_picture_is_saved_when_what_failed_has_come(reader, place, asked):
    reader.page.route(asked, lambda route: route.fulfill(status=500, json=dict(error='no')))
    reader.page.goto(reader.address + place)
    reader.until('window.nucseg?.layer')
    reader.page.keyboard.press('p')
    reader.until('document.getElementById("message").textContent.includes("No picture")')
    reader.page.unroute(asked)
    reader.page.wait_for_timeout(4_500)  # it is asked for again after 4 s
    with reader.page.expect_download():
        reader.page.keyboard.press('p')
    assert not reader.page.is_visible('#message')
    reader.problems.clear()


LATER = """() => {
  const now = performance.now.bind(performance);
  performance.now = () => now() + 5000;
}"""  # when what failed is asked for again


def test_no_picture_is_saved_of_a_slide_whose_pixels_do_not_come(browser, folder):
    slide, away = folder / f'{NAME}.png', folder / 'away'
    context = browser.new_context(viewport=dict(width=1300, height=800), accept_downloads=True)
    with served(folder) as address:
        reader, downloads = Reader(context.new_page(), address), []
        reader.page.on('download', lambda one: downloads.append(one))
        reader.open(at(1300, 900, 0.3))
        slide.rename(away)
        reader.page.keyboard.press('1')
        said = 'document.getElementById("message").textContent'
        reader.until(f'{said}.startsWith("Pixels of the slide in view are missing: ")')
        reader.page.keyboard.press('p')
        reader.until(f'{said}.startsWith("No picture is saved. Pixels of the slide in view are")')
        assert reader.text('#message').count('Pixels of the slide') == 1
        reader.page.evaluate(LATER)
        asked = len(reader.requests)
        reader.page.keyboard.press('p')  # asked for again, in vain
        reader.until('document.getElementById("picture").textContent === "Save picture"')
        assert 'No picture is saved' in reader.text('#message')
        assert any('/image/' in url for url in reader.requests[asked:])
        assert not downloads
        away.rename(slide)
        reader.page.evaluate(LATER)
        with reader.page.expect_download() as download:
            reader.page.keyboard.press('p')
        assert np.abs(picture_of(download)[400, 500].astype(int) - (210, 170, 200)).max() < 8
        assert not reader.page.is_visible('#message')
    context.close()
    assert all(str(slide) in one or 'status of 422' in one for one in reader.problems)


def test_saving_a_picture_does_not_end_what_the_page_says(browser, folder):
    server = run_command(folder)
    address = re.search(r'http://\S+', server.stdout.readline())[0]
    context = browser.new_context(viewport=dict(width=1300, height=800), accept_downloads=True)
    reader, downloads = Reader(context.new_page(), address), []
    reader.page.on('download', lambda one: downloads.append(one))
    reader.open(at(1300, 900, 1))
    server.send_signal(signal.SIGINT)
    assert server.wait(PATIENCE) == 0
    server.communicate()
    said = 'document.getElementById("message").textContent'
    reader.page.mouse.click(*reader.screen(1250, 850))  # its row is asked for
    reader.until(f'{said}.startsWith("No answer: nucseg view has ended")')
    with reader.page.expect_download():
        reader.page.keyboard.press('p')  # all of this view has come before
    assert 'nucseg view has ended' in reader.text('#message')
    for _ in range(2):
        reader.page.keyboard.press('ArrowRight')
    reader.until(f'{said}.startsWith("Pixels of the slide in view are missing: No answer")')
    reader.page.keyboard.press('p')
    reader.until(f'{said}.startsWith("No picture is saved. ")')
    assert 'nucseg view has ended' in reader.text('#message')
    assert len(downloads) == 1
    context.close()


def test_requests_of_tiles_out_of_sight_are_dropped(reader):
    reader.open(at(500, 450, 1))
    dropped = []
    reader.page.on('requestfailed', lambda request: dropped.append(request.url))
    hold = []
    reader.page.route('**/tiles/0/2_1*', lambda route: hold.append(route))
    reader.page.route('**/image/12/4_*', lambda route: hold.append(route))
    reader.page.evaluate('nucseg.viewer.viewport.panTo(new OpenSeadragon.Point(0.9, 0.5), true)')
    stop = time.monotonic() + PATIENCE
    while len({'/tiles/' in route.request.url for route in hold}) < 2:
        assert time.monotonic() < stop
        reader.page.wait_for_timeout(50)
    reader.page.evaluate('nucseg.viewer.viewport.panTo(new OpenSeadragon.Point(0.15, 0.15), true)')
    while len({'/tiles/' in url for url in dropped}) < 2:
        assert time.monotonic() < stop
        reader.page.wait_for_timeout(50)
    reader.page.unroute_all()
    reader.page.evaluate('nucseg.viewer.viewport.panTo(new OpenSeadragon.Point(0.9, 0.5), true)')
    reader.settle()
    reader.until('() => nucseg.viewer.world.getItemAt(0).getFullyLoaded()')  # asked for again
    assert reader.is_near(2562, 850, GREEN)


def test_odd_address_opens_all_the_same(reader):
    reader.open('#x=a&zoom=-&score=7&color=none&measurement=none&hidden=x&nucleus=0&show=')
    assert reader.text('#title') == NAME
    assert reader.text('#count') == '0'  # score 1


def test_link_to_a_slide_that_is_not_here(reader):
    link = '#slide=none&x=700&y=700&zoom=2&score=0.9'
    reader.open(link)
    assert 'No slide none here' in reader.text('#message')
    assert reader.text('#title') == NAME  # the first, as it is opened without a link
    assert reader.page.evaluate('nucseg.layer.place().scale') == pytest.approx(1000 / 2600)
    assert reader.text('#count') == '468'
    reader.until('Number(document.getElementById("in-view").textContent) > 0')
    assert reader.page.evaluate('location.hash') == link
    reader.page.keyboard.press('+')
    reader.until('location.hash.startsWith("#slide=made")')
    assert not reader.page.is_visible('#message')


def run_command(folder, *arguments):
    command = [sys.executable, str(ROOT / 'tools' / 'view.py'), str(folder), *arguments]
    env = {**os.environ, 'PYTHONPATH': str(ROOT)}
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env
    )


def test_ctrl_c_ends_the_command_cleanly(folder):
    server = run_command(folder)
    first = server.stdout.readline()
    assert first.startswith('1 slide: http://127.0.0.1:')
    server.send_signal(signal.SIGINT)
    out, err = server.communicate(timeout=PATIENCE)
    assert (server.returncode, err) == (0, '')
    assert 'Traceback' not in out


def test_page_says_that_the_command_has_ended(browser, folder):
    server = run_command(folder)
    address = re.search(r'http://\S+', server.stdout.readline())[0]
    context = browser.new_context(viewport=dict(width=1300, height=800))
    reader, uncaught = Reader(context.new_page(), address), []
    reader.page.on('pageerror', lambda error: uncaught.append(str(error)))
    reader.open(at(1300, 900, 1))
    server.send_signal(signal.SIGINT)
    assert server.wait(PATIENCE) == 0
    server.communicate()
    for act in (
        lambda: reader.page.keyboard.press('ArrowRight'),  # counts the new view
        lambda: reader.page.mouse.click(*reader.screen(1450, 950)),
        lambda: reader.page.evaluate('nucseg.viewer.viewport.zoomTo(0.1, null, true)'),  # heat map
    ):
        reader.page.evaluate('document.querySelector("#message").textContent = ""')
        act()
        reader.until('document.querySelector("#message").innerText.includes("view has ended")')
    assert not uncaught
    context.close()


def test_each_start_has_another_token(folder):
    tokens = set()
    for _ in range(2):
        server = run_command(folder)
        tokens.add(server.stdout.readline().split('/')[3])
        server.send_signal(signal.SIGINT)
        server.communicate(timeout=PATIENCE)
    assert len(tokens) == 2
    assert min(map(len, tokens)) >= 32


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['none'], 'none: no such folder, expected the results of nucseg segment'),
        (['{folder}', 'none.svs'], 'none.svs: no such file or folder'),
        (['{folder}', '--port', '70000'], '--port 70000: expected 0 to 65535'),
    ],
)
def test_wrong_input_is_one_line_and_code_2(folder, capsys, arguments, message):
    assert main([text.format(folder=folder) for text in arguments]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert message in lines[0]


def test_taken_port_is_one_line_and_code_2(folder, capsys):
    import socket

    with socket.socket() as other:
        other.bind(('127.0.0.1', 0))
        other.listen()
        assert main([str(folder), '--port', str(other.getsockname()[1])]) == 2
    assert 'expected a free one' in capsys.readouterr().err
