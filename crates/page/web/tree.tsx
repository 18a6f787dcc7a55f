// The jobs that a job has asked for: how far they are, one below the other, and what ran where and when.

import { useSignal } from '@preact/signals';
import type { JSX } from 'preact';
import { useEffect } from 'preact/hooks';

import { get, query, sentence } from './api';
import { Runs, runsOf } from './gantt';
import { Graph } from './graph';
import { onJobs, onReopen } from './live';
import { Note, State, When, Wide } from './parts';
import { href } from './route';
import { count, number, plain } from './text';
import { now, span, tick } from './time';
import { hasEnded, type JobBrief, type JobPage, type JobStatus } from './types';

/** How many children of one job are read; a site tells the hub of no more. */
const READ_MAX = 1_000;

/** How many are asked for at once, and how many rows come with each press of a button. */
const PAGE = 500;
const ROWS = 50;

/** The children of a job, the first first, kept fresh. */
function useChildren(id: string): { jobs: JobBrief[] | null; error: unknown } {
  const found = useSignal<JobBrief[] | null>(null);
  const error = useSignal<unknown>(null);
  useEffect(() => {
    const stop = new AbortController();
    // What was told of while pages were on their way: it is newer than what they say.
    const told = new Map<string, JobBrief>();
    const load = async (): Promise<void> => {
      told.clear();
      try {
        const jobs = new Map<string, JobBrief>();
        let after: string | undefined;
        do {
          const page = await get<JobPage>(query('jobs', { parent: id, limit: PAGE, after }), { signal: stop.signal });
          page.jobs.forEach((job) => jobs.set(job.job_id, job));
          after = page.after;
        } while (after !== undefined && jobs.size < READ_MAX);
        told.forEach((job, id) => jobs.set(id, job));
        found.value = sorted(jobs);
        error.value = null;
      } catch (caught) {
        if (!stop.signal.aborted) error.value = caught;
      }
    };
    void load();
    const take = (changed: Map<string, JobBrief>): void => {
      const fresh = [...changed.values()].filter((job) => job.parent === id);
      fresh.forEach((job) => told.set(job.job_id, job));
      if (fresh.length === 0 || !found.value) return;
      found.value = sorted(new Map([...found.value, ...fresh].map((job) => [job.job_id, job])));
    };
    const offs = [onJobs(take), onReopen(() => void load())];
    return () => {
      stop.abort();
      offs.forEach((off) => off());
    };
  }, [id]);
  return { jobs: found.value, error: error.value };
}

/** In the order of their numbers, which are the ends of their ids. */
function sorted(jobs: Map<string, JobBrief>): JobBrief[] {
  const no = (job: JobBrief): number => Number(job.job_id.slice(job.job_id.lastIndexOf('-') + 1)) || 0;
  return [...jobs.values()].sort((a, b) => no(a) - no(b));
}

export function Tree({ job }: { job: JobStatus }): JSX.Element {
  const { jobs, error } = useChildren(job.job_id);
  const all = job.children?.all ?? 0;
  return (
    <section aria-labelledby="tree">
      <div class="head tools"><h2 id="tree">{job.children?.tasks === undefined ? 'Its jobs' : 'Its tasks'}</h2></div>
      {error !== null && <Note bad>{sentence(error)}</Note>}
      {jobs === null ? !error && <p class="faint">Asking…</p> : (
        <>
          <Progress job={job} jobs={jobs} />
          <Graph job={job} jobs={jobs} />
          {jobs.length > 0 && <Kinds jobs={jobs} />}
          {jobs.length > 0 && <Rows jobs={jobs} />}
          {all > jobs.length && (
            <p class="faint">{number(all - jobs.length)} more are only counted: the hub is told of the first {number(READ_MAX)}.</p>
          )}
          <Runs runs={runsOf(job, jobs)} />
        </>
      )}
    </section>
  );
}

/** In the order in which the bar has them. */
const PARTS = ['completed', 'failed', 'cancelled', 'running', 'held', 'waiting'] as const;
type Part = (typeof PARTS)[number];

/** How many are how far, as a bar and in words; of a workflow its tasks that have not begun, too. */
function Progress({ job, jobs }: { job: JobStatus; jobs: JobBrief[] }): JSX.Element | null {
  const counts: Record<Part, number> = { completed: 0, failed: 0, cancelled: 0, running: 0, held: 0, waiting: 0 };
  for (const { state } of jobs) if (state in counts) counts[state as Part] += 1;
  const tasks = job.children?.tasks;
  counts.waiting = Math.max(0, (tasks ?? 0) - (job.children?.all ?? 0));
  const total = PARTS.reduce((sum, part) => sum + counts[part], 0);
  if (total === 0) return null;
  const word = (part: Part): string => (part !== 'waiting' ? part : hasEnded(job.state) ? 'never begun' : 'not begun');
  const parts = PARTS.filter((part) => counts[part] > 0);
  let from = 0;
  return (
    <>
      <svg class="share" aria-hidden="true">
        {parts.map((part) => {
          const x = from;
          from += (counts[part] / total) * 100;
          return <rect key={part} class={`run ${part}`} x={`${x}%`} width={`${from - x}%`} height="10" />;
        })}
      </svg>
      <p>
        {tasks !== undefined && <>{count(tasks, 'task')}: </>}
        {parts.map((part) => `${number(counts[part])} ${word(part)}`).join(', ')}
      </p>
    </>
  );
}

