/* The panel beside the slide: what is counted, colored and told. */

import { BINS, classColors, css, heat, ramp } from './colors.js';
import { grouped, make } from './draw.js';

const WIDTH = 272,
  HEIGHT = 92,
  BELOW = 16; // of the histogram
const UNITS = { px: 'px', um2: 'µm²', um: 'µm', od: 'OD' };

// Columns whose names say too little, or too much.
const NAMED = {
  nearest_um: 'distance to the nearest, µm',
  nearest_5_mean_um: 'mean distance to 5 nearest, µm',
  neighbors_25um: 'other nuclei within 25 µm',
  density_50um_per_mm2: 'nuclei per mm² within 50 µm',
  delaunay_degree: 'Delaunay neighbors',
  hematoxylin_od_sd: 'hematoxylin SD, OD',
  eosin_od_sd: 'eosin SD, OD',
};

// 'hematoxylin_od_mean' -> 'hematoxylin mean, OD'
export function columnText(name) {
  if (NAMED[name]) return NAMED[name];
  const parts = name.split('_');
  const unit = parts.find((part, index) => index && UNITS[part]);
  const words = parts.filter((part) => part !== unit).join(' ');
  return unit ? `${words}, ${UNITS[unit]}` : words;
}

export const short = (value) => (value === 0 ? '0' : String(Number(value.toPrecision(3))));

export const find = (id) => document.getElementById(id);

/* Replace what an element holds; of its controls the one that has the focus keeps it, by its place. */
function refill(element, ...children) {
  const controls = () => [...element.querySelectorAll('button, input')];
  const place = controls().indexOf(document.activeElement);
  element.replaceChildren(...children);
  controls()[place]?.focus({ preventScroll: true });
}

/* How many nuclei have at least a score, by the counts that came with the slide. */
export function countFrom(slide, score, hidden) {
  const step = slide.counts[0] ? slide.counts[0].length - 1 : 1;
  const at = Math.round(score * step);
  return slide.counts.reduce((sum, counts, kind) => sum + (hidden.has(kind) ? 0 : counts[at]), 0);
}

export function fillSelects(slide) {
  const options = slide.columns.map(({ name }) => [name, columnText(name)]);
  const fill = (id, entries) =>
    find(id).replaceChildren(...entries.map(([value, text]) => make('option', { value }, text)));
  fill('color', [['class', slide.classes.length > 1 ? 'class' : 'one color'], ...options]);
  fill('measurement', options);
}

export function showScore(slide, state) {
  const slider = find('score');
  slider.min = Math.min(Math.floor(20 * slide.lowest_score) / 20, 0.95);
  slider.max = 1;
  slider.value = state.score;
  find('score-text').textContent = `≥ ${Number(slider.value).toFixed(3)}`;
  find('count').textContent = grouped(countFrom(slide, state.score, state.hidden));
  find('total').textContent = grouped(slide.num);
}

/* Classes with switches, or the colors of a measurement; from afar the density. */
export function showLegend(slide, state, mode, toggle) {
  const legend = find('legend');
  if (state.color !== 'class') {
    const { low, high } = slide.columns.find(({ name }) => name === state.color);
    refill(legend, gradient(ramp), ends(short(low), short(high)));
    return;
  }
  const parts = [];
  if (slide.classes.length > 1) {
    const colors = classColors(slide.classes);
    slide.classes.forEach(({ name }, kind) => {
      const box = make('input', { type: 'checkbox', 'data-class': kind });
      box.checked = !state.hidden.has(kind);
      box.addEventListener('change', () => toggle(kind, box.checked));
      const swatch = make('i');
      swatch.style.background = colors[kind];
      const count = countFrom({ counts: [slide.counts[kind]] }, state.score, new Set());
      parts.push(
        make('label', {}, box, swatch, make('span', {}, name), make('small', {}, grouped(count))),
      );
    });
  }
  if (mode === 'density') {
    const full = grouped(Math.round(slide.full_density / 100) * 100);
    parts.push(gradient(heat), ends('0', `${full} nuclei per mm²`));
  }
  refill(legend, ...parts);
}

