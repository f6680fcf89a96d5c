/* What the pages of this project share: colors, small tools for the page, outlines of nuclei.

The viewer loads this file as a module; the report of a run, which has to be one file, holds
its text with the word `export` taken away. So it needs no other file, and each `export` starts
a line. */

// Okabe and Ito's colors: told apart by color-blind readers too; dashes tell them as well.
export const BLACK = '#000000',
  ORANGE = '#e69f00',
  SKY = '#56b4e9',
  GREEN = '#009e73',
  YELLOW = '#f0e442',
  BLUE = '#0072b2',
  RED = '#d55e00',
  PURPLE = '#cc79a7';

// Under each line, so that it stands out on pale and on dark tissue.
export const PALE = '#ffffffb0',
  DARK = '#00000080';

export const number = (value, digits = 3) =>
  value === null || value === undefined ? '–' : value.toFixed(digits);
export const grouped = (value) => String(value).replace(/\B(?=(\d{3})+$)/g, '\u202f');
export const percent = (value) => `${Math.round(100 * value)} %`;

// Text goes in as text and never as HTML: names come from files.
export function make(tag, attributes = {}, ...children) {
  const svg = ['svg', 'path', 'line', 'text', 'circle', 'rect', 'g'].includes(tag);
  const element = svg
    ? document.createElementNS('http://www.w3.org/2000/svg', tag)
    : document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children.map((child) => (child instanceof Node ? child : String(child))));
  return element;
}

export function lineSample(color, dash, casing) {
  const width = casing ? 40 : 24;
  const at = { x1: 2, x2: width - 2, y1: 7, y2: 7 };
  const sample = make('svg', { width, height: 14, 'aria-hidden': 'true' });
  if (casing) sample.append(make('line', { ...at, stroke: casing, 'stroke-width': 4 }));
  sample.append(
    make('line', { ...at, stroke: color, 'stroke-width': 2, 'stroke-dasharray': dash.join(' ') }),
  );
  return sample;
}

// Width of an outline in screen px where an image px takes `scale` of them.
export const lineWidth = (scale) => Math.min(2.4, 0.9 + 0.4 * scale);

/* Stroke the outlines of nuclei, all casings first, so that none covers a neighbor's line.
   outlines: [{ path, color, dash }]; dash in screen px at a line of 1.5 px, may be left out.
   line: width of the line in the unit of the paths. */
export function strokeOutlines(context, outlines, line, casing) {
  context.lineJoin = 'round';
  context.setLineDash([]);
  if (casing) {
    context.strokeStyle = casing;
    context.lineWidth = 1.8 * line;
    for (const { path } of outlines) context.stroke(path);
  }
  context.lineWidth = line;
  for (const { path, color, dash = [] } of outlines) {
    context.strokeStyle = color;
    context.setLineDash(dash.map((length) => (length * line) / 1.5));
    context.stroke(path);
  }
  context.setLineDash([]);
}
