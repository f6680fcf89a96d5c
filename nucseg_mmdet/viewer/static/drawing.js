/* How far the view is drawn, and the view as a picture once all of it is. */

import { make } from './draw.js';

export class Drawing {
  /* sign: shown while something of the view is still to come. */
  constructor(viewer, sign) {
    Object.assign(this, { viewer, sign, layers: [], waiting: null });
    // After all that draws, so that what they say is of this frame.
    viewer.addHandler('update-viewport', () => this.look(), null, -1);
    viewer.addHandler('fully-loaded-change', () => viewer.forceRedraw());
  }

  /* The layers of the slide that is shown now: { canvas, behind, problem, what }. Nobody waits for
     the slide before any more. */
  watch(layers) {
    this.layers = layers;
    this.waiting = null;
    this.sign.hidden = true;
  }

  /* Call back in the frame that shows all of the view, with a layer that lacks something for good,
     if any does. Who waited before waits no more. */
  wait(call) {
    this.waiting = call;
    this.viewer.forceRedraw();
  }

  look() {
    if (!this.layers.length) return;
    const behind = this.layers.some((one) => one.behind);
    this.sign.hidden = !behind;
    if (behind || !this.waiting) return;
    const call = this.waiting;
    this.waiting = null;
    call(this.layers.find(({ problem }) => problem));
  }

  /* Save the view as it is drawn, with a scale bar, as a PNG file. */
  save(bar, name) {
    const canvases = this.layers.map(({ canvas }) => canvas);
    compose(canvases, bar).toBlob((blob) => {
      const href = URL.createObjectURL(blob);
      make('a', { href, download: name }).click();
      setTimeout(() => URL.revokeObjectURL(href), 10_000);
    });
  }
}

/* Lay canvases over one another, and a scale bar in the corner: the view as a picture. */
function compose(canvases, bar) {
  const picture = document.createElement('canvas'),
    ratio = window.devicePixelRatio || 1;
  const { width, height } = canvases.at(-1);
  Object.assign(picture, { width, height });
  const context = picture.getContext('2d');
  context.fillStyle = '#ffffff';
  context.fillRect(0, 0, width, height);
  for (const canvas of canvases) {
    if (!canvas.hidden) context.drawImage(canvas, 0, 0, width, height);
  }
  context.setTransform(ratio, 0, 0, ratio, 16 * ratio, height - 16 * ratio);
  context.font = '14px system-ui, sans-serif';
  const wide = Math.max(bar.width, context.measureText(bar.text).width);
  context.fillStyle = '#fffffff0';
  context.fillRect(-8, -30, wide + 16, 38);
  context.fillStyle = '#1b1b1f';
  context.fillText(bar.text, 0, -10);
  context.fillRect(0, -4, bar.width, 4);
  return picture;
}
