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

/* Tiles of one slide. Requests of tiles that the view has left are dropped, and what failed is asked
   for again after a while. `tell` is called when something begins to be missing, and when it ends. */
export class SlideSource extends OpenSeadragon.TileSource {
  constructor(slide, number, tell) {
    super({
      width: slide.width,
      height: slide.height,
      tileSize: slide.picture.tile,
      minLevel: Math.min(COARSEST, slide.picture.levels - 1),
      maxLevel: slide.picture.levels - 1,
    });
    this.number = number;
    this.problem = slide.picture.problem;
    this.running = new Map(); // controllers by job
    this.failed = new Map(); // { message, at } by tile
    this.missing = null; // why tiles in view are not here
    this.tell = tell;
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
      const { message } = error;
      if (!controller.signal.aborted) this.failed.set(job.tile, { message, at: performance.now() });
      job.fail(controller.signal.aborted ? MOVED_ON : message, null);
    } finally {
      this.running.delete(job);
    }
  }

  downloadTileAbort(job) {
    this.running.get(job)?.abort();
  }

  /* Follow the view: `zoom` is the level of which a px is one of the screen. */
  follow(bounds, zoom) {
    for (const [{ tile }, controller] of this.running) {
      if (!isSeen(tile, bounds) || tile.level > Math.ceil(zoom) + 1) controller.abort();
    }
    const finest = Math.min(this.maxLevel, Math.max(this.minLevel, Math.floor(zoom) + 1));
    let missing = null;
    for (const [tile, { message, at }] of this.failed) {
      if (performance.now() > at + 1000 * ANSWER) {
        tile.exists = true; // asked for again, where it is seen
        this.failed.delete(tile);
      } else if (tile.level === finest && isSeen(tile, bounds)) missing ??= message;
    }
    if (missing === this.missing) return;
    this.missing = missing;
    this.tell();
  }
}

function isSeen({ bounds: tile }, view) {
  return (
    tile.x < view.x + view.width &&
    view.x < tile.x + tile.width &&
    tile.y < view.y + view.height &&
    view.y < tile.y + tile.height
  );
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
  viewer.innerTracker.keyHandler = null; // main.js has all keys in one place
  viewer.innerTracker.keyDownHandler = null;
  viewer.addHandler('update-viewport', () => {
    const source = viewer.world.getItemAt(0)?.source;
    if (!source?.follow) return;
    const scale =
      viewer.viewport.getContainerSize().x / viewer.viewport.getBounds(true).width / source.width;
    const ratio = window.devicePixelRatio || 1;
    source.follow(viewer.viewport.getBounds(true), source.maxLevel + Math.log2(scale * ratio));
  });
  // OpenSeadragon asks for no tile again that failed; one that was dropped it shall.
  viewer.addHandler('tile-load-failed', ({ tile, message }) => {
    if (message === MOVED_ON)
      queueMicrotask(() => {
        tile.exists = true;
      });
    else viewer.forceRedraw();
  });
  return viewer;
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

  /* Of the slide beneath. */
  get problem() {
    return this.viewer.world.getItemAt(0)?.source.missing;
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
