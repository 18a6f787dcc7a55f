// Pools: what waits, runs and is there, now and over the last day, and why there is not more.

import type { JSX } from 'preact';
import { useEffect, useRef } from 'preact/hooks';

import { failure, loadPools, poolId, pools } from './live';
import { Bar, Flag, Note, Title, When, Wide } from './parts';
import { draw, type Plot, SERIES } from './plot';
import { bytes, number, plain } from './text';
import { colors } from './theme';
import { clock, exact } from './time';
import type { Amount, Pool, PoolSample } from './types';

export function Pools(): JSX.Element {
  useEffect(() => void loadPools(), []);
  const all = pools.value;
  return (
    <>
      <div class="head"><Title text="Pools" /></div>
      {failure.value && <Note bad>{failure.value}</Note>}
      {all === null ? !failure.value && <p class="faint">Asking…</p> : all.length === 0 ? (
        <Note>No site has told of a pool yet. <a href="#/sites">Who is linked?</a></Note>
      ) : (
        <>
          <Wide label="Pools now"><Table pools={all} /></Wide>
          <h2>The last day</h2>
          <div class="plots">{all.map((pool) => <History key={poolId(pool)} pool={pool} />)}</div>
        </>
      )}
    </>
  );
}

function Table({ pools }: { pools: Pool[] }): JSX.Element {
  const batch = pools.some((pool) => pool.want !== undefined || pool.allocations !== undefined);
  return (
    <table>
      <caption class="hidden">Pools now</caption>
      <thead>
        <tr>
          <th scope="col">Pool</th><th scope="col">Site</th><th scope="col">Ready</th>
          <th scope="col" class="n" title="Accepted and not begun">Backlog</th><th scope="col" class="n">Running</th>
          <th scope="col">CPUs in use</th><th scope="col">Memory</th><th scope="col" class="n">GPUs</th>
          {batch && <th scope="col">Allocations</th>}
          <th scope="col">As of</th>
        </tr>
      </thead>
      <tbody>{pools.map((pool) => <Row key={poolId(pool)} pool={pool} batch={batch} />)}</tbody>
    </table>
  );
}

function Row({ pool, batch }: { pool: Pool; batch: boolean }): JSX.Element {
  const { capacity, in_use: used } = pool;
  return (
    <>
      <tr>
        <th scope="row">{plain(pool.pool)}</th>
        <td>
          {plain(pool.site)} <span class="faint">{plain(pool.host)}</span>
          {!pool.linked && <> <Flag good={false}>not linked</Flag></>}
        </td>
        <td class="tight"><Flag good={pool.ready}>{pool.ready ? 'ready' : 'not ready'}</Flag></td>
        <td class="n">{number(pool.held)}{pool.hold !== undefined && <span class="faint"> of {number(pool.hold)}</span>}</td>
        <td class="n">{number(pool.running)}</td>
        <td class="tight"><Bar part={used.cpus} whole={capacity.cpus} /> {number(used.cpus)} <span class="faint">of {number(capacity.cpus)}</span></td>
        <td class="tight">{memory(used, capacity)}</td>
        <td class="n tight">{capacity.gpus > 0 ? `${used.gpus} of ${capacity.gpus}` : <span class="faint">–</span>}</td>
        {batch && (
          <td class="tight">
            {pool.allocations === undefined ? <span class="faint">–</span> : <>{number(pool.allocations)} <span class="faint">of {pool.want === undefined ? '?' : number(pool.want)} wanted</span></>}
          </td>
        )}
        <td><When at={pool.updated_at} /></td>
      </tr>
      {(pool.problem || pool.why) && (
        <tr class="below">
          <td colSpan={batch ? 10 : 9}>
            {pool.problem && <div class="why"><Flag good={false}>{plain(pool.problem)}</Flag></div>}
            {pool.why && <div class="why faint">{plain(pool.why)}</div>}
          </td>
        </tr>
      )}
    </>
  );
}

