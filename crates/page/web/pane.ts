// What one stream of a job has printed, as text in the document. It is only ever text nodes, and only so much of it.

import { Lines } from './text';

/** How much is kept, in characters; what was printed before that goes. */
const KEPT_MAX = 2_000_000;

/** How much one block holds. The browser lays out only those blocks that are in sight. */
const BLOCK_MAX = 16_000;

export class Pane {
  readonly element = document.createElement('div');
  /** Called when something was drawn, or waits. */
  onDraw: () => void = () => {};
  /** How many characters have come. */
  came = 0;
  /** Were some left out? */
  dropped = false;
  private lines = new Lines();
  private readonly open = document.createElement('div');
  private readonly openText = document.createTextNode('');
  private block: Text | undefined;
  private kept = 0;
  private waiting: string[] = [];
  private waitingSize = 0;
  private asked = 0;
  private stopped = false;

  constructor() {
    this.element.className = 'lines';
    this.open.className = 'open';
    this.open.append(this.openText);
    this.element.append(this.open);
  }

  /** How many characters have come and are not shown yet. */
  get behind(): number {
    return this.waitingSize;
  }

  push(text: string): void {
    if (!text) return;
    this.came += text.length;
    this.waiting.push(text);
    this.waitingSize += text.length;
    while (this.waitingSize > KEPT_MAX && this.waiting.length > 1) {
      this.waitingSize -= this.waiting.shift()?.length ?? 0;
      this.dropped = true;
    }
    this.soon();
  }

  /** A line of ours between those of the job. */
  mark(text: string): void {
    this.draw(true);
    if (this.came === 0) return;
    this.end();
    const line = document.createElement('div');
    line.className = 'mark';
    line.textContent = text;
    this.open.before(line);
    this.block = undefined;
  }

  /** While it is paused, what comes waits, and so much of it. */
  pause(paused: boolean): void {
    this.stopped = paused;
    this.soon();
  }

  close(): void {
    cancelAnimationFrame(this.asked);
  }

  private soon(): void {
    this.asked ||= requestAnimationFrame(() => {
      this.asked = 0;
      this.draw(false);
    });
  }

  private draw(now: boolean): void {
    if (this.waiting.length === 0) return;
    if (this.stopped && !now) {
      this.onDraw();
      return;
    }
    const text = this.waiting.join('');
    this.waiting = [];
    this.waitingSize = 0;
    this.add(this.lines.push(text));
    this.openText.data = this.lines.open;
    this.trim();
    this.onDraw();
  }

  /** The line that has not ended ends here: what follows is of something else. */
  private end(): void {
    const rest = this.lines.open;
    if (rest) this.add(`${rest}\n`);
    this.lines = new Lines();
    this.openText.data = '';
  }

  private add(text: string): void {
    for (let at = 0; at < text.length; ) {
      if (!this.block || this.block.length >= BLOCK_MAX) {
        const block = document.createElement('div');
        block.className = 'block';
        this.block = document.createTextNode('');
        block.append(this.block);
        this.open.before(block);
      }
      // Blocks end where lines do.
      const full = at + Math.max(1, BLOCK_MAX - this.block.length);
      const line = full >= text.length ? text.length : text.indexOf('\n', full) + 1 || text.length;
      this.block.appendData(text.slice(at, line));
      at = line;
    }
    this.kept += text.length;
  }

  private trim(): void {
    while (this.kept > KEPT_MAX && this.element.firstChild && this.element.firstChild !== this.open) {
      this.kept -= this.element.firstChild.textContent?.length ?? 0;
      this.element.firstChild.remove();
      this.dropped = true;
    }
  }
}
