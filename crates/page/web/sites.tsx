// Who works: sites and their daemons, and what waits in the queue.

import type { JSX } from 'preact';
import { useEffect } from 'preact/hooks';

import { failure, loadSites, sites } from './live';
import { Flag, Note, Title, When, Wide } from './parts';
import { count, number, plain } from './text';
import type { Site, Sites as All } from './types';

export function Sites(): JSX.Element {
  useEffect(() => void loadSites(), []);
  const all = sites.value;
  return (
    <>
      <div class="head"><Title text="Sites" /></div>
      {failure.value && <Note bad>{failure.value}</Note>}
      {all === null ? !failure.value && <p class="faint">Asking…</p> : <Shown all={all} />}
    </>
  );
}

function Shown({ all }: { all: All }): JSX.Element {
  const linked = all.sites.filter((site) => site.linked);
  return (
    <>
      <dl class="facts large">
        <div><dt>Wait in the queue</dt><dd>{number(all.queue.queued)}</dd></div>
        <div><dt>Oldest since</dt><dd><When at={all.queue.oldest_at} /></dd></div>
        <div><dt>Held by sites</dt><dd>{number(sum(linked, 'held'))}</dd></div>
        <div><dt>Running</dt><dd>{number(sum(linked, 'running'))}</dd></div>
      </dl>
      <Verdict all={all} linked={linked.length} />
      {all.sites.length === 0 ? (
        <Note>No site has ever been heard of. A daemon links with <code>EDGE_URL</code> and <code>SITE_KEY</code> set.</Note>
      ) : (
        <Wide label="Sites">
          <table>
            <caption class="hidden">Daemons of all sites</caption>
            <thead>
              <tr>
                <th scope="col">Site</th><th scope="col">Link</th><th scope="col">Last heard of</th>
                <th scope="col" class="n">Held</th><th scope="col" class="n">Running</th>
                <th scope="col" class="n" title="Results that the queue does not have yet">Owed</th>
                <th scope="col">Host</th><th scope="col">Version</th>
              </tr>
            </thead>
            <tbody>{all.sites.map((site) => <Row key={`${site.site} ${site.daemon}`} site={site} />)}</tbody>
          </table>
        </Wide>
      )}
    </>
  );
}

/** When nobody works, that is the first thing to know. */
function Verdict({ all, linked }: { all: All; linked: number }): JSX.Element | null {
  if (linked > 0 || all.sites.length === 0) return null;
  const waiting = all.queue.queued;
  return <Note bad>No site is linked. {waiting > 0 ? `${count(waiting, 'job')} will wait` : 'Jobs will wait'} until one is, or until a daemon looks into the queue by itself.</Note>;
}

function Row({ site }: { site: Site }): JSX.Element {
  return (
    <>
      <tr>
        <th scope="row">{plain(site.site)}</th>
        <td>
          <Flag good={site.linked}>{site.linked ? 'linked' : 'not linked'}</Flag>{' '}
          <span class="faint">since <When at={site.since} /></span>
          {site.draining && <div class="faint">ending; takes nothing new</div>}
        </td>
        <td><When at={site.seen_at} /></td>
        <td class="n">{number(site.held)}</td>
        <td class="n">{number(site.running)}</td>
        <td class="n">{number(site.owed)}</td>
        <td>{plain(site.host)}</td>
        <td>{plain(site.version)}</td>
      </tr>
      {site.trouble && <tr class="below"><td colSpan={8}><span class="flag bad"><span class="shape" aria-hidden="true">▲</span>{plain(site.trouble)}</span></td></tr>}
    </>
  );
}

function sum(sites: Site[], of: 'held' | 'running'): number {
  return sites.reduce((sum, site) => sum + site[of], 0);
}
