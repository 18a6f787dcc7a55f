// One job: how far it is and why, how it came so far, what went in and came out, and what it prints.

import { useSignal } from '@preact/signals';
import type { ComponentChildren, JSX } from 'preact';
import { useEffect } from 'preact/hooks';

import { get, jobPath, Refused, sentence } from './api';
import { CancelOne } from './cancel';
import { Files } from './files';
import { onJobs, onReopen } from './live';
import { Log } from './log';
import { Copy, Note, State, Title, When, Wide } from './parts';
import { href, lastFilters } from './route';
import { bytes, json, number, plain } from './text';
import { clock, exact, now, span, tick } from './time';
import { Tree } from './tree';
import { hasEnded, type Callback, type JobResult, type JobStatus, type Moment } from './types';

export function Job({ id }: { id: string }): JSX.Element {
  const job = useSignal<JobStatus | null>(null);
  const error = useSignal<unknown>(null);
  useEffect(() => {
    const stop = new AbortController();
    let asking = false;
    let again = false;
    const load = async (): Promise<void> => {
      // While one answer is on its way, whatever happens means one more question, not ten.
      again = asking;
      if (asking) return;
      asking = true;
      try {
        job.value = await get<JobStatus>(jobPath(id), { signal: stop.signal });
        error.value = null;
      } catch (caught) {
        if (!stop.signal.aborted) error.value = caught;
      } finally {
        asking = false;
      }
      if (again && !stop.signal.aborted) void load();
    };
    void load();
    const offs = [onJobs((changed) => changed.has(id) && void load()), onReopen(() => void load())];
    return () => {
      stop.abort();
      offs.forEach((off) => off());
    };
  }, []);
  const back = <p><a href={href({ view: 'jobs', filters: lastFilters.value })}>← Jobs</a></p>;
  if (!job.value) {
    return (
      <>
        {back}
        <Title text={`Job ${id}`}>Job <span class="mono">{plain(id)}</span></Title>
        {error.value ? <Failed error={error.value} id={id} /> : <p class="faint">Asking…</p>}
      </>
    );
  }
  return (
    <>
      {back}
      {error.value && <Note bad>{sentence(error.value)}</Note>}
      <Shown job={job.value} />
    </>
  );
}

function Failed({ error, id }: { error: unknown; id: string }): JSX.Element {
  if (error instanceof Refused && error.code === 'unknown_job') {
    return (
      <>
        <Note>The hub has never heard of this job, or has forgotten it. If it is in the queue all the same, it can be cancelled.</Note>
        <CancelOne job={{ job_id: id, state: 'unknown', attempt: 0, updated_at: '' }} />
      </>
    );
  }
  return <Note bad>{sentence(error)}</Note>;
}

function Shown({ job }: { job: JobStatus }): JSX.Element {
  const result = job.result;
  const title = job.name ? plain(job.name) : `Job ${job.job_id}`;
  const message = job.message ?? result?.message;
  return (
    <>
      <div class="head">
        <Title text={title}>{job.name ? title : <>Job <span class="mono">{job.job_id}</span></>}</Title>
        <CancelOne job={job} />
      </div>
      <p class="lead" role="status">
        <State state={job.state} />
        {job.reason && job.reason !== job.state && <span> {plain(job.reason)}</span>}
        <span class="faint"> since <When at={job.updated_at} /></span>
      </p>
      {message && <p class="why">{plain(message)}</p>}
      {job.cancel_requested_at && !hasEnded(job.state) && (
        <Note>Somebody has asked <When at={job.cancel_requested_at} /> to cancel it.</Note>
      )}
      <Facts job={job} result={result} />
      <div class="columns">
        <Timeline job={job} />
        {job.callbacks && job.callbacks.length > 0 && <Callbacks calls={job.callbacks} />}
      </div>
      {job.children && <Tree job={job} />}
      <Files id={job.job_id} result={result} />
      <Log job={job} />
      <Values job={job} result={result} />
    </>
  );
}

function Fact({ name, children }: { name: string; children: ComponentChildren }): JSX.Element {
  return <div><dt>{name}</dt><dd>{children}</dd></div>;
}

