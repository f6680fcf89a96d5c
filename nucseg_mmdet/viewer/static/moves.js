/* What moves the view over the slide, and how far. */

import { sizeText } from './panel.js';

const { OpenSeadragon } = window;
const STEP = 0.25; // of the view, an arrow key's way
const SMALLEST = 64; // screen px that a link leaves of the slide's longer side

export class Moves {
  constructor(viewer) {
    this.viewer = viewer;
  }

  /* The slide that is shown now. */
  watch(slide) {
    this.slide = slide;
  }

  /* Have a point of the slide in the middle, at a scale that is in the range of the zoom. */
  goTo(x, y, scale) {
    const { slide, viewer } = this,
      { viewport } = viewer;
    const unit = slide.width / viewport.getContainerSize().x; // zoom a scale
    const least = (SMALLEST / Math.max(slide.width, slide.height)) * unit;
    const zoom = Math.min(viewport.getMaxZoom(), Math.max(least, scale * unit));
    viewport.zoomTo(zoom, null, true);
    viewport.panTo(new OpenSeadragon.Point(x / slide.width, y / slide.width), true);
  }

  /* Show a part of the slide and a little around it. */
  fit([x, y, width, height]) {
    const margin = 0.05 * Math.max(width, height);
    const parts = [x - margin, y - margin, width + 2 * margin, height + 2 * margin];
    const bounds = new OpenSeadragon.Rect(...parts.map((part) => part / this.slide.width));
    this.viewer.viewport.fitBounds(bounds, true);
  }

  /* What is seen first: the region that was segmented, or all of the slide. */
  start() {
    if (this.slide.region) this.fit(this.slide.region);
    else this.viewer.viewport.goHome(true);
  }

  home() {
    this.viewer.viewport.goHome();
  }

  zoomBy(factor) {
    this.viewer.viewport.zoomBy(factor).applyConstraints();
  }

  /* One image px a screen px. */
  fullSize() {
    const { viewport } = this.viewer;
    if (this.slide) viewport.zoomTo(this.slide.width / viewport.getContainerSize().x);
  }

  panBy(dx, dy) {
    const { viewport } = this.viewer,
      { width, height } = viewport.getBounds();
    viewport
      .panBy(new OpenSeadragon.Point(STEP * dx * width, STEP * dy * height))
      .applyConstraints();
  }
}

/* The place that a text names, { x, y } in px, or { problem } if it is none of the slide. */
export function readPlace(text, slide) {
  const [x, y] = text
    .split(/[\s,;]+/)
    .filter(Boolean)
    .map(Number);
  if (!Number.isFinite(x) || !Number.isFinite(y))
    return { problem: 'Two numbers: x, y in px of the slide' };
  const on = x >= 0 && y >= 0 && x <= slide.width && y <= slide.height;
  return on ? { x, y } : { problem: `Not on this slide of ${sizeText(slide)}` };
}

/* Whether a view, as NucleiLayer.place has it, shows something of a slide. */
export function showsSome({ x, y, scale, width, height }, slide) {
  return x < slide.width && y < slide.height && x + width / scale > 0 && y + height / scale > 0;
}
