/* The server's answers. Addresses are relative: the page's own one begins with the token. */

const ENDED = 'No answer: nucseg view has ended. Start it again, and open its new address.';

// Fetch, or say in one line what the server said.
async function ask(path, parameters, signal) {
  const query = new URLSearchParams(parameters).toString();
  const answer = await fetch(query ? `${path}?${query}` : path, { signal }).catch((error) => {
    throw signal?.aborted ? error : new Error(ENDED);
  });
  if (answer.ok) return answer;
  const told = await answer.json().catch(() => ({}));
  throw new Error(told.error ?? `${path}: status ${answer.status}`);
}

const json = async (...call) => (await ask(...call)).json();

export const listSlides = () => json('slides.json');

/* All about a slide. Its index may have to be made first: `tell` is called with how many nuclei
   of how many are done. */
export async function describeSlide(number, tell, signal) {
  for (;;) {
    const answer = await ask(`slides/${number}/info`, {}, signal);
    const content = await answer.json();
    if (answer.status !== 202) return content;
    tell(content.done, content.total);
  }
}

export const imagePath = (number, level, x, y) => `slides/${number}/image/${level}/${x}_${y}.jpg`;

export async function fetchBlob(path, signal) {
  return (await ask(path, {}, signal)).blob();
}

export async function fetchTile(number, { level, x, y, column, outlines }, signal) {
  const answer = await ask(
    `slides/${number}/tiles/${level}/${x}_${y}`,
    { column, outlines: outlines ? 1 : 0 },
    signal,
  );
  return answer.arrayBuffer();
}

export async function fetchDensity(number, parameters, signal) {
  const buffer = await (await ask(`slides/${number}/density`, parameters, signal)).arrayBuffer();
  const [height, width] = new Uint32Array(buffer, 0, 2);
  const [cell] = new Float32Array(buffer, 8, 1);
  const num = height * width;
  return {
    height,
    width,
    cell,
    counts: new Float32Array(buffer, 16, num),
    means: new Float32Array(buffer, 16 + 4 * num, num),
  };
}

// Rings around the tissue, px: [[x0, y0, x1, y1, ...], ...].
export const fetchTissue = async (number) => (await json(`slides/${number}/tissue.json`)).rings;

export const fetchView = (number, parameters, signal) =>
  json(`slides/${number}/view`, parameters, signal);

// The nucleus at a place or of an id; null if there is none.
export const fetchNucleus = (number, parameters) => json(`slides/${number}/nucleus`, parameters);