function Facts({ job, result }: { job: JobStatus; result: JobResult | undefined }): JSX.Element {
  const text = (value: string | undefined): ComponentChildren => (value ? plain(value) : undefined);
  const facts: [string, ComponentChildren][] = [
    ['Id', <><span class="mono">{job.job_id}</span> <Copy text={() => job.job_id} what="the id" /></>],
    ['Part of', job.parent && <a class="mono" href={href({ view: 'job', id: job.parent })}>{job.parent}</a>],
    ['Task', text(job.task)],
    ['Pool', text(job.pool)],
    ['Site', text(job.site)],
    ['Host', text(result?.host)],
    ['Attempt', job.attempt || undefined],
    ['Submitted', job.submitted_at && <When at={job.submitted_at} />],
    ['Ran for', <Ran job={job} result={result} />],
    ['Exit code', result?.exit_code],
    ['Signal', result?.signal],
    ['Image', text(result?.image)],
    ['Command', result?.command && <code>{plain(result.command.join(' '))}</code>],
    ['Result', text(result?.result_pointer)],
  ];
  return (
    <dl class="facts">
      {facts.filter(([, value]) => value !== undefined && value !== '').map(([name, value]) => <Fact key={name} name={name}>{value}</Fact>)}
    </dl>
  );
}

function Ran({ job, result }: { job: JobStatus; result: JobResult | undefined }): JSX.Element {
  void tick.value;
  if (result?.started_at && result.finished_at) {
    return <>{span(Date.parse(result.finished_at) - Date.parse(result.started_at))}</>;
  }
  const begun = job.timeline.findLast((moment) => moment.event === 'running');
  if (job.state !== 'running' || !begun) return <span class="faint">–</span>;
  return <>{span(now() - Date.parse(begun.at))} so far</>;
}

function Timeline({ job }: { job: JobStatus }): JSX.Element {
  return (
    <section aria-labelledby="timeline">
      <h2 id="timeline">Time line</h2>
      <ol class="timeline">
        {job.timeline.map((moment, at) => <Step key={at} moment={moment} before={job.timeline[at - 1]} />)}
      </ol>
    </section>
  );
}

function Step({ moment, before }: { moment: Moment; before: Moment | undefined }): JSX.Element {
  const passed = before ? Date.parse(moment.at) - Date.parse(before.at) : 0;
  const where = [moment.attempt > 1 && `attempt ${moment.attempt}`, moment.site && plain(moment.site)].filter(Boolean);
  return (
    <li>
      <time dateTime={moment.at} title={exact(moment.at)}>{clock(moment.at)}</time>
      <span class="passed faint">{passed > 0 ? `+${span(passed)}` : ''}</span>
      <span>
        {moment.event === 'cancel_requested' ? 'asked to cancel' : <State state={moment.event} />}
        {where.length > 0 && <span class="faint"> {where.join(', ')}</span>}
      </span>
    </li>
  );
}

function Callbacks({ calls }: { calls: Callback[] }): JSX.Element {
  return (
    <section aria-labelledby="callbacks">
      <h2 id="callbacks">Callbacks</h2>
      <Wide label="Table of callbacks"><table class="dense">
        <thead><tr><th scope="col">Tells</th><th scope="col">State</th><th scope="col" class="n">Tries</th><th scope="col">When</th><th scope="col">Outcome</th></tr></thead>
        <tbody>
          {calls.map((call, at) => (
            <tr key={at}>
              <th scope="row">{plain(call.event)}</th>
              <td>{plain(call.state.replace('_', ' '))}</td>
              <td class="n">{call.tries}</td>
              <td><When at={call.at} /></td>
              <td>{call.outcome && plain(call.outcome)}</td>
            </tr>
          ))}
        </tbody>
      </table></Wide>
    </section>
  );
}

function Values({ job, result }: { job: JobStatus; result: JobResult | undefined }): JSX.Element {
  return (
    <div class="columns">
      <Value title="Input" value={job.input} none="The hub has not kept it." />
      <Value
        title="Output" value={result?.output}
        none={withoutOutput(result)}
      />
      {result && (
        <details>
          <summary>The whole result, as it comes to the laptop</summary>
          <Value title="Result" value={result} none="" />
        </details>
      )}
    </div>
  );
}

function withoutOutput(result: JobResult | undefined): string {
  if (!result) return 'It has not ended.';
  if (result.output_file) return 'It is one of the files, output.json.';
  return result.output_bytes === undefined ? 'There is none.' : `It is too large to travel (${bytes(result.output_bytes)}).`;
}

/** How much JSON is shown; all of it can be copied. */
const SHOWN_MAX = 200_000;

function Value({ title, value, none }: { title: string; value: unknown; none: string }): JSX.Element {
  if (value === undefined) {
    return <section><div class="head tools"><h2>{title}</h2></div><p class="faint">{none}</p></section>;
  }
  const text = json(value);
  return (
    <section>
      <div class="head tools"><h2>{title}</h2><Copy text={() => text} what={`the ${title.toLowerCase()}`} /></div>
      <pre class="value" role="region" aria-label={title} tabIndex={0}>{text.slice(0, SHOWN_MAX)}</pre>
      {text.length > SHOWN_MAX && <p class="faint">{number(text.length - SHOWN_MAX)} characters more are not shown.</p>}
    </section>
  );
}
