// Times as people read them: how long ago, with the exact time at hand. The clock is that of the edge, as far as its
// answers tell: this computer's may be wrong, and then everything would be "in the future".

import { signal } from '@preact/signals';

/** By how much the clock of the edge is ahead, in milliseconds. */
let ahead = 0;

/** Learns the time of the edge from its answer. */
export function learnTime(answer: Response): void {
  const theirs = Date.parse(answer.headers.get('date') ?? '');
  if (Number.isNaN(theirs)) return;
  const seen = theirs - Date.now();
  // The header has whole seconds, and the answer was on its way.
  ahead = Math.abs(seen) > 5_000 ? seen : 0;
}

/** Now, in milliseconds. */
export function now(): number {
  return Date.now() + ahead;
}

/** Changes every few seconds; whoever shows an age reads it. */
export const tick = signal(0);
setInterval(() => {
  if (!document.hidden) tick.value += 1;
}, 5_000);
document.addEventListener('visibilitychange', () => {
  tick.value += 1;
});

/** A length of time: `3 s`, `12 min`, `2 h 5 min`, `3 d`. */
export function span(milliseconds: number): string {
  const seconds = Math.max(0, milliseconds) / 1000;
  if (seconds < 1) return `${Math.round(seconds * 1000)} ms`;
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 60) return `${Math.floor(seconds)} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min${minutes < 10 ? ` ${Math.floor(seconds % 60)} s` : ''}`;
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return `${hours} h${hours < 10 && minutes % 60 ? ` ${minutes % 60} min` : ''}`;
  return `${Math.floor(hours / 24)} d`;
}

/** How long ago. */
export function ago(at: string): string {
  const age = now() - Date.parse(at);
  if (Number.isNaN(age)) return at;
  if (age < -5_000) return `in ${coarse(-age)}`;
  if (age < 5_000) return 'just now';
  return `${coarse(age)} ago`;
}

/** A length of time in one unit. */
export function coarse(milliseconds: number): string {
  const seconds = Math.floor(milliseconds / 1000);
  if (seconds < 60) return `${seconds} s`;
  if (seconds < 3_600) return `${Math.floor(seconds / 60)} min`;
  if (seconds < 48 * 3_600) return `${Math.floor(seconds / 3_600)} h`;
  return `${Math.floor(seconds / 86_400)} d`;
}

const DATE = new Intl.DateTimeFormat(undefined, {
  year: 'numeric', month: 'short', day: 'numeric', hour: '2-digit', minute: '2-digit', second: '2-digit',
  timeZoneName: 'short',
});
const CLOCK = new Intl.DateTimeFormat('en-GB', { hour: '2-digit', minute: '2-digit', second: '2-digit' });
const DAY = new Intl.DateTimeFormat('en-GB', { month: 'short', day: 'numeric' });

/** The exact time, as its reader's country writes it, and as it came. */
export function exact(at: string): string {
  const time = Date.parse(at);
  return Number.isNaN(time) ? at : `${DATE.format(time)} (${at})`;
}

/** The time of the day, with the day where it is not today. */
export function clock(at: string): string {
  const time = new Date(at);
  if (Number.isNaN(time.getTime())) return at;
  const today = new Date(now()).toDateString() === time.toDateString();
  return today ? CLOCK.format(time) : `${DAY.format(time)}, ${CLOCK.format(time)}`;
}