function memory(used: Amount, capacity: Amount): JSX.Element {
  if (capacity.memory === undefined) return <span class="faint">not counted</span>;
  return (
    <>
      <Bar part={used.memory ?? 0} whole={capacity.memory} /> {bytes(used.memory ?? 0)}{' '}
      <span class="faint">of {bytes(capacity.memory)}</span>
    </>
  );
}

function History({ pool }: { pool: Pool }): JSX.Element {
  const samples = pool.history ?? [];
  const place = useRef<HTMLDivElement>(null);
  const plot = useRef<Plot | null>(null);
  const title = `${pool.pool} at ${pool.site}`;
  const batch = samples.some((sample) => sample.want !== undefined || sample.allocations !== undefined);
  const painted = colors.value;
  const drawn = samples.length > 1;
  useEffect(() => {
    if (!place.current || !drawn) return;
    plot.current = draw(place.current, batch);
    plot.current.show(samples);
    return () => {
      plot.current?.close();
      plot.current = null;
    };
  }, [painted, batch, drawn]);
  useEffect(() => plot.current?.show(samples), [samples]);
  return (
    <figure class="card">
      <figcaption>
        <h3>{plain(pool.pool)} <span class="faint">at {plain(pool.site)}</span></h3>
        <ul class="legend">
          {SERIES.filter((series) => batch || !series.batch).map((series) => (
            <li key={series.name}><span class={`key ${series.key}`} aria-hidden="true" />{series.name}</li>
          ))}
        </ul>
      </figcaption>
      {drawn ? (
        <div ref={place} class="plot" role="img" aria-label={`${plain(title)} over time; the table below has the same`} />
      ) : (
        <p class="faint">Nothing is known of the time before.</p>
      )}
      {drawn && <details><summary>As a table</summary><Samples samples={samples} batch={batch} label={plain(title)} /></details>}
      {pool.why && <p class="why"><span class="faint">Now:</span> {plain(pool.why)}</p>}
    </figure>
  );
}

/** How many of the changes the table has. */
const ROWS_MAX = 100;

/** The latest changes; what stayed as it was is left out. */
function Samples({ samples, batch, label }: { samples: PoolSample[]; batch: boolean; label: string }): JSX.Element {
  const same = (a: PoolSample, b: PoolSample): boolean =>
    a.held === b.held && a.running === b.running && a.capacity.cpus === b.capacity.cpus
    && a.allocations === b.allocations && a.want === b.want && a.why === b.why;
  const rows: PoolSample[] = [];
  for (let at = samples.length - 1; at >= 0 && rows.length < ROWS_MAX; at -= 1) {
    const sample = samples[at] as PoolSample;
    const before = samples[at - 1];
    if (!before || !same(sample, before)) rows.push(sample);
  }
  return (
    <Wide label={`${label}, changes`}>
      <table class="dense">
        <thead>
          <tr>
            <th scope="col">Time</th><th scope="col" class="n">Backlog</th><th scope="col" class="n">Running</th><th scope="col" class="n">CPUs</th>
            {batch && <><th scope="col" class="n">Allocations</th><th scope="col" class="n">Wanted</th><th scope="col">Why</th></>}
          </tr>
        </thead>
        <tbody>
          {rows.map((sample) => (
            <tr key={sample.at}>
              <th scope="row"><time dateTime={sample.at} title={exact(sample.at)}>{clock(sample.at)}</time></th>
              <td class="n">{number(sample.held)}</td>
              <td class="n">{number(sample.running)}</td>
              <td class="n">{number(sample.capacity.cpus)}</td>
              {batch && <><td class="n">{sample.allocations ?? ''}</td><td class="n">{sample.want ?? ''}</td><td>{sample.why && plain(sample.why)}</td></>}
            </tr>
          ))}
        </tbody>
      </table>
    </Wide>
  );
}
