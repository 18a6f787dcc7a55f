// Asking the edge. Whatever is asked carries the key, which this tab alone keeps, until it is closed.

import { signal } from '@preact/signals';

import { parse } from './text';
import { learnTime } from './time';

const KEY = 'hpc-queue.api-key';

/** The key, once a person has given one. */
export const key = signal<string | null>(stored());

/** Why nothing can be shown, whatever is looked at. */
export const trouble = signal<'wrong_key' | 'no_hub' | null>(null);

function stored(): string | null {
  try {
    return sessionStorage.getItem(KEY);
  } catch {
    // A browser that keeps nothing; then it is asked for after each reload.
    return null;
  }
}

export function setKey(value: string | null): void {
  try {
    if (value === null) sessionStorage.removeItem(KEY);
    else sessionStorage.setItem(KEY, value);
  } catch {
    // As above.
  }
  trouble.value = null;
  key.value = value;
}

/** The edge has answered, and not with what was asked for. */
export class Refused extends Error {
  constructor(
    readonly status: number,
    readonly code: string,
    detail: string,
    readonly retryAfter: number,
  ) {
    super(detail);
  }
}

/** What is to be said of a failure. */
export function sentence(error: unknown): string {
  if (error instanceof Refused) return error.message;
  return 'The edge cannot be reached. What is shown may be old.';
}

export interface Options {
  method?: string;
  body?: unknown;
  accept?: string;
  headers?: Record<string, string>;
  signal?: AbortSignal;
}

/** Asks; an answer that is a refusal is an error. */
export async function ask(path: string, options: Options = {}): Promise<Response> {
  const used = key.value;
  const headers: Record<string, string> = {
    'x-api-key': used ?? '',
    accept: options.accept ?? 'application/json',
    ...options.headers,
  };
  if (options.body !== undefined) headers['content-type'] = 'application/json';
  const answer = await fetch(path, {
    method: options.method ?? 'GET',
    headers,
    body: options.body === undefined ? null : JSON.stringify(options.body),
    signal: options.signal ?? null,
    cache: 'no-store',
    credentials: 'omit',
    redirect: 'error',
  });
  learnTime(answer);
  if (answer.ok) return answer;
  const refused = await problem(answer);
  if (refused.status === 401 && used === key.value) {
    setKey(null);
    trouble.value = 'wrong_key';
  }
  if (refused.code === 'no_hub') trouble.value = 'no_hub';
  throw refused;
}

/** Asks for JSON. */
export async function get<T>(path: string, options: Options = {}): Promise<T> {
  const answer = await ask(path, options);
  return parse(await answer.text()) as T;
}

/** A path with those of the values that are not empty. */
export function query(path: string, values: Record<string, string | number | undefined>): string {
  const pairs = Object.entries(values).filter(([, value]) => value !== undefined && value !== '');
  const search = new URLSearchParams(pairs.map(([name, value]) => [name, String(value)])).toString();
  return search ? `${path}?${search}` : path;
}

/** The path of a job. */
export function jobPath(id: string): string {
  return `jobs/${encodeURIComponent(id)}`;
}

async function problem(answer: Response): Promise<Refused> {
  const text = await answer.text().catch(() => '');
  let said: { code?: unknown; detail?: unknown; title?: unknown } = {};
  try {
    said = (JSON.parse(text) ?? {}) as typeof said;
  } catch {
    // Something between us and the edge has answered.
  }
  const word = (value: unknown): string | undefined => (typeof value === 'string' && value ? value : undefined);
  const detail = word(said.detail) ?? word(said.title) ?? `The edge answered ${answer.status}.`;
  const seconds = Number(answer.headers.get('retry-after'));
  return new Refused(answer.status, word(said.code) ?? '', detail, Number.isFinite(seconds) ? seconds : 0);
}
