/* Nuclei over the slide: a heat map of their density from afar, dots, then outlines near.

   Dots and outlines are painted by workers, square by square, on pictures that the page only lays
   down. So moving costs a few pictures a frame, however many nuclei they show. While pictures of a
   new zoom or threshold are on their way, those from before stand in for them. */

import { HeatMap } from './density.js';
import { DARK, strokeOutlines } from './draw.js';
import { LEAF, TileStore } from './tiles.js';

const OUTLINES_FROM = 1.1; // screen px a micron: nuclei of 8 microns are 9 px wide
const DOTS_FROM = 0.25;
const DOT_LEVEL = 2; // of the tiles for dots
const WORKERS = Math.max(1, Math.min(3, (navigator.hardwareConcurrency ?? 2) - 1));
const PICTURE = 640; // device px, largest side of a picture without its margin
const PICTURES = 160; // kept
const REACH = 96; // px beyond its tile that a nucleus is painted at most

/* Workers that paint; a job is answered by its own promise, also if its worker fails. */
class Painters {
  constructor() {
    this.idle = Array.from({ length: WORKERS }, () => new Worker('painter.js', { type: 'module' }));
  }

  paint(job) {
    const worker = this.idle.pop();
    return new Promise((resolve, reject) => {
      worker.onmessage = ({ data }) => resolve(data);
      worker.onerror = ({ message }) => reject(new Error(message));
      worker.postMessage(job);
    }).finally(() => this.idle.push(worker));
  }
}

const painters = new Painters();

export class NucleiLayer {
  /* state: { score, hidden (a Set), color, nuclei, fill }, read at each frame. */
  constructor(viewer, slide, number, state) {
    Object.assign(this, { viewer, slide, number, state, what: 'Nuclei' });
    this.micron = 1 / (slide.mpp ?? 0.25); // px
    this.canvas = document.createElement('canvas');
    this.canvas.className = 'nuclei';
    viewer.canvas.append(this.canvas);
    this.store = new TileStore(number, () => this.redraw());
    this.heat = new HeatMap(slide, number, () => this.redraw());
    this.pictures = new Map(); // by square, all of one look
    this.before = []; // those of the look before, while some of this one are missing
    this.painting = new Set(); // squares
    this.selected = null;
    this.redraw = () => viewer.forceRedraw();
    this.draw = this.draw.bind(this);
    viewer.addHandler('update-viewport', this.draw);
  }

  close() {
    this.viewer.removeHandler('update-viewport', this.draw);
    this.store.close();
    this.heat.close();
    this.lookText = null; // pictures on their way are not wanted
    this.canvas.remove();
  }

  /* Where the view lies: px of the slide at the left and upper edge, screen px an image px. */
  place() {
    const bounds = this.viewer.viewport.getBounds(true);
    const { x: width, y: height } = this.viewer.viewport.getContainerSize();
    const unit = this.slide.width;
    return {
      x: bounds.x * unit,
      y: bounds.y * unit,
      scale: width / (bounds.width * unit),
      width,
      height,
    };
  }

  mode(scale) {
    const zoom = scale * this.micron;
    return zoom >= OUTLINES_FROM ? 'outlines' : zoom >= DOTS_FROM ? 'dots' : 'density';
  }

  draw() {
    const place = this.place(),
      ratio = window.devicePixelRatio || 1;
    const width = Math.round(place.width * ratio),
      height = Math.round(place.height * ratio);
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
    this.behind = this.moving; // whether pictures are still to come
    this.problem = null; // why some will not
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
    if (this.moving) requestAnimationFrame(this.redraw);
  }

  // ---- tiles of dots and outlines ----------------------------------------------------------

  column() {
    return this.state.color === 'class' ? '' : this.state.color;
  }

  requests({ x, y, scale, width, height }, mode) {
    const level = mode === 'outlines' ? 0 : DOT_LEVEL,
      side = LEAF << level;
    const range = (start, length, limit) => {
      const first = Math.max(0, Math.floor((start - REACH) / side));
      const last = Math.min(
        Math.floor((limit - 1) / side),
        Math.floor((start + length + REACH) / side),
      );
      return Array.from({ length: Math.max(0, last - first + 1) }, (_, i) => first + i);
    };
    const requests = [];
    for (const ty of range(y, height / scale, this.slide.height)) {
      for (const tx of range(x, width / scale, this.slide.width)) {
        requests.push({
          level,
          side,
          x: tx,
          y: ty,
          column: this.column(),
          outlines: mode === 'outlines',
        });
      }
    }
    const middleX = (x + width / scale / 2) / side - 0.5,
      middleY = (y + height / scale / 2) / side - 0.5;
    const distance = (one) => Math.hypot(one.x - middleX, one.y - middleY);
    return requests.sort((one, other) => distance(one) - distance(other));
  }

  // All that pictures depend on besides the nuclei.
  look(mode, scale, ratio) {
    const { score, hidden, color, fill } = this.state;
    return {
      mode,
      score,
      hidden: [...hidden].sort(),
      color,
      fill,
      scale,
      ratio,
      micron: this.micron,
    };
  }

