// What changes while somebody looks: one stream of events for all views, and the state of the connection. While
// nobody looks at the tab, nothing is streamed.

import { batch, effect, signal } from '@preact/signals';

import { get, key, sentence, trouble } from './api';
import { follow, type Link } from './events';
import type { JobBrief, Pool, Sites } from './types';

/** How long a tab may be hidden before its streams are closed. Of these, a browser has only six for all tabs. */
const HIDDEN_MAX = 20_000;

/** How often changes are shown at the most: a burst of a thousand events is one change. */
const SHOW_EVERY = 150;

export const link = signal<Link>({ state: 'connecting' });
export const sites = signal<Sites | null>(null);
export const pools = signal<Pool[] | null>(null);

/** Jobs whose state has changed, for whoever shows jobs; newest last. */
type JobListener = (changed: Map<string, JobBrief>) => void;
const listeners = new Set<JobListener>();
const reopened = new Set<() => void>();

/** Calls with what has changed, some times a second at the most. */
export function onJobs(listener: JobListener): () => void {
  listeners.add(listener);
  return () => listeners.delete(listener);
}

/** Calls whenever the stream has begun anew: what happened in between was missed. */
export function onReopen(listener: () => void): () => void {
  reopened.add(listener);
  return () => reopened.delete(listener);
}

let changed = new Map<string, JobBrief>();
let timer: ReturnType<typeof setTimeout> | undefined;

function flush(): void {
  timer = undefined;
  const now = changed;
  changed = new Map();
  batch(() => listeners.forEach((listener) => listener(now)));
}

/** How many wait in the queue is told of with sites only; jobs that move mean that it has changed. */
const COUNT_EVERY = 5_000;
let counting: ReturnType<typeof setTimeout> | undefined;

function recount(): void {
  clearTimeout(counting);
  counting = undefined;
  if (watched.peek() && link.peek().state === 'live') void loadSites();
}

/** A site that has no link, and only reports now and then, goes away without a word. */
setInterval(recount, 60_000);

function took(event: string, data: string): void {
  let value: unknown;
  try {
    value = JSON.parse(data);
  } catch {
    return;
  }
  if (typeof value !== 'object' || value === null) return;
  if (event === 'job' && typeof (value as JobBrief).job_id === 'string') {
    const job = value as JobBrief;
    changed.delete(job.job_id);
    changed.set(job.job_id, job);
    timer ??= setTimeout(flush, SHOW_EVERY);
    counting ??= setTimeout(recount, COUNT_EVERY);
  } else if (event === 'pools') {
    const told = (value as { pools?: Pool[] }).pools;
    if (Array.isArray(told) && pools.value) pools.value = merged(pools.value, withHistory(told), host);
  } else if (event === 'sites' && Array.isArray((value as Sites).sites)) {
    const told = value as Sites;
    const before = sites.value?.sites ?? [];
    sites.value = { sites: merged(before, told.sites, (site) => site.daemon), queue: told.queue };
  }
}

/** An event tells of one daemon; the others stay as they were. */
function merged<T>(before: T[], told: T[], of: (one: T) => string): T[] {
  const daemons = new Set(told.map(of));
  const first = before.findIndex((one) => daemons.has(of(one)));
  const others = before.filter((one) => !daemons.has(of(one)));
  const at = first < 0 ? others.length : before.slice(0, first).filter((one) => !daemons.has(of(one))).length;
  return [...others.slice(0, at), ...told, ...others.slice(at)];
}

const host = (pool: Pool): string => JSON.stringify([pool.site, pool.host]);

/** Fresh pools come without their past, which goes on here. */
function withHistory(told: Pool[]): Pool[] {
  const before = new Map((pools.value ?? []).map((pool) => [poolId(pool), pool.history]));
  return told.map((pool) => {
    const history = pool.history ?? before.get(poolId(pool));
    if (!history) return pool;
    const { updated_at: at, held, running, capacity, allocations, want, why } = pool;
    const last = history[history.length - 1];
    if (last && Date.parse(last.at) >= Date.parse(at)) return { ...pool, history };
    const sample = { at, held, running, capacity, allocations, want, why } as NonNullable<Pool['history']>[number];
    return { ...pool, history: [...history.slice(-HISTORY_MAX), sample] };
  });
}

/** How much of the past is kept here. */
const HISTORY_MAX = 5_000;

export function poolId(pool: Pool): string {
  return JSON.stringify([pool.site, pool.host, pool.pool]);
}

/** Says what failed to whoever asked. */
export const failure = signal<string | null>(null);

export async function loadPools(): Promise<void> {
  await load(async () => {
    pools.value = (await get<{ pools: Pool[] }>('pools?history=1')).pools;
  });
}

export async function loadSites(): Promise<void> {
  await load(async () => {
    sites.value = await get<Sites>('sites');
  });
}

async function load(work: () => Promise<void>): Promise<void> {
  try {
    await work();
    failure.value = null;
  } catch (error) {
    failure.value = sentence(error);
  }
}

/** Does somebody look at this tab? Otherwise nothing is streamed. */
export const watched = signal(!document.hidden);
let hiding: ReturnType<typeof setTimeout> | undefined;
document.addEventListener('visibilitychange', () => {
  clearTimeout(hiding);
  if (document.hidden) hiding = setTimeout(() => (watched.value = false), HIDDEN_MAX);
  else watched.value = true;
});

effect(() => {
  if (!key.value || trouble.value || !watched.value) return;
  let opened = 0;
  return follow({
    path: () => 'events',
    onEvent: ({ event, data }) => took(event, data),
    onOpen: () => {
      opened += 1;
      void loadSites();
      if (pools.peek()) void loadPools();
      if (opened > 1 || everOpened) reopened.forEach((listener) => listener());
      everOpened = true;
    },
    onState: (state) => {
      link.value = state;
    },
  });
});
let everOpened = false;
