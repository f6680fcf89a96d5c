/* The page: its state, what changes it, and the address that brings it back. */

import { readAddress, writeAddress } from './address.js';
import * as api from './api.js';
import { Drawing } from './drawing.js';
import { openViewer, Overlays, Pixels, SlideSource } from './image.js';
import { listenToKeys } from './keys.js';
import { Message } from './message.js';
import { Moves, readPlace, showsSome } from './moves.js';
import { NucleiLayer } from './nuclei.js';
import * as panel from './panel.js';
import { Rulers, scaleBar } from './rulers.js';

const { find } = panel;
const SETTLE = 150; // ms without a change before the view is counted
const CLICK = 8; // screen px beside a nucleus that still are a click on it

const state = {
  number: 0,
  score: 0,
  hidden: new Set(),
  color: 'class',
  measurement: 'area_um2',
  nuclei: true,
  fill: false,
  tissue: false,
  skipped: false,
  nucleus: null,
};
const viewer = openViewer(find('slide'));
const rulers = new Rulers(viewer);
const moves = new Moves(viewer);
const pixels = new Pixels(viewer);
const drawing = new Drawing(viewer, find('drawing'));
const message = new Message(find('message'));
const say = (text) => message.say(text);
let slides = [],
  slide = null,
  layer = null,
  overlays = null,
  opening = null,
  counting = null,
  unmet = null; // { address } of the view in place of what a link asked for and is not here

// ---- slides ---------------------------------------------------------------------------------

async function openSlide(number, wanted = {}) {
  opening?.abort();
  opening = new AbortController();
  const { signal } = opening;
  clearTimeout(counting?.timer);
  counting?.controller.abort();
  layer?.close();
  overlays?.close();
  viewer.close();
  watch([]);
  moves.watch(null);
  unmet = null;
  layer = overlays = slide = null;
  Object.assign(state, { number, nucleus: null });
  panel.showSlides(slides, number, (chosen) => openSlide(chosen));
  panel.showOpening(slides.find((one) => one.number === number).name);
  message.clear();
  say('Opening …');
  try {
    const found = await api.describeSlide(
      number,
      (done, total) =>
        say(
          `The nuclei are being indexed, once for this slide: ${total ? Math.round((100 * done) / total) : 0} %`,
        ),
      signal,
    );
    if (signal.aborted) return;
    slide = found;
  } catch (error) {
    if (!signal.aborted) say(error.message);
    return;
  }
  say(null);
  const { problem } = slide.picture;
  message.keep('slide', problem && `Nuclei without their slide: ${problem}`);
  if (wanted.missing) refuse(`No slide ${wanted.missing} here; this is ${slide.name}`);
  Object.assign(state, { hidden: wanted.hidden ?? new Set(), ...wanted.show });
  const has = (name) => slide.columns.some((column) => column.name === name);
  state.color =
    [wanted.color, state.color].find((name) => name === 'class' || has(name)) ?? 'class';
  state.measurement = [wanted.measurement, state.measurement].find(has) ?? slide.columns[0].name;
  state.score = Math.min(1, Math.max(0, Math.round(1000 * (wanted.score ?? 0)) / 1000));
  panel.showFacts(slide);
  panel.fillSelects(slide);
  viewer.addOnceHandler('open', () => startView(wanted));
  viewer.open(new SlideSource(slide, number));
}

// The address stays what it is until the view is moved.
function refuse(line) {
  unmet = { address: null };
  message.keep('link', line);
}

function startView(wanted) {
  overlays = new Overlays(viewer, slide, state.number);
  layer = new NucleiLayer(viewer, slide, state.number, state);
  watch([pixels, overlays, layer]);
  moves.watch(slide);
  moves.start();
  if (wanted.zoom) goToPlace(wanted);
  find('score').min = 0; // so that any value is taken; showScore has the real one
  showAll();
  if (wanted.nucleus) select(api.fetchNucleus(state.number, { id: wanted.nucleus }));
}

function goToPlace({ x, y, zoom }) {
  moves.goTo(x ?? slide.width / 2, y ?? slide.height / 2, zoom);
  if (showsSome(layer.place(), slide)) return;
  moves.start();
  refuse(`x ${x}, y ${y} px is not on this slide of ${panel.sizeText(slide)}`);
}

// ---- what follows a change --------------------------------------------------------------------

