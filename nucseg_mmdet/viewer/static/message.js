/* The line over the slide: what the last act came to, and what is missing of what is shown. */

export class Message {
  constructor(element) {
    Object.assign(this, { element, said: null, kept: new Map() });
  }

  /* Say what an act came to, or nothing, in place of what was said before. */
  say(text) {
    this.said = text ?? null;
    this.show();
  }

  /* Have a line stand about something until it is told another, or none. */
  keep(about, text) {
    if (text) this.kept.set(about, text);
    else this.kept.delete(about);
    this.show();
  }

  clear() {
    this.kept.clear();
    this.say(null);
  }

  show() {
    const lines = [...new Set([this.said, ...this.kept.values()])].filter(Boolean);
    const within = (line) => lines.some((other) => other !== line && other.includes(line));
    const told = lines.filter((line) => !within(line)).map((line) => line.replace(/\.$/, ''));
    const text = told.join('. ');
    if (text !== this.element.textContent) this.element.textContent = text;
    this.element.hidden = !text;
  }
}
