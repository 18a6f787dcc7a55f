// What the hub answers: the shapes of `protocol::hub` and `protocol::link`. What is not there may be of an older edge,
// and what is not known here of a newer one.

export interface JobBrief {
  job_id: string;
  state: string;
  reason?: string;
  task?: string;
  name?: string;
  pool?: string;
  site?: string;
  /** The job that has asked for it. */
  parent?: string;
  children?: Children;
  host?: string;
  attempt: number;
  submitted_at?: string;
  started_at?: string;
  updated_at: string;
  cancel_requested_at?: string;
}

/** How many jobs a job has asked for; of a workflow, how many tasks it has. */
export interface Children {
  all: number;
  ended: number;
  tasks?: number;
}

export interface JobPage {
  jobs: JobBrief[];
  after?: string;
}

export interface Moment {
  at: string;
  event: string;
  attempt: number;
  site?: string;
}

export interface Callback {
  event: string;
  state: string;
  tries: number;
  at: string;
  outcome?: string;
}

export interface JobResult {
  output?: unknown;
  output_bytes?: number;
  result_pointer?: string;
  message?: string;
  exit_code?: number;
  signal?: number;
  host?: string;
  image?: string;
  command?: string[];
  started_at?: string;
  finished_at?: string;
  stdout_tail?: string;
  stderr_tail?: string;
  files?: JobFile[];
  files_note?: string;
  output_file?: { sha256: string; size: number };
}

export interface JobFile {
  path: string;
  size: number;
  sha256: string;
  pack?: boolean;
}

export interface JobFileLink extends JobFile {
  url: string;
}

export interface JobFiles {
  files: JobFileLink[];
  gone?: JobFile[];
}

export interface JobStatus extends JobBrief {
  message?: string;
  timeline: Moment[];
  input?: unknown;
  result?: JobResult;
  callbacks?: Callback[];
}

export interface Amount {
  cpus: number;
  memory?: number;
  gpus: number;
}

export interface PoolSample {
  at: string;
  held: number;
  running: number;
  capacity: Amount;
  allocations?: number;
  want?: number;
  why?: string;
}

export interface Pool {
  site: string;
  host: string;
  linked: boolean;
  updated_at: string;
  pool: string;
  ready: boolean;
  problem?: string;
  held: number;
  running: number;
  hold?: number;
  capacity: Amount;
  in_use: Amount;
  allocations?: number;
  want?: number;
  why?: string;
  history?: PoolSample[];
}

export interface Site {
  site: string;
  daemon: string;
  host: string;
  version: string;
  linked: boolean;
  since: string;
  seen_at: string;
  held: number;
  running: number;
  owed: number;
  draining?: boolean;
  trouble?: string;
}

export interface Sites {
  sites: Site[];
  queue: { queued: number; oldest_at?: string };
}

export interface LogEvent {
  attempt: number;
  stream: Stream;
  offset: number;
  next: number;
  text: string;
}

export type Stream = 'stdout' | 'stderr';

/** The states of a job, in the order in which it meets them. */
export const STATES = ['queued', 'held', 'running', 'completed', 'failed', 'cancelled'] as const;

/** Has a job in this state ended? Then it stays in it for good. */
export function hasEnded(state: string): boolean {
  return state === 'completed' || state === 'failed' || state === 'cancelled';
}
