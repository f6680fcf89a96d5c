/* The view in the page's address: #slide=NAME&x=1&y=2&zoom=0.5&...; x, y are px of the slide in the
   middle of the screen, zoom is screen px an image px. */

export const SWITCHES = ['nuclei', 'fill', 'tissue', 'skipped'];

/* What the address asks for; null or undefined where it says nothing of use. Of a slide that is
   not here only its name, `missing`. */
export function readAddress(slides) {
  const from = new URLSearchParams(location.hash.slice(1));
  const name = from.get('slide');
  const { number } = slides.find((slide) => slide.name === name) ?? {};
  // All else is about that slide, and wrong of another.
  if (name !== null && number === undefined) return { number: slides[0].number, missing: name };
  const numbers = ['x', 'y', 'zoom', 'score', 'nucleus'].map((key) => {
    const value = from.has(key) ? Number(from.get(key)) : NaN;
    return [key, Number.isFinite(value) ? value : null];
  });
  const hidden = (from.get('hidden') ?? '').split(',').filter((part) => /^\d+$/.test(part));
  const show = from.get('show')?.split(',');
  return {
    ...Object.fromEntries(numbers),
    number: number ?? slides[0].number,
    color: from.get('color'),
    measurement: from.get('measurement'),
    hidden: new Set(hidden.map(Number)),
    show: show && Object.fromEntries(SWITCHES.map((name) => [name, show.includes(name)])),
  };
}

export function writeAddress(slide, state, { x, y, scale, width, height }) {
  const parts = {
    slide: slide.name,
    x: Math.round(x + width / scale / 2),
    y: Math.round(y + height / scale / 2),
    zoom: Number(scale.toPrecision(5)),
    score: state.score,
    color: state.color,
    measurement: state.measurement,
    show: SWITCHES.filter((name) => state[name]).join(),
  };
  if (state.hidden.size) parts.hidden = [...state.hidden].join();
  if (state.nucleus) parts.nucleus = state.nucleus.row.id;
  return `#${new URLSearchParams(parts)}`;
}
