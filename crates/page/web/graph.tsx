// The tasks of a workflow and the arrows between them, each task as far as it is. The hub is told of no arrows: they
// stand in the document, which it has kept if that was short.

import type { JSX } from 'preact';

import { known } from './gantt';
import { SHAPES, Wide } from './parts';
import { count, number, plain } from './text';
import { hasEnded, type JobBrief, type JobStatus } from './types';

/** How many tasks are drawn. */
const TASKS_MAX = 200;

/** How large a task is, how far they are from each other, and how much of a name has room. */
const [WIDTH, HEIGHT, RIGHT, DOWN, NAME] = [156, 18, 204, 24, 18];

interface Task {
  name: string;
  /** The places of those that it waits for. */
  parents: Set<number>;
}

const list = (value: unknown): unknown[] => (Array.isArray(value) ? value : []);
const fields = (value: unknown): Record<string, unknown> => Object(value) as Record<string, unknown>;
const text = (value: unknown): string => (typeof value === 'string' ? value : '');

/** The tasks of a document, in WfFormat or of HyperFlow, in its order; docs/workflows.md says what waits for what. */
function read(document: unknown): Task[] {
  const { workflow, processes, signals } = fields(document);
  const given = list(processes ?? fields(fields(workflow).specification).tasks).map(fields);
  const tasks = given.map(({ id, name }, at) => ({ name: processes ? `${text(name)}_${at + 1}` : text(id), parents: new Set<number>() }));
  const places = new Map<unknown, number>(tasks.map(({ name }, at) => [name, at]));
  const arrow = (from: number | undefined, to: number | undefined): void => {
    if (from !== undefined && to !== undefined) tasks[to]?.parents.add(from);
  };
  if (given.some(({ parents, children }) => parents ?? children)) {
    given.forEach(({ parents, children }, at) => {
      list(parents).forEach((one) => arrow(places.get(one), at));
      list(children).forEach((one) => arrow(at, places.get(one)));
    });
    return tasks;
  }
  // Where it says that of no task, it follows from the files. HyperFlow has places or names of signals.
  const file = (one: unknown): unknown => (typeof one === 'number' ? fields(list(signals)[one]).name : one);
  const writers = new Map(given.flatMap(({ outputFiles, outs }, at) => list(outputFiles ?? outs).map((one) => [file(one), at])));
  given.forEach(({ inputFiles, ins }, at) => list(inputFiles ?? ins).forEach((one) => arrow(writers.get(file(one)), at)));
  return tasks;
}

/** The places of the tasks by levels, each below all that it waits for; none where they wait in a circle. */
function levels(tasks: Task[]): number[][] {
  const level = tasks.map(() => 0);
  for (let pass = 0, moved = true; moved; pass += 1) {
    if (pass > tasks.length) return [];
    moved = false;
    tasks.forEach(({ parents }, at) => {
      const least = Math.max(0, ...[...parents].map((parent) => level[parent]! + 1));
      moved ||= level[at]! < least;
      level[at] = Math.max(level[at]!, least);
    });
  }
  const all: number[][] = [];
  level.forEach((no, at) => (all[no] ??= []).push(at));
  // Where those are that it waits for, so that few arrows cross.
  const row = new Map<number, number>();
  const mean = (at: number): number => [...tasks[at]!.parents].reduce((sum, one, _, { length }) => sum + row.get(one)! / length, 0);
  for (const places of all) places.sort((a, b) => mean(a) - mean(b)).forEach((at, no) => row.set(at, no));
  return all;
}

/** The graph of a job that is a workflow; its tasks are its children, by their places. */
export function Graph({ job, jobs }: { job: JobStatus; jobs: JobBrief[] }): JSX.Element | null {
  const all = job.children?.tasks;
  if (all === undefined) return null;
  const tasks = all > TASKS_MAX ? [] : read(job.input);
  // What is no document has not become these tasks.
  const columns = tasks.length === all ? levels(tasks) : [];
  if (columns.length === 0) {
    return <p class="faint">The arrows between them are drawn of up to {number(TASKS_MAX)} tasks whose document the hub has, which keeps up to 32,000 bytes.</p>;
  }
  const states = new Map(jobs.map(({ job_id, state }) => [Number(job_id.slice(job.job_id.length + 1)) - 1, state]));
  const spot = new Map(columns.flatMap((places, no) => places.map((at, row) => [at, [no * RIGHT + 8, row * DOWN + 6] as const])));
  const middle = (at: number): readonly [number, number] => [spot.get(at)![0], spot.get(at)![1] + HEIGHT / 2];
  const arrows = tasks.flatMap(({ parents }, at) => [...parents].map((parent) => {
    const [[from, y], [to, end]] = [middle(parent), middle(at)];
    return `M${from + WIDTH} ${y}C${from + RIGHT - 24} ${y} ${to - 28} ${end} ${to - 6} ${end}`;
  }));
  const heads = tasks.map(({ parents }, at) => (parents.size > 0 ? `M${middle(at).join(' ')}l-7-4v8z` : ''));
  const sum = `${count(all, 'task')} on ${count(columns.length, 'level')}, ${count(arrows.length, 'arrow')}`;
  const size = [columns.length * RIGHT - RIGHT + WIDTH + 16, Math.max(...columns.map((places) => places.length)) * DOWN + 6];
  return (
    <details open={all <= 60}>
      <summary>Graph: {sum}</summary>
      <Wide label="Graph">
        <svg class="graph" role="img" aria-label={`What waits for what: ${sum}; the input has the same`} width={size[0]} height={size[1]}>
          <path d={arrows.join('')} />
          <path class="head" d={heads.join('')} />
          {tasks.map(({ name, parents }, at) => {
            const [x, y] = spot.get(at)!;
            const state = states.get(at);
            const shown = plain(name);
            const word = state ?? (hasEnded(job.state) ? 'never begun' : 'not begun');
            const after = parents.size > 0 ? `, after ${[...parents].map((one) => plain(tasks[one]!.name)).join(', ')}` : '';
            return (
              <g key={at} transform={`translate(${x} ${y})`}>
                <title>{`${shown}: ${plain(word)}${after}`}</title>
                <rect width={WIDTH} height={HEIGHT} rx="3" />
                <rect class={`run ${state ? known(state) : 'waiting'}`} width="6" height={HEIGHT} rx="3" />
                <text x="11" y="13">{state ? SHAPES[state] ?? '?' : '·'} {shown.length > NAME ? `${shown.slice(0, 8)}…${shown.slice(9 - NAME)}` : shown}</text>
              </g>
            );
          })}
        </svg>
      </Wide>
    </details>
  );
}
