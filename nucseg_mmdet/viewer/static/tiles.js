/* Tiles of nuclei: fetched while they are wanted, unpacked, kept for a while. */

import { fetchTile } from './api.js';

export const LEAF = 1024; // px, side of a tile of level 0; as in build.py
const STEPS = 16; // of a coordinate, a px; as in build.py
const AT_ONCE = 6; // requests
const KEPT = 400; // tiles
export const ANSWER = 4; // s; what failed is asked for again after that

/* Unpack what index.tile packed. Coordinates are px from the tile's corner. */
export function parseTile(buffer) {
  const [num, numRings, numPoints] = new Uint32Array(buffer, 0, 3);
  let at = 16;
  const take = (Kind, count) => {
    const part = new Kind(buffer, at, count);
    at += part.byteLength;
    return part;
  };
  return {
    buffer,
    num,
    centers: take(Float32Array, 2 * num),
    scores: take(Float32Array, num),
    values: take(Float32Array, num),
    ringSizes: take(Uint32Array, numRings),
    owners: take(Uint32Array, numRings),
    points: take(Int16Array, 2 * numPoints),
    classes: take(Uint8Array, num),
  };
}

/* Trace some nuclei of a tile as one path.

   Vertices lie on pixel edges, so outlines are stairs. Near, each corner is cut by half a pixel
   at most, which turns stairs of single pixels into slopes; from afar vertices closer than
   `coarse` px to the last one are passed over. */
export function traceRings(path, tile, rings, ringStarts, coarse) {
  const { points, ringSizes } = tile;
  for (const ring of rings) {
    const start = 2 * ringStarts[ring],
      num = ringSizes[ring];
    if (coarse) tracePassing(path, points, start, num, coarse * STEPS);
    else traceCutting(path, points, start, num);
    path.closePath();
  }
}

function tracePassing(path, points, start, num, coarse) {
  let lastX = points[start],
    lastY = points[start + 1];
  path.moveTo(lastX / STEPS, lastY / STEPS);
  for (let i = 1; i < num; i++) {
    const x = points[start + 2 * i],
      y = points[start + 2 * i + 1];
    if (Math.abs(x - lastX) + Math.abs(y - lastY) < coarse) continue;
    path.lineTo(x / STEPS, y / STEPS);
    lastX = x;
    lastY = y;
  }
}

function traceCutting(path, points, start, num) {
  for (let i = 0; i < num; i++) {
    const here = start + 2 * i;
    const before = start + 2 * ((i + num - 1) % num),
      after = start + 2 * ((i + 1) % num);
    const x = points[here],
      y = points[here + 1];
    for (const [index, other] of [before, after].entries()) {
      const dx = points[other] - x,
        dy = points[other + 1] - y;
      const share = Math.min(0.5, STEPS / 2 / (Math.hypot(dx, dy) || 1));
      const px = (x + share * dx) / STEPS,
        py = (y + share * dy) / STEPS;
      if (i || index) path.lineTo(px, py);
      else path.moveTo(px, py);
    }
  }
}

export class TileStore {
  /* arrived: called whenever a tile has come or failed. */
  constructor(number, arrived) {
    this.number = number;
    this.arrived = arrived;
    this.tiles = new Map(); // by key, the one used last at the end
    this.running = new Map(); // controllers by key
    this.failed = new Map(); // { time, message } by key
    this.wanted = [];
  }

  static key({ level, x, y, column, outlines }) {
    return `${level}/${x}_${y}/${outlines ? 1 : 0}/${column}`;
  }

  get(request) {
    const key = TileStore.key(request),
      tile = this.tiles.get(key);
    if (tile) {
      this.tiles.delete(key);
      this.tiles.set(key, tile);
    }
    return tile;
  }

  /* Why a tile does not come; null if it has, or still may. */
  problem(request) {
    const key = TileStore.key(request);
    return this.running.has(key) ? null : (this.failed.get(key)?.message ?? null);
  }

  /* Ask for these tiles, the first ones first; requests of all others are dropped. */
  want(requests) {
    this.wanted = requests;
    const keys = new Set(requests.map(TileStore.key));
    for (const [key, controller] of this.running) {
      if (!keys.has(key)) {
        controller.abort();
        this.running.delete(key);
      }
    }
    this.start();
  }

  start() {
    for (const request of this.wanted) {
      if (this.running.size >= AT_ONCE) return;
      const key = TileStore.key(request);
      const waits = performance.now() - (this.failed.get(key)?.time ?? -Infinity) < 1000 * ANSWER;
      if (!this.tiles.has(key) && !this.running.has(key) && !waits) this.fetch(key, request);
    }
  }

  async fetch(key, request) {
    const controller = new AbortController();
    this.running.set(key, controller);
    try {
      const tile = parseTile(await fetchTile(this.number, request, controller.signal));
      this.tiles.set(key, tile);
      this.failed.delete(key);
      for (const old of this.tiles.keys()) {
        if (this.tiles.size <= KEPT) break;
        this.tiles.delete(old);
      }
      this.arrived();
    } catch (error) {
      if (error.name === 'AbortError') return;
      this.failed.set(key, { time: performance.now(), message: error.message });
      this.arrived();
    } finally {
      if (this.running.get(key) === controller) this.running.delete(key);
      this.start();
    }
  }

  close() {
    this.want([]);
  }
}
