/* The slide in OpenSeadragon, and what lies over it as a picture. */

import { fetchBlob, fetchTissue, imagePath } from './api.js';
import { BLACK, PALE, strokeOutlines } from './draw.js';
import { ANSWER } from './tiles.js';

const { OpenSeadragon } = window;
const COARSEST = 8; // level: 256 px, a tile holds the whole slide
const AT_ONCE = 4; // requests
const UNSEEN = '#46464e6e'; // over glass, and over what was not segmented
const TISSUE = '#008c00'; // the line around it
const MOVED_ON = 'not wanted any more';

/* Tiles of one slide. Requests of tiles that the view has left are dropped. */
export class SlideSource extends OpenSeadragon.TileSource {
  constructor(slide, number) {
    super({
      width: slide.width,
      height: slide.height,
      tileSize: slide.picture.tile,
      tileOverlap: slide.picture.overlap, // without, tiles are drawn a screen px too large
      minLevel: Math.min(COARSEST, slide.picture.levels - 1),
      maxLevel: slide.picture.levels - 1,
    });
    this.number = number;
    this.problem = slide.picture.problem;
    this.running = new Map(); // controllers by job
  }

  tileExists(level, x, y) {
    return !this.problem && super.tileExists(level, x, y);
  }

  getTileUrl(level, x, y) {
    return imagePath(this.number, level, x, y);
  }

  async downloadTileStart(job) {
    const controller = new AbortController();
    this.running.set(job, controller);
    try {
      job.finish(await fetchBlob(job.src, controller.signal), null, 'rasterBlob');
    } catch (error) {
      job.fail(controller.signal.aborted ? MOVED_ON : error.message, null);
    } finally {
      this.running.delete(job);
    }
  }

  downloadTileAbort(job) {
    this.running.get(job)?.abort();
  }

  /* Drop the requests of tiles out of sight or much finer than the view. */
  keepOnly(bounds, finest) {
    for (const [job, controller] of this.running) {
      const { tile } = job;
      const seen =
        tile.bounds.x < bounds.x + bounds.width &&
        bounds.x < tile.bounds.x + tile.bounds.width &&
        tile.bounds.y < bounds.y + bounds.height &&
        bounds.y < tile.bounds.y + tile.bounds.height;
      if (!seen || tile.level > finest) controller.abort();
    }
  }
}

export function openViewer(element) {
  const viewer = OpenSeadragon({
    element,
    drawer: 'canvas',
    showNavigationControl: false,
    showNavigator: true,
    navigatorPosition: 'TOP_RIGHT',
    navigatorSizeRatio: 0.16,
    navigatorAutoFade: false,
    navigatorDisplayRegionColor: '#0072b2',
    imageLoaderLimit: AT_ONCE,
    maxZoomPixelRatio: 8,
    minZoomImageRatio: 0.5,
    visibilityRatio: 0.3,
    animationTime: 0.5,
    zoomPerScroll: 1.4,
    gestureSettingsMouse: { clickToZoom: false, dblClickToZoom: true },
    smoothTileEdgesMinZoom: Infinity,
    immediateRender: false,
    preserveImageSizeOnResize: true,
  });
  // It takes the focus, and the page's keys move it.
  viewer.canvas.setAttribute('role', 'application');
  viewer.canvas.setAttribute('aria-label', 'Slide: arrows move, plus and minus zoom');
  viewer.innerTracker.keyHandler = null; // main.js has all keys in one place
  viewer.innerTracker.keyDownHandler = null;
  viewer.addHandler('update-viewport', () => {
    const source = viewer.world.getItemAt(0)?.source;
    if (!source?.keepOnly) return;
    const scale =
      viewer.viewport.getContainerSize().x / viewer.viewport.getBounds(true).width / source.width;
    const ratio = window.devicePixelRatio || 1;
    source.keepOnly(
      viewer.viewport.getBounds(true),
      source.maxLevel + Math.ceil(Math.log2(scale * ratio)) + 1,
    );
  });
  return viewer;
}

/* The slide's own pixels as a layer of the view. OpenSeadragon counts a tile that failed as done,
   shows a coarser one in its place, and never asks again. */
export class Pixels {
  constructor(viewer) {
    Object.assign(this, { viewer, what: 'Pixels of the slide' });
    this.failed = new WeakMap(); // { time, message } by tile
    this.tiles = []; // in view, of the finest level that the view takes
    viewer.addHandler('update-level', ({ level, currenttime: time }) => {
      if (time !== this.time) Object.assign(this, { time, finest: level, tiles: [] });
    });
    viewer.addHandler('update-tile', ({ tile }) => {
      if (tile.level === this.finest) this.tiles.push(tile);
    });
    viewer.addHandler('tile-load-failed', ({ tile, message }) => this.note(tile, message));
    viewer.addHandler('update-viewport', () => this.askAgain());
  }

  get canvas() {
    return this.viewer.drawer.canvas;
  }

  // Whether tiles are still to come.
  get behind() {
    const coming = this.tiles.some(({ exists, loaded }) => exists && !loaded);
    return coming || !this.viewer.world.getItemAt(0)?.getFullyLoaded();
  }

  // Why some will not.
  get problem() {
    const failed = this.tiles.find((tile) => !tile.exists && this.failed.has(tile));
    return failed ? this.failed.get(failed).message : null;
  }