function showAll() {
  if (!layer) return;
  panel.showScore(slide, state);
  showLegend();
  find('color').value = state.color;
  find('measurement').value = state.measurement;
  for (const input of document.querySelectorAll('[data-switch]'))
    input.checked = state[input.dataset.switch];
  const missing = {
    tissue: slide.picture.problem,
    skipped: slide.facts.tile_grid
      ? null
      : 'The summary of this run does not say which tiles were left out.',
  };
  for (const [name, reason] of Object.entries(missing)) {
    const input = document.querySelector(`[data-switch=${name}]`);
    input.disabled = Boolean(reason);
    input.closest('label').title = reason ?? '';
  }
  overlays
    .show({ tissue: state.tissue, skipped: state.skipped })
    .catch((error) => say(error.message));
  layer.redraw();
  countLater();
}

function showLegend() {
  if (!layer) return;
  panel.showLegend(slide, state, layer.mode(layer.place().scale), (kind, on) => {
    state.hidden[on ? 'delete' : 'add'](kind);
    showAll();
  });
}

// Count the view and note its address, once nothing has changed for a moment.
function countLater() {
  clearTimeout(counting?.timer);
  counting?.controller.abort();
  const controller = new AbortController();
  counting = { controller, timer: setTimeout(() => count(controller.signal), SETTLE) };
}

async function count(signal) {
  if (!layer) return;
  const { x, y, scale, width, height } = layer.place();
  noteAddress();
  showLegend();
  try {
    const found = await api.fetchView(
      state.number,
      {
        x0: x,
        y0: y,
        x1: x + width / scale,
        y1: y + height / scale,
        score: state.score,
        hidden: [...state.hidden].join(),
        column: state.measurement,
      },
      signal,
    );
    panel.showHistogram(found, state.measurement, state.color === state.measurement);
  } catch (error) {
    if (!signal.aborted) say(error.message);
  }
}

function noteAddress() {
  const address = writeAddress(slide, state, layer.place());
  if (unmet) {
    unmet.address ??= address;
    if (unmet.address === address) return;
    unmet = null;
    message.keep('link', null);
  }
  history.replaceState(null, '', address);
}

async function select(asked) {
  const shown = layer;
  let found;
  try {
    found = await asked;
  } catch (error) {
    say(error.message);
    return;
  }
  if (!layer || layer !== shown) return; // of a slide that was shown when it was asked for
  state.nucleus = layer.selected = found;
  panel.showNucleus(found);
  layer.redraw();
  countLater();
}

// ---- what the user does ----------------------------------------------------------------------

function pointIn(position) {
  const { x, y, scale } = layer.place();
  return { x: x + position.x / scale, y: y + position.y / scale, scale };
}

// Select the nucleus at a place, or next to it within a radius, if it is not hidden.
function selectAt(x, y, radius) {
  const { number, score, hidden } = state;
  select(api.fetchNucleus(number, { x, y, radius, score, hidden: [...hidden].join() }));
}

viewer.addHandler('canvas-click', (event) => {
  if (!event.quick || !layer) return;
  const { x, y, scale } = pointIn(event.position);
  selectAt(x, y, CLICK / scale);
});

viewer.addHandler('update-viewport', () => layer && rulers.show(layer.place(), slide.mpp));
// After the layers, so that what they say is of this frame.
viewer.addHandler('update-viewport', () => layer && sayMissing(), null, -1);
viewer.addHandler('viewport-change', () => layer && countLater());
find('slide').addEventListener('pointermove', (event) => {
  if (!layer) return;
  const box = find('slide').getBoundingClientRect();
  const { x, y } = pointIn({ x: event.clientX - box.left, y: event.clientY - box.top });
  rulers.point(x, y, slide.mpp);
});

find('score').addEventListener('input', (event) => {
  if (!layer) return;
  state.score = Number(event.target.value);
  showAll();
});
for (const name of ['color', 'measurement']) {
  find(name).addEventListener('change', (event) => {
    state[name] = event.target.value;
    if (name === 'color' && state.color !== 'class') state.measurement = state.color;
    showAll();
  });
}

function toggle(name) {
  if (document.querySelector(`[data-switch=${name}]`).disabled) return;
  state[name] = !state[name];
  showAll();
}
for (const input of document.querySelectorAll('[data-switch]')) {
  input.addEventListener('change', () => toggle(input.dataset.switch));
}

