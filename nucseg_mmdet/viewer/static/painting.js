/* A tile's nuclei on a canvas, as dots or outlines: what painter.js does, away from the page. */

import { makeColoring } from './colors.js';
import { lineWidth, PALE, strokeOutlines } from './draw.js';
import { traceRings } from './tiles.js';

const DOT_UM = 2.4; // microns, radius of a dot
const CASED_FROM = 0.6; // device px an image px; lines closer together have no room for a casing
const CUT_FROM = 0.8; // from which on outlines are drawn to the px
const HEAVIER = 1.3; // lines than in the report, whose images are small
const ALPHA = 0.35; // of filled nuclei
const TOGETHER = 24; // nuclei in one path: the cost of a path grows faster than its length

/* Paint the nuclei of a tile that lie in a square of it; returns how many.

   context: its unit is the image px, its origin the tile's corner.
   tile: as parseTile has it.
   square: [x, y, side], px from the tile's corner; a nucleus belongs to it by its centroid.
   look: { mode, score, hidden (classes), color, fill, scale (device px an image px), ratio (device
     px a screen px), micron (px) }
   slide: { columns, classes } */
export function paintTile(context, tile, square, look, slide) {
  const { scale } = look;
  const groups = group(tile, square, look, slide);
  const outlines = [];
  for (const { color, nuclei } of groups) {
    for (let i = 0; i < nuclei.length; i += TOGETHER) {
      const path = new Path2D(),
        some = nuclei.slice(i, i + TOGETHER);
      if (look.mode === 'dots') {
        traceDots(path, tile, some, Math.max(DOT_UM * look.micron, look.ratio / scale), scale);
      } else {
        const coarse = scale < CUT_FROM ? 2 ** Math.round(Math.log2(1 / scale)) : 0;
        traceRings(path, tile, ringsOf(tile, some), tile.ringStarts, coarse);
      }
      outlines.push({ path, color });
    }
  }
  const filled = look.mode === 'dots' ? 1 : look.fill ? ALPHA : 0;
  if (filled) {
    context.globalAlpha = filled;
    for (const { path, color } of outlines) {
      context.fillStyle = color;
      context.fill(path, look.mode === 'dots' ? 'nonzero' : 'evenodd');
    }
    context.globalAlpha = 1;
  }
  if (look.mode === 'outlines') {
    const line = (HEAVIER * lineWidth(scale / look.ratio) * look.ratio) / scale;
    strokeOutlines(context, outlines, line, scale >= CASED_FROM ? PALE : null);
  }
  return groups.reduce((sum, { nuclei }) => sum + nuclei.length, 0);
}

// The nuclei that are wanted, by color.
function group(tile, [left, top, side], look, slide) {
  const { colors, of } = makeColoring(slide, look.color);
  const hidden = new Set(look.hidden);
  const least = Math.fround(look.score); // the scores are float32, too
  const groups = colors.map((color) => ({ color, nuclei: [] }));
  for (let i = 0; i < tile.num; i++) {
    const x = tile.centers[2 * i] - left,
      y = tile.centers[2 * i + 1] - top;
    if (x < 0 || y < 0 || x >= side || y >= side) continue;
    if (tile.scores[i] >= least && !hidden.has(tile.classes[i]))
      groups[of(tile, i)]?.nuclei.push(i);
  }
  return groups.filter(({ nuclei }) => nuclei.length);
}

// The rings of some nuclei; those of a nucleus lie together, in the order of nuclei.
function ringsOf(tile, nuclei) {
  if (!tile.ringStarts) {
    tile.ringStarts = new Uint32Array(tile.ringSizes.length);
    tile.firstRings = new Uint32Array(tile.num + 1);
    let start = 0;
    tile.ringSizes.forEach((size, ring) => {
      tile.ringStarts[ring] = start;
      start += size;
      tile.firstRings[tile.owners[ring] + 1] = ring + 1;
    });
  }
  const rings = [];
  for (const nucleus of nuclei) {
    for (let ring = tile.firstRings[nucleus]; ring < tile.firstRings[nucleus + 1]; ring++)
      rings.push(ring);
  }
  return rings;
}

// Dots of a radius in px; too small to be seen as round they are squares, which are quicker.
function traceDots(path, tile, nuclei, radius, scale) {
  for (const nucleus of nuclei) {
    const x = tile.centers[2 * nucleus],
      y = tile.centers[2 * nucleus + 1];
    if (radius * scale < 1.6) {
      path.rect(x - radius, y - radius, 2 * radius, 2 * radius);
    } else {
      path.moveTo(x + radius, y);
      path.arc(x, y, radius, 0, 2 * Math.PI);
    }
  }
}
