// Server-sent events over `fetch`, because a browser's own EventSource sends no key. A stream that ends is asked for
// again, with growing pauses, from where it was.

import { ask, Refused } from './api';

export interface Event {
  event: string;
  data: string;
}

/** Takes the bytes of a stream apart, as the HTML standard says. */
export class Parser {
  /** The last id that the server has given. */
  id = '';
  /** The pause before another try that the server asks for, in milliseconds. */
  retry: number | undefined;
  private rest = '';
  private event = '';
  private data: string[] = [];

  push(text: string): Event[] {
    const events: Event[] = [];
    // A carriage return at the very end may be half of an end of line.
    const whole = this.rest + text;
    const lines = whole.split(/\r\n|\n|\r(?!$)/);
    this.rest = lines.pop() ?? '';
    for (const line of lines) {
      if (line === '') {
        if (this.data.length > 0) events.push({ event: this.event || 'message', data: this.data.join('\n') });
        this.event = '';
        this.data = [];
        continue;
      }
      const colon = line.indexOf(':');
      const field = colon < 0 ? line : line.slice(0, colon);
      const value = colon < 0 ? '' : line.slice(colon + 1).replace(/^ /, '');
      if (field === 'event') this.event = value;
      else if (field === 'data') this.data.push(value);
      else if (field === 'id' && !value.includes('\0')) this.id = value;
      else if (field === 'retry' && /^\d+$/.test(value)) this.retry = Number(value);
    }
    return events;
  }
}

export type Link =
  | { state: 'connecting' }
  | { state: 'live' }
  | { state: 'waiting'; until: number; error: unknown }
  | { state: 'over'; error: unknown };

export interface Follower {
  /** Where to ask, each time anew. */
  path: () => string;
  onEvent: (event: Event) => void;
  /** The stream has begun, for the first time or again. */
  onOpen?: () => void;
  onState?: (link: Link) => void;
  /** Has all come that there is? Then it is not asked for again. */
  isOver?: () => boolean;
  /** The last id that the stream gave: from there on, it is asked for again. */
  lastId?: string;
}

const PAUSE_MIN = 1_000;
const PAUSE_MAX = 30_000;

/** What one stream may hold back before it is given up: an event without an end fills no memory. */
const REST_MAX = 4_000_000;

/** The edge sends something every 20 seconds; a stream that is silent for so long is dead, and nobody has said so. */
const SILENCE_MAX = 65_000;

/** Follows a stream until the returned function is called, or the edge says that there is none. */
export function follow(follower: Follower): () => void {
  const stop = new AbortController();
  void run(follower, stop.signal);
  return () => stop.abort();
}

async function run(follower: Follower, stopped: AbortSignal): Promise<void> {
  let pause = PAUSE_MIN;
  const tell = (link: Link): void => {
    if (!stopped.aborted) follower.onState?.(link);
  };
  while (!stopped.aborted) {
    tell({ state: 'connecting' });
    const parser = new Parser();
    let error: unknown;
    const silent = new AbortController();
    let watch = setTimeout(() => silent.abort(), SILENCE_MAX);
    try {
      const headers: Record<string, string> = follower.lastId ? { 'last-event-id': follower.lastId } : {};
      const signal = either(stopped, silent.signal);
      const answer = await ask(follower.path(), { accept: 'text/event-stream', headers, signal });
      if (!answer.headers.get('content-type')?.startsWith('text/event-stream') || !answer.body) {
        throw new Refused(answer.status, 'no_stream', 'The edge has no such stream.', 0);
      }
      tell({ state: 'live' });
      follower.onOpen?.();
      const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
      let size = 0;
      for (;;) {
        const { done, value } = await reader.read();
        if (done) break;
        clearTimeout(watch);
        watch = setTimeout(() => silent.abort(), SILENCE_MAX);
        const events = parser.push(value);
        size = events.length > 0 ? 0 : size + value.length;
        if (size > REST_MAX) {
          void reader.cancel();
          break;
        }
        if (parser.id) follower.lastId = parser.id;
        for (const event of events) {
          if (stopped.aborted) return;
          follower.onEvent(event);
          pause = PAUSE_MIN;
        }
      }
    } catch (caught) {
      error = caught;
    } finally {
      clearTimeout(watch);
    }
    if (stopped.aborted || follower.isOver?.()) return;
    if (error instanceof Refused && isFinal(error.status)) {
      tell({ state: 'over', error });
      return;
    }
    const asked = error instanceof Refused ? error.retryAfter * 1000 : (parser.retry ?? 0);
    // Not all pages of a lab at one moment.
    const wait = Math.min(PAUSE_MAX, Math.max(pause, asked)) * (0.75 + Math.random() / 2);
    pause = Math.min(PAUSE_MAX, pause * 2);
    tell({ state: 'waiting', until: Date.now() + wait, error });
    await sleep(wait, stopped);
  }
}

/** Would the edge say the same again? */
function isFinal(status: number): boolean {
  return status === 501 || (status < 500 && status !== 408 && status !== 429);
}

/** Aborts with the first of them. */
function either(a: AbortSignal, b: AbortSignal): AbortSignal {
  const one = new AbortController();
  for (const signal of [a, b]) signal.addEventListener('abort', () => one.abort(), { once: true, signal: one.signal });
  if (a.aborted || b.aborted) one.abort();
  return one.signal;
}

/** Waits, or until it is stopped, or until the network is back. */
function sleep(milliseconds: number, stopped: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const done = (): void => {
      clearTimeout(timer);
      stopped.removeEventListener('abort', done);
      removeEventListener('online', done);
      resolve();
    };
    const timer = setTimeout(done, milliseconds);
    stopped.addEventListener('abort', done);
    addEventListener('online', done);
  });
}
