/* From afar: a heat map of the density of nuclei, or of a measurement's mean where they are. */

import { fetchDensity } from './api.js';
import { heat, ramp } from './colors.js';
import { ANSWER } from './tiles.js';

const SETTLE = 90; // ms between the last change and a new map

export class HeatMap {
  /* arrived: called when a map has come. */
  constructor(slide, number, arrived) {
    Object.assign(this, { slide, number, arrived });
    this.map = null;
    this.due = false; // whether the map that was asked for is still to come
    this.problem = null; // why it will not
  }

  close() {
    clearTimeout(this.timer);
    this.request?.abort();
  }

  /* Ask for a map, { score, hidden, column }, unless it is the one that was asked for last and
     did come, or did not just now. */
  want(asked) {
    const text = JSON.stringify(asked);
    const again = this.problem && performance.now() > this.failedAt + 1000 * ANSWER;
    if (text === this.asked && !again) return;
    Object.assign(this, { asked: text, due: true, problem: null });
    clearTimeout(this.timer);
    this.timer = setTimeout(
      async () => {
        this.request?.abort();
        this.request = new AbortController();
        try {
          const grid = await fetchDensity(this.number, asked, this.request.signal);
          this.map = this.paint(grid, asked.column);
          if (this.asked === text) this.due = false;
        } catch (error) {
          if (error.name === 'AbortError') return;
          if (this.asked === text) {
            Object.assign(this, { due: false, problem: error.message });
            this.failedAt = performance.now();
          }
        }
        this.arrived();
      },
      this.map ? SETTLE : 0,
    );
  }

  /* Lay the map down; the context's unit is the slide's px, `scale` device px. Returns how many
     nuclei it shows. */
  draw(context, scale) {
    if (!this.map) return 0;
    context.imageSmoothingEnabled = true;
    // The grid halved until a cell has a px: less to lay down, and nothing flickers.
    const { levels, cell } = this.map;
    const level = Math.min(levels.length - 1, Math.max(0, Math.floor(-Math.log2(cell * scale))));
    context.save();
    context.beginPath();
    context.rect(0, 0, this.slide.width, this.slide.height);
    context.clip();
    context.drawImage(levels[level], 0, 0, levels[0].width * cell, levels[0].height * cell);
    context.restore();
    return this.map.num;
  }

  paint({ width, height, cell, counts, means }, column) {
    const { slide } = this;
    const canvas = document.createElement('canvas');
    Object.assign(canvas, { width, height });
    const context = canvas.getContext('2d');
    const image = context.createImageData(width, height);
    const about = slide.columns.find(({ name }) => name === column);
    let num = 0;
    counts.forEach((count, i) => {
      const share = count / slide.full_density;
      num += count;
      if (share < 0.004) return;
      const [red, green, blue, alpha = Math.min(0.85, 0.25 + share)] =
        about && !Number.isNaN(means[i])
          ? ramp((means[i] - about.low) / (about.high - about.low))
          : heat(share);
      image.data.set([red, green, blue, 255 * alpha], 4 * i);
    });
    context.putImageData(image, 0, 0);
    const area = ((cell * (slide.mpp ?? 0.25)) / 1000) ** 2; // mm2
    return { levels: halve(canvas), cell, num: Math.round(num * area) };
  }
}

// A picture, its half, quarter, ...
function halve(canvas) {
  const levels = [canvas];
  while (Math.min(canvas.width, canvas.height) > 64) {
    const half = document.createElement('canvas');
    Object.assign(half, {
      width: Math.ceil(canvas.width / 2),
      height: Math.ceil(canvas.height / 2),
    });
    half.getContext('2d').drawImage(canvas, 0, 0, canvas.width / 2, canvas.height / 2);
    levels.push(half);
    canvas = half;
  }
  return levels;
}
