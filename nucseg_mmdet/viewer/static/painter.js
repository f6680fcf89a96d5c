/* A worker: paints pictures of nuclei while the page goes on moving. */

import { paintTile } from './painting.js';
import { parseTile } from './tiles.js';

self.onmessage = ({ data: { buffer, square, margin, look, slide } }) => {
  const [left, top, side] = square,
    { scale } = look;
  const size = Math.ceil(side * scale) + 2 * margin;
  const canvas = new OffscreenCanvas(size, size);
  const context = canvas.getContext('2d');
  context.setTransform(scale, 0, 0, scale, margin - left * scale, margin - top * scale);
  const num = paintTile(context, parseTile(buffer), square, look, slide);
  const picture = canvas.transferToImageBitmap();
  self.postMessage({ picture, num }, [picture]);
};
