// The jobs that a list shows: pages from the edge, kept fresh by events. Without a component, so that what becomes of
// an event is decided in one place.

import { signal } from '@preact/signals';

import { get, query, Refused, sentence } from './api';
import { type Filters, FILTERS } from './route';
import type { JobBrief, JobPage } from './types';

/** How many jobs are asked for at once. */
const PAGE = 200;

/** How many are asked for when a list is read anew; the most that the edge gives. */
const PAGE_MAX = 500;

/** How many pages are asked for at once: one may have no job that fits, and still not be the last. */
const ASKED_MAX = 20;

export class JobList {
  /** Newest first. */
  readonly jobs = signal<JobBrief[]>([]);
  /** Where the next page begins. */
  readonly after = signal<string | undefined>(undefined);
  readonly loading = signal(true);
  readonly error = signal<string | null>(null);
  private readonly stop = new AbortController();
  /** What was told of while a page was on its way: it is newer than what the page says. */
  private told = new Map<string, JobBrief>();
  private asking = false;

  constructor(private readonly filters: Filters) {}

  close(): void {
    this.stop.abort();
  }

  /** Asks for the jobs again, as many as are shown. */
  async reload(): Promise<void> {
    const many = Math.max(PAGE, this.jobs.peek().length);
    await this.read(async () => {
      const jobs: JobBrief[] = [];
      let after: string | undefined;
      for (let asked = 0; asked < ASKED_MAX; asked += 1) {
        const page = await this.page(after, Math.min(PAGE_MAX, many - jobs.length));
        jobs.push(...page.jobs);
        after = page.after;
        if (after === undefined || jobs.length >= many) break;
      }
      this.after.value = after;
      return jobs;
    });
  }

  /** Asks for the next page. */
  async more(): Promise<void> {
    if (this.after.peek() === undefined) return;
    await this.read(async () => {
      const jobs: JobBrief[] = [];
      for (let asked = 0; asked < ASKED_MAX && jobs.length === 0; asked += 1) {
        const page = await this.page(this.after.peek(), PAGE);
        jobs.push(...page.jobs);
        this.after.value = page.after;
        if (page.after === undefined) break;
      }
      return [...this.jobs.peek(), ...jobs];
    });
  }

  /** Takes what has changed. */
  take(changed: Map<string, JobBrief>): void {
    if (this.asking) changed.forEach((job, id) => this.told.set(id, job));
    const jobs = this.merged(this.jobs.peek(), changed);
    if (jobs) this.jobs.value = jobs;
  }

  private async read(work: () => Promise<JobBrief[]>): Promise<void> {
    if (this.asking) return;
    this.asking = true;
    this.loading.value = true;
    this.told = new Map();
    try {
      const jobs = unique(await work());
      if (this.stop.signal.aborted) return;
      this.jobs.value = this.merged(jobs, this.told) ?? jobs;
      this.error.value = null;
    } catch (error) {
      if (this.stop.signal.aborted) return;
      // A cursor that the edge does not know any more: what is shown stays, and there is no more.
      if (error instanceof Refused && error.status === 400) this.after.value = undefined;
      this.error.value = sentence(error);
    } finally {
      this.asking = false;
      this.loading.value = false;
    }
  }

  private page(after: string | undefined, limit: number): Promise<JobPage> {
    return get<JobPage>(query('jobs', { ...this.filters, after, limit }), { signal: this.stop.signal });
  }

  /** The jobs with the changes in their places; `null` when nothing that is shown has changed. */
  private merged(jobs: JobBrief[], changed: Map<string, JobBrief>): JobBrief[] | null {
    let different = false;
    const seen = new Set<string>();
    const kept: JobBrief[] = [];
    for (const job of jobs) {
      const fresh = changed.get(job.job_id);
      if (!fresh) {
        kept.push(job);
        continue;
      }
      seen.add(job.job_id);
      different = true;
      if (fits(fresh, this.filters)) kept.push(fresh);
    }
    const added: JobBrief[] = [];
    for (const [id, job] of changed) {
      if (!seen.has(id) && fits(job, this.filters)) added.push(job);
    }
    if (added.length === 0) return different ? kept : null;
    const last = jobs[jobs.length - 1];
    const more = this.after.peek() !== undefined && last;
    added.sort((a, b) => born(b) - born(a));
    const result: JobBrief[] = [];
    let at = 0;
    for (const job of added) {
      // It belongs into a page that nobody has asked for.
      if (more && born(job) < born(last)) continue;
      for (; at < kept.length && born(kept[at] as JobBrief) >= born(job); at += 1) result.push(kept[at] as JobBrief);
      result.push(job);
    }
    return [...result, ...kept.slice(at)];
  }
}

/** A job may move over the edge of two pages while they are asked for. */
function unique(jobs: JobBrief[]): JobBrief[] {
  return [...new Map(jobs.map((job) => [job.job_id, job])).values()];
}

function born(job: JobBrief): number {
  return Date.parse(job.submitted_at ?? job.updated_at) || 0;
}

function fits(job: JobBrief, filters: Filters): boolean {
  return FILTERS.every((name) => {
    const wanted = filters[name];
    const had = name === 'top' ? (job.parent ? '' : '1') : job[name] ?? '';
    return wanted === '' || (name === 'state' ? wanted.split(',').includes(had) : wanted === had);
  });
}