find('go').addEventListener('submit', (event) => {
  event.preventDefault();
  if (!layer) return;
  const { x, y, problem } = readPlace(find('go-text').value, slide);
  if (problem) {
    find('go-text').setCustomValidity(problem);
    find('go-text').reportValidity();
    return;
  }
  moves.goTo(x, y, Math.max(1, layer.place().scale));
  selectAt(x, y, CLICK);
});
find('go-text').addEventListener('input', () => find('go-text').setCustomValidity(''));

const fullScreen = () =>
  document.fullscreenElement ? document.exitFullscreen() : find('stage').requestFullscreen();
find('zoom-in').addEventListener('click', () => moves.zoomBy(1.5));
find('zoom-out').addEventListener('click', () => moves.zoomBy(1 / 1.5));
find('home').addEventListener('click', () => moves.home());
find('full-size').addEventListener('click', () => moves.fullSize());
find('full-screen').addEventListener('click', fullScreen);

function step(by) {
  const at = slides.findIndex(({ number }) => number === state.number);
  if (slides.length > 1) openSlide(slides.at((at + by) % slides.length).number);
}
const KEYS = {
  ArrowLeft: () => moves.panBy(-1, 0),
  ArrowRight: () => moves.panBy(1, 0),
  ArrowUp: () => moves.panBy(0, -1),
  ArrowDown: () => moves.panBy(0, 1),
  '+': () => moves.zoomBy(1.5),
  '=': () => moves.zoomBy(1.5),
  '-': () => moves.zoomBy(1 / 1.5),
  0: () => moves.home(),
  1: () => moves.fullSize(),
  f: fullScreen,
  n: () => toggle('nuclei'),
  i: () => toggle('fill'),
  t: () => toggle('tissue'),
  l: () => toggle('skipped'),
  p: savePicture,
  c: () => find('go-text').focus(),
  '[': () => step(-1),
  ']': () => step(1),
  Escape: () => select(null),
};
listenToKeys(KEYS);

find('link').addEventListener('click', async () => {
  if (!layer) return;
  history.replaceState(null, '', writeAddress(slide, state, layer.place()));
  await navigator.clipboard
    .writeText(location.href)
    .catch(() => window.prompt('Link to this view', location.href));
  find('link').textContent = 'Copied';
  setTimeout(() => {
    find('link').textContent = 'Copy link';
  }, 1500);
});

// ---- the view as a picture --------------------------------------------------------------------

function watch(layers) {
  drawing.watch(layers);
  showSaving(false);
}

function showSaving(saving) {
  find('picture').setAttribute('aria-busy', saving); // disabled it would lose the focus
  find('picture').textContent = saving ? 'Saving …' : 'Save picture';
}

function sayMissing() {
  const missing = [pixels, layer].find(({ problem }) => problem);
  if (pixels.behind || layer.behind) return;
  message.keep('missing', missing && missingText(missing));
  if (!missing) message.keep('refusal', null);
}

const missingText = ({ what, problem }) => `${what} in view are missing: ${problem}`;

function savePicture() {
  if (!layer) return;
  message.keep('refusal', null);
  showSaving(true);
  drawing.wait((missing) => {
    showSaving(false);
    if (missing) {
      message.keep('refusal', `No picture is saved. ${missingText(missing)}`);
      return;
    }
    const { x, y, scale } = layer.place();
    const name = `${slide.name.replace(/[^\w.-]/g, '_')}_${Math.round(x)}_${Math.round(y)}.png`;
    drawing.save(scaleBar(scale, slide.mpp), name);
  });
}
find('picture').addEventListener('click', savePicture);

// ---- start --------------------------------------------------------------------------------------

window.addEventListener('hashchange', () => {
  if (!slides.length) return;
  const wanted = readAddress(slides);
  openSlide(wanted.number, wanted);
});

try {
  const listed = await api.listSlides();
  slides = listed.slides;
  find('problems').textContent = listed.problems.join('; ');
  if (!slides.length) throw new Error('No slides in the folder; load the page again');
  const wanted = readAddress(slides);
  openSlide(wanted.number, wanted);
} catch (error) {
  say(error.message);
}

// For tests and measurements.
window.nucseg = {
  viewer,
  state,
  get layer() {
    return layer;
  },
  get slide() {
    return slide;
  },
};
