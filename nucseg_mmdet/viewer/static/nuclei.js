/* Nuclei over the slide: a heat map of their density from afar, dots, then outlines near.

   Dots and outlines are painted tile by tile on canvases of their own and laid down from there,
   so that moving costs a picture a tile, however many nuclei it shows; near, where a tile's
   picture would be large and its nuclei are few, they are painted straight away. Each frame
   paints new pictures for BUDGET ms at most and lays older ones meanwhile. */

import { fetchDensity } from './api.js';
import { heat, makeColoring, ramp } from './colors.js';
import { DARK, lineWidth, PALE, strokeOutlines } from './draw.js';
import { LEAF, TileStore, traceRings } from './tiles.js';

const OUTLINES_FROM = 1.1; // screen px a micron: nuclei of 8 microns are 9 px wide
const DOTS_FROM = 0.25;
const DOT_LEVEL = 2; // of the tiles for dots
const DOT_UM = 2.4; // microns, radius of a dot
const DIRECT_FROM = 0.9; // device px an image px from which on outlines are painted straight
const BUDGET = 9; // ms a frame
const PICTURES = 220; // kept, a third of a megapixel each
const REACH = 96; // px beyond its tile that a nucleus is painted at most
const HEAVIER = 1.3; // lines than in the report, whose images are small
const ALPHA = 0.35; // of filled nuclei
const SETTLE = 90; // ms between the last change and a new heat map
const FULL_HEAT = 0.995; // quantile of the density that is painted opaque

export class NucleiLayer {
  /* state: { score, hidden (a Set), color, nuclei, fill }, read at each frame. */
  constructor(viewer, slide, number, state) {
    Object.assign(this, { viewer, slide, number, state });
    this.micron = 1 / (slide.mpp ?? 0.25); // px
    this.canvas = document.createElement('canvas');
    this.canvas.className = 'nuclei';
    viewer.canvas.append(this.canvas);
    this.store = new TileStore(number, () => this.redraw());
    this.pictures = new Map(); // by tile
    this.paths = new WeakMap(); // by tile's content
    this.selected = null;
    this.redraw = () => viewer.forceRedraw();
    this.draw = this.draw.bind(this);
    viewer.addHandler('update-viewport', this.draw);
  }

  close() {
    this.viewer.removeHandler('update-viewport', this.draw);
    this.store.close();
    this.heatRequest?.abort();
    clearTimeout(this.heatTimer);
    this.canvas.remove();
  }

  /* Where the view lies: px of the slide at the left and upper edge, screen px an image px. */
  place() {
    const bounds = this.viewer.viewport.getBounds(true);
    const { x: width, y: height } = this.viewer.viewport.getContainerSize();
    const unit = this.slide.width;
    return { x: bounds.x * unit, y: bounds.y * unit, scale: width / (bounds.width * unit), width, height };
  }

  mode(scale) {
    const zoom = scale * this.micron;
    return zoom >= OUTLINES_FROM ? 'outlines' : zoom >= DOTS_FROM ? 'dots' : 'density';
  }

  draw() {
    const place = this.place(), ratio = window.devicePixelRatio || 1;
    const width = Math.round(place.width * ratio), height = Math.round(place.height * ratio);
    if (this.canvas.width !== width || this.canvas.height !== height) {
      Object.assign(this.canvas, { width, height });
    }
    const context = this.canvas.getContext('2d');
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.clearRect(0, 0, width, height);
    const mode = this.mode(place.scale);
    this.canvas.dataset.mode = this.state.nuclei ? mode : '';
    this.moving = place.scale !== this.lastScale;
    this.lastScale = place.scale;
    this.behind = false; // whether a picture is still to be painted
    this.drawn = 0; // nuclei, for tests
    if (this.state.nuclei) {
      if (mode === 'density') this.drawDensity(context, place, ratio);
      else this.drawTiles(context, place, ratio, mode);
    } else {
      this.store.want([]);
    }
    this.drawSelected(context, place, ratio);
    this.canvas.dataset.drawn = this.drawn;
    this.canvas.dataset.behind = this.behind ? 1 : '';
    if (this.behind || this.moving) requestAnimationFrame(this.redraw);
  }

  // ---- tiles of dots and outlines ----------------------------------------------------------

  column() {
    return this.state.color === 'class' ? '' : this.state.color;
  }

  requests({ x, y, scale, width, height }, mode) {
    const level = mode === 'outlines' ? 0 : DOT_LEVEL, side = LEAF << level;
    const range = (start, length, limit) => {
      const first = Math.max(0, Math.floor((start - REACH) / side));
      const last = Math.min(Math.floor((limit - 1) / side), Math.floor((start + length + REACH) / side));
      return Array.from({ length: Math.max(0, last - first + 1) }, (_, i) => first + i);
    };
    const requests = [];
    for (const ty of range(y, height / scale, this.slide.height)) {
      for (const tx of range(x, width / scale, this.slide.width)) {
        requests.push({ level, side, x: tx, y: ty, column: this.column(), outlines: mode === 'outlines' });
      }
    }
    const middleX = (x + width / scale / 2) / side - 0.5, middleY = (y + height / scale / 2) / side - 0.5;
    const distance = (one) => Math.hypot(one.x - middleX, one.y - middleY);
    return requests.sort((one, other) => distance(one) - distance(other));
  }

