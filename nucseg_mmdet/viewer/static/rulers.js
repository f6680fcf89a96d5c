/* Scale bar, magnification, and where the pointer is. */

const WIDEST = 160; // screen px of the scale bar

// The longest of 1, 2, 5, 10, ... that is at most `limit`.
export function roundLength(limit) {
  const power = 10 ** Math.floor(Math.log10(limit));
  return power * [5, 2, 1].find((factor) => factor * power <= limit);
}

export function lengthText(microns) {
  if (microns >= 1000) return `${microns / 1000} mm`;
  return microns < 1 ? `${1000 * microns} nm` : `${microns} µm`;
}

/* What the scale bar has to show where an image px takes `scale` screen px. */
export function scaleBar(scale, mpp) {
  const unit = mpp ?? 1; // microns, or px where nothing says how large they are
  const length = roundLength((WIDEST * unit) / scale);
  return { text: mpp ? lengthText(length) : `${length} px`, width: (length / unit) * scale };
}

export class Rulers {
  constructor(viewer) {
    this.viewer = viewer;
    this.bar = document.querySelector('#scale-bar i');
    this.length = document.querySelector('#scale-bar span');
    this.magnification = document.querySelector('#magnification');
    this.position = document.querySelector('#place');
  }

  show({ scale }, mpp) {
    const { text, width } = scaleBar(scale, mpp);
    this.length.textContent = text;
    this.bar.style.width = `${width.toFixed(1)}px`;
    // A camera's px of 10 microns over an objective: 0.25 microns are 40x, by convention.
    const times = (10 / mpp) * scale;
    this.magnification.textContent = mpp
      ? `${times >= 10 ? times.toFixed() : times.toPrecision(2)}×`
      : '';
  }

  point(x, y, mpp) {
    const px = `x ${Math.floor(x)}, y ${Math.floor(y)} px`;
    this.position.textContent = mpp
      ? `${px} = ${((x * mpp) / 1000).toFixed(3)}, ${((y * mpp) / 1000).toFixed(3)} mm`
      : px;
  }
}
