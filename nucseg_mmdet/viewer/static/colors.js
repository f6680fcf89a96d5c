/* Colors of nuclei: by class, or by a measurement between its ends. */

import { BLUE, GREEN, ORANGE, PURPLE, RED, SKY, YELLOW } from './draw.js';

export const BINS = 24; // colors of a measurement
// From low to high, seen on pink and on purple, told apart by color-blind readers.
const RAMP = [
  [30, 80, 230],
  [0, 150, 200],
  [0, 170, 100],
  [170, 205, 30],
  [255, 235, 40],
];
// Density of nuclei, from afar: as a heat map, from nothing to opaque.
const HEAT = [
  [255, 240, 120, 0],
  [255, 215, 60, 0.55],
  [240, 130, 20, 0.75],
  [190, 20, 30, 0.85],
  [80, 0, 60, 0.9],
];
const CLASSES = [GREEN, BLUE, ORANGE, SKY, RED, PURPLE, YELLOW];
const UNKNOWN = '#6b6b75'; // of a nucleus without a value

// The color at 0 to 1 between equally spaced ones.
function between(stops, share) {
  const at = Math.min(1, Math.max(0, share)) * (stops.length - 1);
  const low = Math.min(Math.floor(at), stops.length - 2);
  return stops[low].map((part, i) => part + (at - low) * (stops[low + 1][i] - part));
}

export const ramp = (share) => between(RAMP, share);
export const heat = (share) => between(HEAT, share);

export const css = ([red, green, blue]) =>
  `rgb(${red.toFixed()} ${green.toFixed()} ${blue.toFixed()})`;

/* Colors of a slide's nuclei by class: QuPath's where the files have them, but for the only class
   of a slide, whose red is hard to see on eosin. */
export function classColors(classes) {
  return classes.map(({ color }, index) =>
    color && classes.length > 1 ? css(color) : CLASSES[index % CLASSES.length],
  );
}

/* Of each nucleus of a tile the index of its color among `colors`. */
export function makeColoring(slide, by) {
  if (by === 'class') {
    const colors = classColors(slide.classes);
    return { colors: colors.length ? colors : [GREEN], of: (tile, i) => tile.classes[i] };
  }
  const { low, high } = slide.columns.find((column) => column.name === by);
  const colors = Array.from({ length: BINS }, (_, bin) => css(ramp((bin + 0.5) / BINS)));
  const of = (tile, i) => {
    const share = (tile.values[i] - low) / (high - low);
    return Number.isNaN(share) ? BINS : Math.min(BINS - 1, Math.max(0, Math.floor(share * BINS)));
  };
  return { colors: [...colors, UNKNOWN], of };
}