  // One that was dropped will be asked for when it is in view again.
  note(tile, message) {
    if (message !== MOVED_ON) this.failed.set(tile, { time: performance.now(), message });
    else
      queueMicrotask(() => {
        tile.exists = true;
      });
  }

  askAgain() {
    const before = performance.now() - 1000 * ANSWER;
    const due = this.tiles.filter(
      (tile) => !tile.exists && this.failed.get(tile)?.time < before,
    );
    for (const tile of due) tile.exists = true;
    if (due.length) this.viewer.world.getItemAt(0).setClip(null); // has it look at its tiles
  }
}

/* Outlines of the tissue as paths, with fewer vertices from afar. */
class Tissue {
  /* rings: [[x0, y0, x1, y1, ...], ...], px */
  constructor(rings) {
    this.rings = rings;
    this.levels = new Map();
  }

  /* A path a ring, and one of all of them, true to a screen px. */
  paths(scale) {
    const level = Math.max(0, Math.floor(Math.log2(1 / scale)));
    if (!this.levels.has(level)) {
      const each = this.rings.map((ring) => traceRing(ring, level && 2 ** level));
      const all = new Path2D();
      for (const path of each) all.addPath(path);
      this.levels.set(level, { each, all });
    }
    return this.levels.get(level);
  }
}

// Vertices closer than `coarse` px to the last one are passed over.
function traceRing(ring, coarse) {
  const path = new Path2D();
  let [x, y] = ring;
  path.moveTo(x, y);
  for (let i = 2; i < ring.length; i += 2) {
    if (Math.abs(ring[i] - x) + Math.abs(ring[i + 1] - y) < coarse) continue;
    [x, y] = [ring[i], ring[i + 1]];
    path.lineTo(x, y);
  }
  path.closePath();
  return path;
}

/* Pictures over the slide that are switched on and off, and the region that was segmented. */
export class Overlays {
  constructor(viewer, slide, number) {
    Object.assign(this, { viewer, slide, number });
    this.shown = { tissue: false, skipped: false };
    this.behind = false; // whether something shown is still to come
    this.canvas = document.createElement('canvas');
    this.canvas.className = 'nuclei';
    viewer.canvas.append(this.canvas);
    this.draw = this.draw.bind(this);
    viewer.addHandler('update-viewport', this.draw);
  }

  close() {
    this.viewer.removeHandler('update-viewport', this.draw);
    this.canvas.remove();
  }

  async show(shown) {
    this.shown = shown;
    try {
      if (shown.tissue && !this.tissue && !this.slide.picture.problem) {
        this.behind = true;
        this.tissue = new Tissue(await fetchTissue(this.number));
      }
    } finally {
      this.behind = false;
      this.viewer.forceRedraw();
    }
  }

  draw() {
    const { viewer, slide, canvas } = this,
      ratio = window.devicePixelRatio || 1;
    canvas.hidden = !this.shown.tissue && !this.shown.skipped && !slide.region;
    if (canvas.hidden) return;
    const { x: width, y: height } = viewer.viewport.getContainerSize();
    const bounds = viewer.viewport.getBounds(true);
    Object.assign(canvas, { width: Math.round(width * ratio), height: Math.round(height * ratio) });
    const scale = canvas.width / (bounds.width * slide.width);
    const context = canvas.getContext('2d');
    context.setTransform(
      scale,
      0,
      0,
      scale,
      -bounds.x * slide.width * scale,
      -bounds.y * slide.width * scale,
    );
    if (this.shown.tissue && this.tissue) this.drawTissue(context, scale / ratio);
    if (this.shown.skipped && slide.facts.tile_grid) this.drawSkipped(context, scale / ratio);
    if (slide.region) this.drawRegion(context, scale / ratio);
  }

  // Glass is shaded, with a line around the tissue that is as wide at every zoom.
  drawTissue(context, scale) {
    const { each, all } = this.tissue.paths(scale);
    const glass = new Path2D(all);
    glass.rect(0, 0, this.slide.width, this.slide.height);
    context.fillStyle = UNSEEN;
    context.fill(glass, 'evenodd');
    const lines = each.map((path) => ({ path, color: TISSUE }));
    strokeOutlines(context, lines, 2 / scale);
  }

  // What lies outside of the region was not segmented: shaded, with a frame around the region.
  drawRegion(context, scale) {
    const { width, height, region } = this.slide;
    context.fillStyle = UNSEEN;
    context.beginPath();
    context.rect(0, 0, width, height);
    context.rect(...region);
    context.fill('evenodd');
    const frame = new Path2D();
    frame.rect(...region);
    strokeOutlines(context, [{ path: frame, color: BLACK }], 2 / scale, PALE);
  }

  drawSkipped(context, scale) {
    const { lefts, widths, tops, heights, looked_at: rows } = this.slide.facts.tile_grid;
    context.fillStyle = '#0072b240';
    context.beginPath();
    rows.forEach((row, i) =>
      [...row].forEach((mark, j) => {
        if (mark === '0') context.rect(lefts[j], tops[i], widths[j], heights[i]);
      }),
    );
    context.fill();
    context.strokeStyle = '#0072b2';
    context.lineWidth = 1 / scale;
    context.stroke();
  }
}