/** How far the kinds of work are, where there are several. */
function Kinds({ jobs }: { jobs: JobBrief[] }): JSX.Element | null {
  const kinds = new Map<string, JobBrief[]>();
  for (const job of jobs) {
    const kind = job.task ?? '';
    const same = kinds.get(kind);
    if (same) same.push(job);
    else kinds.set(kind, [job]);
  }
  if (kinds.size < 2 || kinds.size === jobs.length) return null;
  const of = (same: JobBrief[], state: string): string => {
    const many = same.filter((job) => job.state === state).length;
    return many > 0 ? number(many) : '';
  };
  return (
    <details>
      <summary>By kind of work: {count(kinds.size, 'task')}</summary>
      <Wide label="By kind of work">
        <table class="dense">
          <thead><tr>
            <th scope="col">Task</th><th scope="col" class="n">All</th><th scope="col" class="n">Completed</th>
            <th scope="col" class="n">Failed</th><th scope="col" class="n">Running</th><th scope="col" class="n">Ran for, together</th>
          </tr></thead>
          <tbody>
            {[...kinds].map(([kind, same]) => (
              <tr key={kind}>
                <th scope="row">{plain(kind)}</th><td class="n">{number(same.length)}</td><td class="n">{of(same, 'completed')}</td>
                <td class="n">{of(same, 'failed')}</td><td class="n">{of(same, 'running')}</td>
                <td class="n">{span(same.reduce((sum, job) => sum + (took(job) ?? 0), 0))}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </Wide>
    </details>
  );
}

/** For how long a job ran, or runs, in milliseconds. */
function took(job: JobBrief): number | undefined {
  if (!job.started_at || !(hasEnded(job.state) || job.state === 'running')) return undefined;
  const end = hasEnded(job.state) ? Date.parse(job.updated_at) : now();
  return Math.max(0, end - Date.parse(job.started_at));
}

function Rows({ jobs }: { jobs: JobBrief[] }): JSX.Element {
  void tick.value;
  return (
    <Wide label="Tree of jobs">
      <table class="dense tree">
        <thead><tr>
          <th scope="col">Job</th><th scope="col">State</th><th scope="col">Task</th><th scope="col">Pool</th><th scope="col">Host</th>
          <th scope="col">Started</th><th scope="col" class="n">Ran for</th>
        </tr></thead>
        <tbody><Below jobs={jobs} depth={0} /></tbody>
      </table>
    </Wide>
  );
}

/** So many rows, and a button for more. */
function Below({ jobs, depth }: { jobs: JobBrief[]; depth: number }): JSX.Element {
  const rows = useSignal(ROWS);
  const left = jobs.length - rows.value;
  return (
    <>
      {jobs.slice(0, rows.value).map((job) => <Row key={job.job_id} job={job} depth={depth} />)}
      {left > 0 && (
        <tr><td colSpan={7}><button type="button" onClick={() => (rows.value += 4 * ROWS)}>Show more: {number(left)} left</button></td></tr>
      )}
    </>
  );
}

function Row({ job, depth }: { job: JobBrief; depth: number }): JSX.Element {
  const open = useSignal(false);
  const title = plain(job.name ?? job.job_id);
  const ran = took(job);
  return (
    <>
      <tr>
        <th scope="row" class={`d${Math.min(depth, 4)}`}>
          {job.children && job.children.all > 0 && (
            <button type="button" class="quiet" aria-expanded={open.value} aria-label={`Jobs of ${title}`} onClick={() => (open.value = !open.value)}>
              {open.value ? '▾' : '▸'}
            </button>
          )}
          <a href={href({ view: 'job', id: job.job_id })} title={job.job_id}>{title}</a>
        </th>
        <td><State state={job.state} />{job.reason && job.state === 'failed' && <span class="faint"> {plain(job.reason)}</span>}</td>
        <td>{job.task && plain(job.task)}</td>
        <td>{job.pool && plain(job.pool)}</td>
        <td>{job.host && plain(job.host)}</td>
        <td><When at={job.started_at} /></td>
        <td class="n">{ran === undefined ? '' : span(ran)}</td>
      </tr>
      {open.value && <Opened id={job.job_id} depth={depth + 1} />}
    </>
  );
}

function Opened({ id, depth }: { id: string; depth: number }): JSX.Element {
  const { jobs, error } = useChildren(id);
  if (jobs && jobs.length > 0) return <Below jobs={jobs} depth={depth} />;
  const said = error ? sentence(error) : jobs ? 'The hub is not told of them.' : 'Asking…';
  return <tr><td colSpan={7} class="faint">{said}</td></tr>;
}
