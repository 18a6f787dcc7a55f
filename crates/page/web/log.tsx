// What a job prints: live while it runs, and the end of it afterwards.

import type { JSX } from 'preact';
import { useEffect, useMemo, useRef, useState } from 'preact/hooks';

import { jobPath, query, sentence } from './api';
import { follow, type Follower } from './events';
import { watched } from './live';
import { Pane } from './pane';
import { count } from './text';
import { hasEnded, type JobStatus, type LogEvent, type Stream } from './types';

const STREAMS = ['stdout', 'stderr'] as const;
const NAMES = { stdout: 'Standard output', stderr: 'Standard error' } as const;

/** How much of what was printed before is asked for, in bytes. */
const BEFORE = 65_536;

export function Log({ job }: { job: JobStatus }): JSX.Element {
  const [stream, setStream] = useState<Stream>('stdout');
  const [paused, setPaused] = useState(false);
  const [status, setStatus] = useState('');
  const [drawn, setDrawn] = useState(0);
  const [atEnd, setAtEnd] = useState(true);
  const scroller = useRef<HTMLDivElement>(null);
  const sticky = useRef(true);
  const panes = useMemo(() => ({ stdout: new Pane(), stderr: new Pane() }), []);

  const follower = useMemo(() => logFollower(job.job_id, panes, setStatus), []);
  const looked = watched.value;
  useEffect(() => (looked && !follower.ended ? follow(follower) : undefined), [looked]);

  const toEnd = (): void => {
    const element = scroller.current;
    if (element) element.scrollTop = element.scrollHeight;
    sticky.current = true;
    setAtEnd(true);
  };
  useEffect(() => {
    for (const name of STREAMS) {
      panes[name].onDraw = () => {
        setDrawn((n) => n + 1);
        if (sticky.current) requestAnimationFrame(toEnd);
      };
      scroller.current?.append(panes[name].element);
    }
    return () => STREAMS.forEach((name) => panes[name].close());
  }, []);
  useEffect(() => {
    for (const name of STREAMS) panes[name].element.hidden = name !== stream;
    toEnd();
  }, [stream]);
  useEffect(() => {
    STREAMS.forEach((name) => panes[name].pause(paused));
  }, [paused]);
  const scrolled = (): void => {
    const element = scroller.current;
    if (!element) return;
    sticky.current = element.scrollTop + element.clientHeight >= element.scrollHeight - 24;
    setAtEnd(sticky.current);
  };

  void drawn;
  const pane = panes[stream];
  const empty = pane.came === 0;
  return (
    <section aria-labelledby="log">
      <div class="head tools">
        <h2 id="log">Log</h2>
        <div class="switch" role="group" aria-label="Stream">
          {STREAMS.map((name) => (
            <button key={name} type="button" aria-pressed={name === stream} onClick={() => setStream(name)}>
              {name}{panes[name].came === 0 ? '' : <span class="faint"> {size(panes[name].came)}</span>}
            </button>
          ))}
        </div>
        {(paused || !hasEnded(job.state)) && (
          <button type="button" aria-pressed={paused} onClick={() => setPaused(!paused)}>Pause</button>
        )}
        <button type="button" onClick={toEnd} disabled={atEnd || empty}>To the end</button>
        <p class="faint" role="status">{paused ? `Paused; ${size(pane.behind)} characters wait.` : status}</p>
      </div>
      {pane.dropped && <p class="faint">Only the end is kept here.</p>}
      <div
        ref={scroller} class={empty ? 'log empty' : 'log'} role="region" aria-label={NAMES[stream]} tabIndex={0}
        onScroll={scrolled}
      />
    </section>
  );
}

function size(characters: number): string {
  return characters < 1_000 ? String(characters) : `${Math.round(characters / 1_000)}k`;
}

type Panes = Record<Stream, Pane>;

/** What follows a log that has an end. */
interface LogFollower extends Follower {
  ended: boolean;
}

function logFollower(id: string, panes: Panes, tell: (status: string) => void): LogFollower {
  let attempt: number | undefined;
  const next: Partial<Record<Stream, number>> = {};
  const took = (data: string): void => {
    const piece = JSON.parse(data) as LogEvent;
    const pane = panes[piece.stream];
    if (!pane || typeof piece.text !== 'string') return;
    if (attempt !== undefined && piece.attempt < attempt) return;
    if (attempt !== undefined && piece.attempt > attempt) {
      for (const name of STREAMS) {
        panes[name].mark(`Attempt ${piece.attempt}`);
        delete next[name];
      }
    }
    attempt = piece.attempt;
    const expected = next[piece.stream];
    // It was seen already: the stream began anew, and told more than was asked for.
    if (expected !== undefined && piece.next <= expected) return;
    if (expected !== undefined && piece.offset > expected) {
      pane.mark(`${count(piece.offset - expected, 'byte')} ${piece.offset - expected === 1 ? 'is' : 'are'} missing here`);
    }
    next[piece.stream] = piece.next;
    pane.push(piece.text);
  };
  const follower: LogFollower = {
    ended: false,
    path: () => query(`${jobPath(id)}/logs`, { follow: 1, from: -BEFORE }),
    onEvent: ({ event, data }) => {
      if (event === 'log') {
        try {
          took(data);
        } catch {
          // Not what this page knows.
        }
      } else if (event === 'end') {
        follower.ended = true;
        const nothing = STREAMS.every((name) => panes[name].came === 0);
        tell(nothing ? 'Nothing that it printed is kept.' : 'It prints no more.');
      }
    },
    isOver: () => follower.ended,
    onState: (link) => {
      if (link.state === 'live') tell('Live.');
      else if (link.state === 'connecting') tell('Connecting…');
      else if (link.state === 'over') tell(sentence(link.error));
      else tell('The connection was lost; trying again.');
    },
  };
  return follower;
}
