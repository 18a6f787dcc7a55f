// What ran where and when: a bar for each run, in a lane where nothing else ran at that time, the lanes of each pool
// and node together. What the picture says stands in the table of jobs, too.

import type { JSX } from 'preact';

import { count, number, plain } from './text';
import { clock, now, span, tick } from './time';
import { hasEnded, type JobBrief, type JobStatus, STATES } from './types';

export interface Run {
  title: string;
  state: string;
  place: string;
  from: number;
  /** None while it runs. */
  to: number | undefined;
}

/** The runs of a job, which its time line has, and of its children. */
export function runsOf(job: JobStatus, jobs: JobBrief[]): Run[] {
  const runs: Run[] = [];
  job.timeline.forEach((moment, at) => {
    if (moment.event !== 'running') return;
    const next = job.timeline.slice(at + 1).find((later) => later.event !== 'cancel_requested' && later.attempt >= moment.attempt);
    const place = `${plain(job.pool ?? '')}, the job itself`;
    runs.push({ title: `run ${moment.attempt}`, state: next?.event ?? 'running', place, from: Date.parse(moment.at), to: next && Date.parse(next.at) });
  });
  // Where something runs is told when it has ended; until then, where all of its pool did.
  const hosts = new Map<string, Set<string>>();
  for (const { pool = '', host } of jobs) if (host) hosts.set(pool, (hosts.get(pool) ?? new Set()).add(host));
  for (const child of jobs) {
    if (!child.started_at || !(hasEnded(child.state) || child.state === 'running')) continue;
    const known = hosts.get(child.pool ?? '');
    const host = child.host ?? (known?.size === 1 ? [...known][0] : undefined);
    const place = plain([child.pool ?? '', host].filter(Boolean).join(', '));
    const to = hasEnded(child.state) ? Date.parse(child.updated_at) : undefined;
    runs.push({ title: plain(child.name ?? child.job_id), state: child.state, place, from: Date.parse(child.started_at), to });
  }
  return runs;
}

interface Group {
  place: string;
  /** When the last of each lane ends. */
  lanes: number[];
  bars: { run: Run; lane: number }[];
  left: number;
}

/** Words of others are no names of classes. */
export const known = (state: string): string => STATES.find((one) => one === state) ?? '';

/** How many lanes a place has at the most. */
const LANES_MAX = 32;

const LANE = 12;
const HEAD = 20;

function grouped(runs: Run[], end: number): Group[] {
  const groups = new Map<string, Group>();
  for (const run of [...runs].sort((a, b) => a.from - b.from)) {
    let group = groups.get(run.place);
    if (!group) groups.set(run.place, (group = { place: run.place, lanes: [], bars: [], left: 0 }));
    let lane = group.lanes.findIndex((free) => free <= run.from);
    if (lane < 0) lane = group.lanes.length;
    if (lane >= LANES_MAX) group.left += 1;
    else {
      group.lanes[lane] = run.to ?? end;
      group.bars.push({ run, lane });
    }
  }
  return [...groups.values()].sort((a, b) => a.place.localeCompare(b.place));
}

/** At which times the axis has lines: some five of them, at times that people like. */
const STEPS = [1, 2, 5, 10, 30, 60, 120, 300, 600, 1_800, 3_600, 7_200, 21_600, 43_200, 86_400].map((seconds) => seconds * 1_000);

export function Runs({ runs }: { runs: Run[] }): JSX.Element | null {
  void tick.value;
  if (runs.length === 0) return null;
  const start = Math.min(...runs.map((run) => run.from));
  const end = Math.max(start + 1, ...runs.map((run) => run.to ?? now()));
  const groups = grouped(runs, end);
  const at = (time: number): number => ((time - start) / (end - start)) * 100;
  const step = STEPS.find((one) => (end - start) / one <= 6) ?? Math.ceil((end - start) / 6 / 86_400_000) * 86_400_000;
  const ticks = Array.from({ length: Math.floor((end - start) / step) + 1 }, (_, no) => no * step);
  let top = HEAD;
  const placed = groups.map((group) => {
    const y = top;
    top += HEAD + group.lanes.length * LANE + 6;
    return { ...group, y };
  });
  const places = count(groups.length, 'place');
  const label = `What ran where and when: ${count(runs.length, 'run')} in ${places}, over ${span(end - start)}; the table above has the same`;
  return (
    <figure class="card">
      <figcaption><h3>What ran where</h3><span class="faint">from {clock(new Date(start).toISOString())}, over {span(end - start)}</span></figcaption>
      <svg class="gantt" role="img" aria-label={label} height={top}>
        {ticks.map((time) => (
          <g key={time}>
            <line x1={`${at(start + time)}%`} x2={`${at(start + time)}%`} y1={HEAD - 4} y2={top} />
            {at(start + time) < 92 && <text x={`${at(start + time)}%`} dx="3" y="12">{time === 0 ? '0' : span(time).replace(/ 0 s$/, '')}</text>}
          </g>
        ))}
        {placed.map(({ place, bars, left, y }) => (
          <g key={place}>
            <text class="place" x="0" dx="3" y={y + 14}>{place || 'no pool'}{left > 0 && `, and ${number(left)} more at the same time`}</text>
            {bars.map(({ run, lane }, no) => {
              const to = run.to ?? end;
              return (
                <rect
                  key={no} class={`run ${known(run.state)}`} x={`${at(run.from)}%`} y={y + HEAD + lane * LANE}
                  width={`${Math.max(0.15, at(to) - at(run.from))}%`} height={LANE - 2}
                >
                  <title>{`${run.title}: ${plain(run.state)}, ${clock(new Date(run.from).toISOString())}, ${span(to - run.from)}`}</title>
                </rect>
              );
            })}
          </g>
        ))}
      </svg>
    </figure>
  );
}
