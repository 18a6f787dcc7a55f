// Taking jobs back, always after a question.

import type { JSX } from 'preact';
import { useState } from 'preact/hooks';

import { get, jobPath, sentence } from './api';
import { Question, say } from './parts';
import { type Filters, FILTERS } from './route';
import { count, number, plain } from './text';
import { hasEnded, type JobBrief } from './types';

interface CancelAnswer {
  state: string;
  cancel: string;
}

interface CancelManyAnswer {
  jobs: number;
  more: boolean;
}

/** Asks the edge to end a job; says whether it had ended before. */
async function cancel(id: string): Promise<boolean> {
  const answer = await get<CancelAnswer>(`${jobPath(id)}/cancel`, { method: 'POST' });
  return answer.cancel === 'ended';
}

/** The button of one job. */
export function CancelOne({ job }: { job: JobBrief }): JSX.Element | null {
  const [asking, setAsking] = useState(false);
  if (hasEnded(job.state)) return null;
  const yes = async (): Promise<void> => {
    try {
      say((await cancel(job.job_id)) ? 'It had ended before.' : 'The job will be ended, or never begin.');
    } catch (error) {
      say(`It was not cancelled. ${sentence(error)}`, true);
    }
  };
  return (
    <>
      <button type="button" class="danger" onClick={() => setAsking(true)}>
        {job.cancel_requested_at ? 'Cancel again…' : 'Cancel…'}
      </button>
      {asking && (
        <Question title="Cancel this job?" yes="Cancel it" onYes={yes} onClose={() => setAsking(false)}>
          <p>{job.name ? plain(job.name) : <code>{job.job_id}</code>} is {plain(job.state)}. What it has done so far is lost.</p>
        </Question>
      )}
    </>
  );
}

/** How many are asked for at a time. */
const AT_ONCE = 4;

export function CancelSelected({ jobs, onDone }: { jobs: JobBrief[]; onDone: () => void }): JSX.Element | null {
  const [asking, setAsking] = useState<JobBrief[] | null>(null);
  const yes = async (): Promise<void> => {
    const left = (asking ?? []).map((job) => job.job_id);
    let done = 0;
    let failed: unknown;
    const work = async (): Promise<void> => {
      for (let id = left.pop(); id !== undefined && failed === undefined; id = left.pop()) {
        try {
          await cancel(id);
          done += 1;
        } catch (error) {
          failed = error;
        }
      }
    };
    await Promise.all(Array.from({ length: AT_ONCE }, work));
    if (failed === undefined) {
      say(`${count(done, 'job')} will be ended, or never begin.`);
      onDone();
    } else {
      say(`Only ${count(done, 'job')} could be cancelled. ${sentence(failed)}`, true);
    }
  };
  if (jobs.length === 0 && !asking) return null;
  return (
    <>
      <button type="button" class="danger" onClick={() => setAsking(jobs)}>Cancel selected ({number(jobs.length)})…</button>
      {asking && (
        <Question
          title={`Cancel ${count(asking.length, 'job')}?`} yes="Cancel them" onYes={yes} onClose={() => setAsking(null)}
        >
          <p>What they have done so far is lost.</p>
        </Question>
      )}
    </>
  );
}

/** All that fit the filters, those that are not shown too. */
export function CancelFitting({ filters }: { filters: Filters }): JSX.Element | null {
  const [asking, setAsking] = useState<CancelManyAnswer | null>(null);
  const [busy, setBusy] = useState(false);
  const fields = FILTERS.filter((name) => filters[name] !== '');
  // The edge cancels by no site; and of those that have ended, nothing is left to cancel.
  if (fields.length === 0 || filters.site + filters.top !== '' || hasEnded(filters.state)) return null;
  const body = Object.fromEntries(fields.map((name) => [name, filters[name]]));
  const send = (dry: boolean): Promise<CancelManyAnswer> =>
    get<CancelManyAnswer>('jobs/cancel', { method: 'POST', body: dry ? { ...body, dry_run: true } : body });
  const ask = async (): Promise<void> => {
    setBusy(true);
    try {
      const answer = await send(true);
      if (answer.jobs === 0 && !answer.more) say('No job fits that has not ended.');
      else setAsking(answer);
    } catch (error) {
      say(sentence(error), true);
    } finally {
      setBusy(false);
    }
  };
  const yes = async (): Promise<void> => {
    let done = 0;
    try {
      for (let more = true; more; ) {
        const answer = await send(false);
        done += answer.jobs;
        // One that goes on and does nothing would go on for ever.
        more = answer.more && answer.jobs > 0;
      }
      say(`${count(done, 'job')} will be ended, or never begin.`);
    } catch (error) {
      say(`Only ${count(done, 'job')} could be cancelled. ${sentence(error)}`, true);
    }
  };
  return (
    <>
      <button type="button" class="danger" disabled={busy} onClick={ask}>Cancel all that fit…</button>
      {asking && (
        <Question
          title={`Cancel ${asking.more ? 'more than ' : ''}${count(asking.jobs, 'job')}?`} yes="Cancel them" onYes={yes}
          onClose={() => setAsking(null)}
        >
          <p>All jobs that have not ended, with:</p>
          <ul>{fields.map((name) => <li key={name}>{name} <strong>{plain(filters[name])}</strong></li>)}</ul>
          <p>Those that are not shown are among them. What they have done so far is lost.</p>
        </Question>
      )}
    </>
  );
}