  drawTiles(context, place, ratio, mode) {
    const requests = this.requests(place, mode);
    this.store.want(requests);
    const scale = place.scale * ratio, started = performance.now();
    const style = this.style(scale, mode);
    for (const request of requests) {
      const tile = this.store.get(request);
      if (tile && !tile.num) continue;
      const left = (request.x * request.side - place.x) * scale;
      const top = (request.y * request.side - place.y) * scale;
      if (tile && mode === 'outlines' && scale >= DIRECT_FROM) {
        context.setTransform(scale, 0, 0, scale, left, top);
        this.drawn += this.paint(context, tile, scale, mode, style);
        continue;
      }
      const key = TileStore.key({ ...request, column: '' });
      let picture = this.pictures.get(key);
      const fresh = picture?.style === style && (picture.scale === scale || this.moving);
      if (tile && !fresh) {
        if (performance.now() - started < BUDGET) picture = this.picture(key, tile, request.side, scale, mode, style);
        else this.behind = true;
      }
      if (!picture) continue;
      this.pictures.delete(key); // to the end: used last
      this.pictures.set(key, picture);
      const zoom = scale / picture.scale, margin = picture.margin * zoom;
      context.setTransform(1, 0, 0, 1, 0, 0);
      context.imageSmoothingEnabled = zoom !== 1;
      const x = left - margin, y = top - margin; // whole px keep it sharp
      context.drawImage(picture.canvas, zoom === 1 ? Math.round(x) : x, zoom === 1 ? Math.round(y) : y,
        picture.canvas.width * zoom, picture.canvas.height * zoom);
      this.drawn += picture.num;
    }
    for (const key of this.pictures.keys()) {
      if (this.pictures.size <= PICTURES) break;
      this.pictures.delete(key);
    }
  }

  // All that a picture depends on besides its tile and scale.
  style(scale, mode) {
    const { score, hidden, color, fill } = this.state;
    return [score, [...hidden].sort(), color, fill, mode].join('|');
  }

  picture(key, tile, side, scale, mode, style) {
    const margin = Math.ceil(Math.min(this.slide.reach, REACH) * scale) + 4; // device px
    const size = Math.ceil(side * scale) + 2 * margin;
    const canvas = this.pictures.get(key)?.canvas ?? document.createElement('canvas');
    canvas.width = canvas.height = size; // also clears it
    const context = canvas.getContext('2d');
    context.setTransform(scale, 0, 0, scale, margin, margin);
    const num = this.paint(context, tile, scale, mode, style);
    const picture = { canvas, margin, scale, style, num };
    this.pictures.set(key, picture);
    return picture;
  }

  // Paint a tile in its own px; returns how many nuclei are seen.
  paint(context, tile, scale, mode, style) {
    const { outlines, num } = this.trace(tile, scale, mode, style);
    if (mode === 'dots') {
      for (const { path, color } of outlines) {
        context.fillStyle = color;
        context.fill(path);
      }
      return num;
    }
    if (this.state.fill) {
      context.globalAlpha = ALPHA;
      for (const { path, color } of outlines) {
        context.fillStyle = color;
        context.fill(path, 'evenodd');
      }
      context.globalAlpha = 1;
    }
    const ratio = window.devicePixelRatio || 1;
    const line = HEAVIER * lineWidth(scale / ratio) * ratio / scale;
    strokeOutlines(context, outlines, line, scale >= 0.6 ? PALE : null);
    return num;
  }

  // Paths of a tile's nuclei, one a color, kept until something they depend on changes.
  trace(tile, scale, mode, style) {
    const coarse = mode === 'outlines' && scale < 0.8 ? 2 ** Math.round(Math.log2(1 / scale)) : 0;
    const size = mode === 'dots' ? Math.round(4 * Math.log2(scale)) : coarse;
    const known = this.paths.get(tile);
    if (known?.style === style && known.size === size) return known;
    const groups = this.group(tile);
    const outlines = [];
    let num = 0;
    groups.forEach(({ color, nuclei }) => {
      num += nuclei.length;
      const path = new Path2D();
      if (mode === 'dots') traceDots(path, tile, nuclei, Math.max(DOT_UM * this.micron, 1 / scale), scale);
      else traceRings(path, tile, this.rings(tile, nuclei), tile.ringStarts, coarse);
      outlines.push({ path, color });
    });
    const traced = { style, size, outlines, num };
    this.paths.set(tile, traced);
    return traced;
  }

  // The tile's nuclei that are wanted, by color.
  group(tile) {
    const { colors, of } = makeColoring(this.slide, this.state.color);
    const { hidden } = this.state;
    const least = Math.fround(this.state.score); // the scores are float32, too
    const groups = colors.map((color) => ({ color, nuclei: [] }));
    for (let i = 0; i < tile.num; i++) {
      if (tile.scores[i] >= least && !hidden.has(tile.classes[i])) groups[of(tile, i)]?.nuclei.push(i);
    }
    return groups.filter(({ nuclei }) => nuclei.length);
  }

