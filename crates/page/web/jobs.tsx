// The list of jobs: filters, rows, and canceling many.

import { useSignal } from '@preact/signals';
import type { JSX } from 'preact';
import { useEffect, useMemo } from 'preact/hooks';

import { CancelFitting, CancelSelected } from './cancel';
import { JobList } from './list';
import { onJobs, onReopen, sites } from './live';
import { Note, State, Title, When } from './parts';
import { type Filters, go, href, lastFilters, NO_FILTERS } from './route';
import { count, number, plain } from './text';
import { hasEnded, type JobBrief, STATES } from './types';
import { useWindow } from './window';

export function Jobs({ filters }: { filters: Filters }): JSX.Element {
  // The view stays when the filters change, and with it the focus; only the list is another one.
  const address = href({ view: 'jobs', filters });
  const list = useMemo(() => new JobList(filters), [address]);
  const selected = useSignal<ReadonlySet<string>>(new Set());
  useEffect(() => {
    lastFilters.value = filters;
    void list.reload();
    const offs = [onJobs((changed) => list.take(changed)), onReopen(() => void list.reload())];
    return () => {
      offs.forEach((off) => off());
      list.close();
      selected.value = new Set();
    };
  }, [list]);
  const jobs = list.jobs.value;
  // What has ended meanwhile, or is not shown any more, is not selected any more either.
  const chosen = jobs.filter((job) => selected.value.has(job.job_id) && !hasEnded(job.state));
  return (
    <>
      <div class="head">
        <Title text="Jobs" />
        <Now />
      </div>
      <States filters={filters} />
      <Fields filters={filters} jobs={jobs} />
      <div class="head tools">
        <p class="faint" role="status">{summary(jobs.length, list.after.value !== undefined, list.loading.value)}</p>
        <CancelSelected jobs={chosen} onDone={() => (selected.value = new Set())} />
        <CancelFitting filters={filters} />
      </div>
      {list.error.value && <Note bad>{list.error.value}</Note>}
      {jobs.length > 0 ? (
        <Table jobs={jobs} list={list} selected={selected.value} onSelect={(ids) => (selected.value = ids)} />
      ) : (
        !list.loading.value && !list.error.value && <Nothing filters={filters} />
      )}
      {list.after.value !== undefined && (
        <p><button type="button" disabled={list.loading.value} onClick={() => void list.more()}>Load more</button></p>
      )}
    </>
  );
}

function summary(shown: number, more: boolean, loading: boolean): string {
  if (shown === 0) return loading ? 'Asking…' : '';
  return `${count(shown, 'job')} shown, newest first${more ? '; there are more' : ''}`;
}

/** How it stands, on one line, with the way to who works. */
function Now(): JSX.Element | null {
  const all = sites.value;
  if (!all) return null;
  const linked = all.sites.filter((site) => site.linked);
  const running = linked.reduce((sum, site) => sum + site.running, 0);
  const held = linked.reduce((sum, site) => sum + site.held, 0);
  return (
    <p class="faint">
      {number(all.queue.queued)} in the queue, {number(held)} held, {number(running)} running;{' '}
      <a href="#/sites">{linked.length === 0 ? 'no site linked' : `${count(linked.length, 'site')} linked`}</a>
    </p>
  );
}

function Nothing({ filters }: { filters: Filters }): JSX.Element {
  if (href({ view: 'jobs', filters }) === href({ view: 'jobs', filters: NO_FILTERS })) {
    return <Note>The hub has heard of no job yet. One is submitted with <code>laptop-consumer submit</code>, or with <code>curl</code>.</Note>;
  }
  return <Note>No job fits. <a href={href({ view: 'jobs', filters: NO_FILTERS })}>Show all</a></Note>;
}

/** The states, as links: one is looked at, or all. */
function States({ filters }: { filters: Filters }): JSX.Element {
  const links = [{ state: '', text: 'All' }, ...STATES.map((state) => ({ state, text: state }))];
  return (
    <nav class="chips" aria-label="States">
      {links.map(({ state, text }) => (
        <a key={text} href={href({ view: 'jobs', filters: { ...filters, state } })} aria-current={filters.state === state ? 'true' : undefined}>
          {state === '' ? text : <State state={state} />}
        </a>
      ))}
      <a href={href({ view: 'jobs', filters: { ...filters, top: filters.top ? '' : '1' } })} aria-current={filters.top ? 'true' : undefined}>
        without jobs of jobs
      </a>
    </nav>
  );
}

const LABELS = { task: 'Task', pool: 'Pool', name: 'Name', site: 'Site' } as const;