function gradient(colors) {
  const canvas = make('canvas', { width: 4 * BINS, height: 1 });
  const context = canvas.getContext('2d');
  for (let x = 0; x < canvas.width; x++) {
    const [red, green, blue, alpha = 1] = colors(x / (canvas.width - 1));
    context.fillStyle = `rgb(${red} ${green} ${blue} / ${alpha})`;
    context.fillRect(x, 0, 1, 1);
  }
  return canvas;
}

const ends = (low, high) =>
  make('div', { class: 'ends' }, make('span', {}, low), make('span', {}, high));

export function showHistogram({ bins, low, high, median, mean, count }, name, colored) {
  find('in-view').textContent = grouped(count);
  const svg = make('svg', {
    viewBox: `0 0 ${WIDTH} ${HEIGHT + BELOW}`,
    role: 'img',
    'aria-label': `Histogram of ${columnText(name)}`,
  });
  const most = Math.max(1, ...bins),
    width = WIDTH / bins.length;
  bins.forEach((bin, i) => {
    const height = bin ? Math.max(1, (HEIGHT * bin) / most) : 0;
    svg.append(
      make('rect', {
        x: (i * width).toFixed(2),
        y: (HEIGHT - height).toFixed(2),
        width: (width - 0.8).toFixed(2),
        height: height.toFixed(2),
        'data-count': bin,
        fill: colored ? css(ramp((i + 0.5) / bins.length)) : '#7a7a86',
      }),
    );
  });
  svg.append(
    make('line', { x1: 0, x2: WIDTH, y1: HEIGHT + 0.5, y2: HEIGHT + 0.5, stroke: '#8a8a94' }),
    make('text', { x: 0, y: HEIGHT + 13 }, short(low)),
    make('text', { x: WIDTH, y: HEIGHT + 13, 'text-anchor': 'end' }, short(high)),
  );
  const told = median === null ? 'none in view' : `median ${short(median)}, mean ${short(mean)}`;
  find('histogram').replaceChildren(svg, make('figcaption', {}, told));
}

export function showNucleus(found) {
  const box = find('nucleus');
  const legend = box.querySelector('legend');
  if (!found) {
    box.replaceChildren(
      legend,
      make('p', { class: 'note' }, 'Click one to see its row of the table.'),
    );
    return;
  }
  const rows = Object.entries(found.row).map(([name, text]) =>
    make(
      'tr',
      {},
      make('th', { title: name, 'data-name': name }, columnText(name)),
      make('td', {}, text || '–'),
    ),
  );
  box.replaceChildren(legend, make('table', {}, make('tbody', {}, ...rows)));
}

export function showSlides(slides, current, choose) {
  const list = find('slides');
  list.hidden = find('next-note').hidden = slides.length < 2;
  refill(
    list,
    ...slides.map(({ number, name, nuclei }) => {
      const button = make(
        'button',
        { type: 'button' },
        make('span', {}, name),
        make('small', {}, nuclei === null ? '' : grouped(nuclei)),
      );
      if (number === current) button.setAttribute('aria-current', 'true');
      button.addEventListener('click', () => choose(number));
      return button;
    }),
  );
  list.querySelector('[aria-current]')?.scrollIntoView({ block: 'nearest' });
}

/* A slide that is being opened, or cannot be: nothing of the one before it. */
export function showOpening(name) {
  document.title = `${name}: nuclei`;
  find('title').textContent = name;
  for (const id of ['facts', 'count', 'total', 'legend', 'histogram'])
    find(id).replaceChildren();
  find('in-view').textContent = '–';
  showNucleus(null);
}

export const sizeText = ({ width, height }) => `${grouped(width)} × ${grouped(height)} px`;

export function showFacts(slide) {
  document.title = `${slide.name}: nuclei`;
  find('title').textContent = slide.name;
  const { mpp, region, facts } = slide;
  const parts = [sizeText(slide)];
  if (region) {
    const [x, y, width, height] = region;
    parts.push(`region ${grouped(x)}, ${grouped(y)}, ${sizeText({ width, height })}`);
  }
  parts.push(mpp ? `${short(mpp)} µm a pixel` : 'size of a pixel unknown');
  if (facts.tissue_mm2) parts.push(`${short(facts.tissue_mm2)} mm² of tissue`);
  if (facts.broken_tiles?.length)
    parts.push(`${facts.broken_tiles.length} tiles could not be read`);
  find('facts').textContent = parts.join(', ');
}
