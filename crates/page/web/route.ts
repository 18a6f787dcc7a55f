// The address says what is looked at, so that a link can be kept and shared. The key is never in it.

import { signal } from '@preact/signals';

export interface Filters {
  state: string;
  task: string;
  pool: string;
  name: string;
  site: string;
  /** `1`: only jobs that no job has asked for. */
  top: string;
}

export const FILTERS = ['state', 'task', 'pool', 'name', 'site', 'top'] as const;

export type Route =
  | { view: 'jobs'; filters: Filters }
  | { view: 'job'; id: string }
  | { view: 'pools' }
  | { view: 'sites' };

export const route = signal<Route>(read());

addEventListener('hashchange', () => {
  const next = read();
  // What has written the address has set the route as well.
  if (href(next) !== href(route.value)) route.value = next;
});

function read(): Route {
  const [path = '', search = ''] = location.hash.replace(/^#\/?/, '').split('?');
  const [view, id] = path.split('/');
  if (view === 'jobs' && id) {
    try {
      return { view: 'job', id: decodeURIComponent(id) };
    } catch {
      // Not an address of ours.
    }
  }
  if (view === 'pools' || view === 'sites') return { view };
  const values = new URLSearchParams(search);
  const of = (name: keyof Filters): string => (values.get(name) ?? '').slice(0, 200);
  return {
    view: 'jobs',
    filters: { state: of('state'), task: of('task'), pool: of('pool'), name: of('name'), site: of('site'), top: of('top') === '1' ? '1' : '' },
  };
}

export function href(to: Route): string {
  switch (to.view) {
    case 'job':
      return `#/jobs/${encodeURIComponent(to.id)}`;
    case 'jobs': {
      const values = FILTERS.filter((name) => to.filters[name]).map((name) => [name, to.filters[name]]);
      const search = new URLSearchParams(values).toString();
      return search ? `#/jobs?${search}` : '#/jobs';
    }
    default:
      return `#/${to.view}`;
  }
}

export const NO_FILTERS: Filters = { state: '', task: '', pool: '', name: '', site: '', top: '' };

/** Changes what is looked at; while a person types, the steps in between are no pages to go back to. */
export function go(to: Route, replace = false): void {
  const address = href(to);
  if (address !== location.hash) {
    if (replace) history.replaceState(null, '', address);
    else history.pushState(null, '', address);
  }
  route.value = to;
}

/** The filters of the list that was looked at last, for the way back. */
export const lastFilters = signal<Filters>(NO_FILTERS);
