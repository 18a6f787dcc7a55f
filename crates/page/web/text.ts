// Text of others: what stands in it does nothing to the page. The page never makes markup of text; here it is made
// readable, and characters that would turn the direction of writing or hide something become visible.

/** Those that can do more than stand where they are; the same as `protocol::text` has. */
const HAZARDS = /[\u0000-\u001f\u007f-\u009f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]/g;

const code = (c: string): string => c.charCodeAt(0).toString(16);

/** On one line. */
export function plain(text: string): string {
  return text.replace(HAZARDS, (c) => (c === '\n' ? '\\n' : c === '\t' ? '\\t' : `\\u{${code(c)}}`));
}

/** JSON, indented, as text; such characters are written as JSON writes them, so the value stays what it is. */
export function json(value: unknown): string {
  const text = JSON.stringify(value, null, 2) ?? 'null';
  return text.replace(HAZARDS, (c) => (c === '\n' ? c : `\\u${code(c).padStart(4, '0')}`));
}

/** Reads JSON; a number that a computer would round stays as it was written, where the browser can do that. */
export function parse(text: string): unknown {
  const raw = (JSON as { rawJSON?: (source: string) => unknown }).rawJSON;
  if (!raw) return JSON.parse(text);
  const keep = (_: string, value: unknown, context?: { source?: string }): unknown =>
    typeof value === 'number' && context?.source !== undefined && String(value) !== context.source
      ? raw.call(JSON, context.source)
      : value;
  return JSON.parse(text, keep as (key: string, value: unknown) => unknown);
}

/** What a terminal is told: colors, titles, movements. */
const ESCAPES = new RegExp(
  [
    '\\u001b\\[[0-?]*[ -/]*[@-~]',
    '\\u009b[0-?]*[ -/]*[@-~]',
    '\\u001b[\\]PX^_][^\\u0007\\u001b]*(?:\\u0007|\\u001b\\\\)',
    '\\u001b[ -/]*[0-OQ-WYZ\\\\`-~]',
  ].join('|'),
  'g',
);

/** One of them that has begun at the end of a piece, and may go on in the next. */
const BEGUN = /\u001b(?:\[[0-?]*[ -/]*|[\]PX^_][^\u0007\u001b]*\u001b?|[ -/]*)$|\u009b[0-?]*[ -/]*$/;

/** How much of one that has begun is kept until its end comes. */
const BEGUN_MAX = 1_000;

/** How long a line without an end may get before it is cut. */
const LINE_MAX = 16_000;

/**
 * Turns pieces of what a program has printed into lines. Escape sequences are left out; where a program goes back in
 * its line, as bars of progress do, the last that it wrote there is shown; other control characters become visible.
 */
export class Lines {
  private begun = '';
  private line = '';

  /** The lines that this piece ends, each with its end. */
  push(piece: string): string {
    let text = this.begun + piece;
    this.begun = '';
    const begun = BEGUN.exec(text);
    if (begun && text.length - begun.index <= BEGUN_MAX) {
      this.begun = begun[0];
      text = text.slice(0, begun.index);
    }
    const lines = (this.line + text.replace(ESCAPES, '')).split('\n');
    let last = lines.pop() ?? '';
    let ended = lines.map((line) => `${shown(line)}\n`).join('');
    while (last.length > LINE_MAX) {
      // Of a program that only goes back in its line, what it wrote last is enough.
      const back = last.lastIndexOf('\r', last.length - 2);
      if (back > 0) {
        last = last.slice(back + 1);
        continue;
      }
      const half = /[\ud800-\udbff]/.test(last.charAt(LINE_MAX - 1)) ? 1 : 0;
      ended += `${shown(last.slice(0, LINE_MAX - half))}\n`;
      last = last.slice(LINE_MAX - half);
    }
    this.line = last;
    return ended;
  }

  /** The line that has not ended yet. */
  get open(): string {
    return shown(this.line);
  }
}

function shown(line: string): string {
  let text = line;
  if (line.includes('\r')) {
    const parts = line.split('\r').filter((part) => part !== '');
    text = parts[parts.length - 1] ?? '';
  }
  return text.replace(HAZARDS, (c) => (c === '\t' ? c : `\\u{${code(c)}}`));
}

/** So many things, in words. */
export function count(n: number, one: string, many = `${one}s`): string {
  return `${number(n)} ${n === 1 ? one : many}`;
}

const NUMBER = new Intl.NumberFormat('en-US');

export function number(n: number): string {
  return NUMBER.format(n);
}

/** Bytes, as a person says them. */
export function bytes(n: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];
  let at = 0;
  let value = n;
  while (value >= 1024 && at < units.length - 1) {
    value /= 1024;
    at += 1;
  }
  return `${value >= 10 || at === 0 || Number.isInteger(value) ? Math.round(value) : value.toFixed(1)} ${units[at]}`;
}