  drawTiles(context, place, ratio, mode) {
    const scale = place.scale * ratio;
    const requests = this.requests(place, mode);
    this.store.want(requests);
    // A zoom under way has a new scale each frame: nothing is painted before it rests.
    if (!this.moving) this.changeLook(this.look(mode, scale, ratio));
    const squares = requests.flatMap((request) => this.squares(request, place, scale));
    const missing = [];
    for (const square of squares) {
      const picture = this.moving ? null : this.pictures.get(square.key);
      if (picture) {
        this.pictures.delete(square.key); // to the end: used last
        this.pictures.set(square.key, picture);
        square.picture = picture;
      } else {
        missing.push(square);
      }
    }
    if (missing.length) this.drawBefore(context, place, scale, missing);
    for (const { picture } of squares) if (picture) this.lay(context, picture, place, scale);
    if (this.moving) return;
    if (!missing.length) this.before = [];
    const problems = missing.map(({ request }) => this.store.problem(request));
    this.problem = problems.find(Boolean) ?? null;
    this.behind = problems.some((problem) => !problem);
    this.paintSome(missing);
    for (const [key, { bitmap }] of this.pictures) {
      if (this.pictures.size <= PICTURES + squares.length) break;
      bitmap?.close();
      this.pictures.delete(key);
    }
  }

  changeLook(look) {
    const text = JSON.stringify(look);
    if (text === this.lookText) return;
    Object.assign(this, { lookText: text, currentLook: look });
    const shown = [...this.pictures.values()].filter(({ bitmap }) => bitmap);
    if (shown.length) {
      for (const { bitmap } of this.before) bitmap.close();
      this.before = shown;
    }
    this.pictures = new Map();
    this.painting.clear();
  }

  // The squares of a tile in sight that get pictures of their own, px of the slide.
  squares(request, { x, y, width, height, scale: zoom }, scale) {
    const parts = 2 ** Math.max(0, Math.ceil(Math.log2((request.side * scale) / PICTURE)));
    const side = request.side / parts,
      reach = Math.min(this.slide.reach, REACH);
    const squares = [];
    for (let row = 0; row < parts; row++) {
      for (let column = 0; column < parts; column++) {
        const left = request.x * request.side + column * side,
          top = request.y * request.side + row * side;
        if (
          left + side + reach < x ||
          left - reach > x + width / zoom ||
          top + side + reach < y ||
          top - reach > y + height / zoom
        )
          continue;
        squares.push({ key: `${left}_${top}`, left, top, side, request });
      }
    }
    return squares;
  }

  // Have missing pictures painted as far as there are idle workers.
  paintSome(missing) {
    for (const square of missing) {
      if (!painters.idle.length) return;
      const tile = this.store.get(square.request);
      if (!tile || this.painting.has(square.key)) continue;
      if (tile.num) this.paint(square, tile);
      else this.pictures.set(square.key, { num: 0 });
      if (!tile.num) this.redraw();
    }
  }

  async paint({ key, left, top, side, request }, tile) {
    const { currentLook: look, lookText: text } = this;
    const margin = Math.ceil(Math.min(this.slide.reach, REACH) * look.scale) + 4; // device px
    this.painting.add(key);
    const { columns, classes } = this.slide;
    const square = [left - request.x * request.side, top - request.y * request.side, side];
    const job = { buffer: tile.buffer, square, margin, look, slide: { columns, classes } };
    const { picture: bitmap, num } = await painters.paint(job).catch((error) => {
      console.error(error); // the square stays empty, the others are painted
      return { num: 0 };
    });
    if (this.lookText === text) {
      this.painting.delete(key);
      this.pictures.set(key, { bitmap, num, left, top, margin, scale: look.scale });
    } else {
      bitmap?.close();
    }
    this.redraw();
  }

  lay(context, { bitmap, num, left, top, margin, scale: painted }, place, scale) {
    this.drawn += num;
    if (!bitmap) return;
    const zoom = scale / painted;
    let x = (left - place.x) * scale - margin * zoom,
      y = (top - place.y) * scale - margin * zoom;
    if (zoom === 1) [x, y] = [Math.round(x), Math.round(y)]; // whole px keep it sharp
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.imageSmoothingEnabled = zoom !== 1;
    context.drawImage(bitmap, x, y, bitmap.width * zoom, bitmap.height * zoom);
  }

  // Where pictures are missing, those from before are seen.
  drawBefore(context, place, scale, missing) {
    context.save();
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.beginPath();
    for (const { left, top, side } of missing) {
      context.rect((left - place.x) * scale, (top - place.y) * scale, side * scale, side * scale);
    }
    context.clip();
    const shown = this.moving ? [...this.pictures.values()].filter(({ bitmap }) => bitmap) : [];
    for (const picture of shown.length ? shown : this.before)
      this.lay(context, picture, place, scale);
    this.drawn = 0;
    context.restore();
  }

  drawDensity(context, place, ratio) {
    this.store.want([]);
    const { score, hidden } = this.state;
    this.heat.want({ score, hidden: [...hidden].sort().join(), column: this.column() });
    const scale = place.scale * ratio;
    context.setTransform(scale, 0, 0, scale, -place.x * scale, -place.y * scale);
    this.drawn = this.heat.draw(context, scale);
    this.behind ||= this.heat.due;
    this.problem = this.heat.problem;
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
    if (near) strokeOutlines(context, [{ path, color: '#ffffff' }], (2.6 * ratio) / scale, DARK);
    const [x, y] = this.selected.centroid;
    const radius =
      ((near ? Math.max(26, 1.5 * this.slide.reach * place.scale) : 9) * ratio) / scale;
    const circle = new Path2D();
    circle.arc(x, y, radius, 0, 2 * Math.PI);
    if (!near)
      strokeOutlines(
        context,
        [{ path: circle, color: '#ffffff' }],
        (2.2 * ratio) / scale,
        '#000000c0',
      );
  }
}