/** Which jobs; what stands there is looked for when its field is left, or with the return key. */
function Fields({ filters, jobs }: { filters: Filters; jobs: JobBrief[] }): JSX.Element {
  const set = (name: keyof typeof LABELS, value: string): void => {
    if (value.trim() !== filters[name]) go({ view: 'jobs', filters: { ...filters, [name]: value.trim() } });
  };
  const submit = (event: Event): void => {
    event.preventDefault();
    const values = { ...filters };
    for (const name of Object.keys(LABELS) as (keyof typeof LABELS)[]) {
      const field = (event.currentTarget as HTMLFormElement).elements.namedItem(name);
      if (field instanceof HTMLInputElement) values[name] = field.value.trim();
    }
    go({ view: 'jobs', filters: values });
  };
  return (
    <form class="filters" role="search" aria-label="Filters" onSubmit={submit}>
      {(Object.keys(LABELS) as (keyof typeof LABELS)[]).map((name) => (
        <label key={name}>
          <span>{LABELS[name]}</span>
          <input
            name={name} list={`known-${name}`} value={filters[name]} autocomplete="off" spellcheck={false} maxLength={200}
            onChange={(event) => set(name, event.currentTarget.value)}
          />
          <datalist id={`known-${name}`}>
            {known(jobs, name).map((value) => <option key={value} value={value} />)}
          </datalist>
        </label>
      ))}
      {/* The return key needs it. */}
      <button type="submit" class="hidden">Filter</button>
      {Object.keys(LABELS).some((name) => filters[name as keyof Filters]) && (
        <a class="button" href={href({ view: 'jobs', filters: { ...NO_FILTERS, state: filters.state, top: filters.top } })}>Clear</a>
      )}
    </form>
  );
}

/** Words to choose from: those of the jobs that are shown. */
function known(jobs: JobBrief[], name: keyof typeof LABELS): string[] {
  const words = new Set<string>();
  for (const job of jobs) {
    const word = job[name];
    if (word) words.add(word);
    if (words.size >= 50) break;
  }
  return [...words].sort();
}

interface TableProps {
  jobs: JobBrief[];
  list: JobList;
  selected: ReadonlySet<string>;
  onSelect: (ids: ReadonlySet<string>) => void;
}

function Table({ jobs, list, selected, onSelect }: TableProps): JSX.Element {
  const { body, first, last, above, below } = useWindow(jobs.length);
  useEffect(() => {
    // The end is near: the next page is asked for before it is needed.
    if (last >= jobs.length - 20 && list.after.peek() !== undefined && !list.error.peek()) void list.more();
  }, [last, jobs.length]);
  const alive = jobs.filter((job) => !hasEnded(job.state));
  const all = alive.length > 0 && alive.every((job) => selected.has(job.job_id));
  const toggle = (id: string): void => {
    const ids = new Set(selected);
    if (!ids.delete(id)) ids.add(id);
    onSelect(ids);
  };
  return (
    <table class="jobs" aria-rowcount={list.after.value === undefined ? jobs.length + 1 : -1}>
      <caption class="hidden">Jobs, newest first</caption>
      <thead>
        <tr aria-rowindex={1}>
          <th scope="col" class="pick">
            <input
              type="checkbox" aria-label="Select all that are shown and have not ended" checked={all}
              disabled={alive.length === 0} onChange={() => onSelect(all ? new Set() : new Set(alive.map((job) => job.job_id)))}
            />
          </th>
          <th scope="col">State</th>
          <th scope="col">Job</th>
          <th scope="col" class="m">Task</th>
          <th scope="col" class="m">Pool</th>
          <th scope="col" class="m">Site</th>
          <th scope="col" class="n l">Attempt</th>
          <th scope="col" class="l">Submitted</th>
          <th scope="col">Since</th>
        </tr>
      </thead>
      <tbody ref={body}>
        {above > 0 && <Space height={above} />}
        {jobs.slice(first, last).map((job, at) => (
          <Row key={job.job_id} job={job} index={first + at + 2} selected={selected.has(job.job_id)} onToggle={toggle} />
        ))}
        {below > 0 && <Space height={below} />}
      </tbody>
    </table>
  );
}

/** In place of rows that are not in sight. */
function Space({ height }: { height: number }): JSX.Element {
  return <tr class="space" aria-hidden="true"><td style={{ height: `${height}px` }} /></tr>;
}

interface RowProps {
  job: JobBrief;
  index: number;
  selected: boolean;
  onToggle: (id: string) => void;
}

function Row({ job, index, selected, onToggle }: RowProps): JSX.Element {
  const title = job.name ? plain(job.name) : job.job_id;
  const where = [job.task, job.pool, job.site].filter((word) => word !== undefined).map(plain).join(' · ');
  return (
    <tr class={selected ? 'row selected' : 'row'} aria-rowindex={index}>
      <td class="pick">
        {!hasEnded(job.state) && (
          <input type="checkbox" aria-label={`Select ${title}`} checked={selected} onChange={() => onToggle(job.job_id)} />
        )}
      </td>
      <td>
        <State state={job.state} />
        <Aside job={job} />
      </td>
      <td class="what">
        <a href={href({ view: 'job', id: job.job_id })} class={job.name ? 'cut' : 'cut mono'} title={title}>{title}</a>
        <span class="second cut">
          {job.name && <span class="mono">{job.job_id}</span>}
          <span class="s">{job.name && where ? ' · ' : ''}{where}</span>
        </span>
      </td>
      <td class="m cut">{job.task && plain(job.task)}</td>
      <td class="m cut">{job.pool && plain(job.pool)}</td>
      <td class="m cut">{job.site && plain(job.site)}</td>
      <td class="n l">{job.attempt || ''}</td>
      <td class="l"><When at={job.submitted_at} /></td>
      <td><When at={job.updated_at} /></td>
    </tr>
  );
}

function Aside({ job }: { job: JobBrief }): JSX.Element | null {
  if (job.cancel_requested_at && !hasEnded(job.state)) return <span class="second cut">to be cancelled</span>;
  if (job.reason && job.state === 'failed') return <span class="second cut" title={plain(job.reason)}>{plain(job.reason)}</span>;
  return null;
}