  // The rings of some nuclei of a tile.
  rings(tile, nuclei) {
    if (!tile.ringStarts) {
      tile.ringStarts = new Uint32Array(tile.ringSizes.length);
      tile.ringsOf = new Map();
      let start = 0;
      tile.ringSizes.forEach((size, ring) => {
        tile.ringStarts[ring] = start;
        start += size;
        const owner = tile.owners[ring];
        if (tile.ringsOf.has(owner)) tile.ringsOf.get(owner).push(ring);
        else tile.ringsOf.set(owner, [ring]);
      });
    }
    return nuclei.flatMap((nucleus) => tile.ringsOf.get(nucleus) ?? []);
  }

  // ---- density -----------------------------------------------------------------------------

  drawDensity(context, place, ratio) {
    this.store.want([]);
    const style = this.style(0, 'density');
    if (style !== this.heatStyle) this.askForHeat(style);
    if (!this.heat) return;
    const scale = place.scale * ratio;
    context.setTransform(scale, 0, 0, scale, -place.x * scale, -place.y * scale);
    context.imageSmoothingEnabled = true;
    context.imageSmoothingQuality = 'high';
    const { canvas, cell } = this.heat;
    context.beginPath();
    context.rect(0, 0, this.slide.width, this.slide.height);
    context.save();
    context.clip();
    context.drawImage(canvas, 0, 0, canvas.width * cell, canvas.height * cell);
    context.restore();
    this.drawn = this.heat.num;
  }

  askForHeat(style) {
    this.heatStyle = style;
    clearTimeout(this.heatTimer);
    this.heatTimer = setTimeout(async () => {
      this.heatRequest?.abort();
      this.heatRequest = new AbortController();
      const { score, hidden } = this.state, column = this.column();
      try {
        const grid = await fetchDensity(this.number,
          { score, hidden: [...hidden].join(), column }, this.heatRequest.signal);
        this.heat = this.paintHeat(grid, column);
        this.redraw();
        this.heated?.(this.heat);
      } catch (error) {
        if (error.name !== 'AbortError') throw error;
      }
    }, this.heat ? SETTLE : 0);
  }

  paintHeat({ width, height, cell, counts, means }, column) {
    const canvas = document.createElement('canvas');
    Object.assign(canvas, { width, height });
    const context = canvas.getContext('2d');
    const image = context.createImageData(width, height);
    // The scale stays the same while the threshold moves.
    this.full ??= Math.max(1, quantile(counts.filter((count) => count > 1), FULL_HEAT));
    const about = this.slide.columns.find(({ name }) => name === column);
    let num = 0;
    counts.forEach((count, i) => {
      const share = count / this.full;
      num += count;
      if (share < 0.004) return;
      const [red, green, blue, alpha = Math.min(0.85, 0.25 + share)] =
        about && !Number.isNaN(means[i]) ? ramp((means[i] - about.low) / (about.high - about.low)) : heat(share);
      image.data.set([red, green, blue, 255 * alpha], 4 * i);
    });
    context.putImageData(image, 0, 0);
    const area = (cell / this.micron / 1000) ** 2; // mm2
    return { canvas, cell, num: Math.round(num * area), full: this.full };
  }

  // ---- the chosen nucleus --------------------------------------------------------------------

  drawSelected(context, place, ratio) {
    if (!this.selected) return;
    const scale = place.scale * ratio;
    const path = new Path2D();
    for (const ring of this.selected.rings) {
      ring.forEach(([x, y], i) => (i ? path.lineTo(x, y) : path.moveTo(x, y)));
      path.closePath();
    }
    context.setTransform(scale, 0, 0, scale, -place.x * scale, -place.y * scale);
    const near = this.mode(place.scale) === 'outlines';
    if (near) strokeOutlines(context, [{ path, color: '#ffffff' }], 2.6 * ratio / scale, DARK);
    const [x, y] = this.selected.centroid;
    const radius = (near ? Math.max(26, 1.5 * this.slide.reach * place.scale) : 9) * ratio / scale;
    const circle = new Path2D();
    circle.arc(x, y, radius, 0, 2 * Math.PI);
    if (!near) strokeOutlines(context, [{ path: circle, color: '#ffffff' }], 2.2 * ratio / scale, '#000000c0');
  }
}

// Dots of a radius in px; too small to be seen as round they are squares, which are quicker.
function traceDots(path, tile, nuclei, radius, scale) {
  for (const nucleus of nuclei) {
    const x = tile.centers[2 * nucleus], y = tile.centers[2 * nucleus + 1];
    if (radius * scale < 1.6) {
      path.rect(x - radius, y - radius, 2 * radius, 2 * radius);
    } else {
      path.moveTo(x + radius, y);
      path.arc(x, y, radius, 0, 2 * Math.PI);
    }
  }
}

function quantile(values, share) {
  const sorted = Float32Array.from(values).sort();
  return sorted.length ? sorted[Math.floor(share * (sorted.length - 1))] : 1;
}
