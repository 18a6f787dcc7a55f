// The page: what stands around every view, and which view is shown.

import { render, type JSX } from 'preact';
import { useLayoutEffect, useRef, useState } from 'preact/hooks';

import { key, setKey, trouble } from './api';
import { Job } from './job';
import { Jobs } from './jobs';
import { link } from './live';
import { said } from './parts';
import { Pools } from './pools';
import { href, lastFilters, route } from './route';
import { Sites } from './sites';
import { next, theme } from './theme';

function App(): JSX.Element {
  return (
    <>
      <a class="skip" href="#main" onClick={skip}>Skip to the content</a>
      <header>
        <span class="brand">hpc-queue</span>
        <Nav />
        <Connection />
        <ThemeSwitch />
        {key.value && <button type="button" class="quiet" onClick={() => setKey(null)}>Forget key</button>}
      </header>
      <main id="main" tabIndex={-1}>
        <View />
      </main>
      <Said />
    </>
  );
}

/** The address is taken by views, so the link cannot move by itself. */
function skip(event: MouseEvent): void {
  event.preventDefault();
  document.getElementById('main')?.focus();
}

function Nav(): JSX.Element {
  const view = route.value.view;
  const items = [
    { to: href({ view: 'jobs', filters: lastFilters.value }), text: 'Jobs', here: view === 'jobs' || view === 'job' },
    { to: '#/pools', text: 'Pools', here: view === 'pools' },
    { to: '#/sites', text: 'Sites', here: view === 'sites' },
  ];
  return (
    <nav aria-label="Views">
      {items.map(({ to, text, here }) => (
        <a key={text} href={to} aria-current={here ? 'page' : undefined}>{text}</a>
      ))}
    </nav>
  );
}

/** Is what is shown what is? */
function Connection(): JSX.Element | null {
  if (!key.value || trouble.value) return null;
  const live = link.value.state === 'live';
  const text = live ? 'Live' : link.value.state === 'over' ? 'Not live' : 'Connecting…';
  return (
    <span class={live ? 'link live' : 'link'} role="status" title={live ? 'Changes are shown as they come' : 'What is shown may be old'}>
      <span class="shape" aria-hidden="true">{live ? '●' : '○'}</span>
      <span class="text">{text}</span>
    </span>
  );
}

function ThemeSwitch(): JSX.Element {
  const names = { auto: 'as the system', light: 'light', dark: 'dark' };
  const shapes = { auto: '◐', light: '☼', dark: '☾' };
  return (
    <button type="button" class="quiet" onClick={next} title={`Colors: ${names[theme.value]}`}>
      <span aria-hidden="true">{shapes[theme.value]}</span>
      <span class="hidden">Colors: {names[theme.value]}</span>
    </button>
  );
}

function View(): JSX.Element {
  if (!key.value) return <AskKey />;
  if (trouble.value === 'no_hub') return <NoHub />;
  const at = route.value;
  switch (at.view) {
    case 'jobs':
      return <Jobs filters={at.filters} />;
    case 'job':
      return <Job key={at.id} id={at.id} />;
    case 'pools':
      return <Pools />;
    case 'sites':
      return <Sites />;
  }
}

function AskKey(): JSX.Element {
  const [value, setValue] = useState('');
  const input = useRef<HTMLInputElement>(null);
  const wrong = trouble.value === 'wrong_key';
  useLayoutEffect(() => {
    document.title = 'Key · hpc-queue';
    input.current?.focus();
  }, [wrong]);
  const submit = (event: Event): void => {
    event.preventDefault();
    const given = value.trim();
    // A header takes no others; the edge would never see them.
    if (!/^[\x21-\x7e]+$/.test(given)) return;
    setKey(given);
  };
  return (
    <section class="card narrow" aria-labelledby="ask">
      <h1 id="ask">Which key?</h1>
      <p>
        This page shows the jobs, pools and sites of this edge to whoever has its API key: the value of{' '}
        <code>API_KEY</code>, with which jobs are submitted.
      </p>
      {wrong && <p class="note bad" role="alert" id="wrong">The edge does not take this key. Is it of another edge, or an old one?</p>}
      <form onSubmit={submit}>
        <label for="key">API key</label>
        <input
          id="key" ref={input} type="password" autocomplete="off" spellcheck={false} required
          aria-describedby={wrong ? 'wrong kept' : 'kept'} value={value} onInput={(event) => setValue(event.currentTarget.value)}
        />
        <p id="kept" class="faint">It is kept by this tab only, until the tab is closed.</p>
        <button type="submit" class="main">Show</button>
      </form>
    </section>
  );
}

function NoHub(): JSX.Element {
  return (
    <section class="card narrow" aria-labelledby="nohub">
      <h1 id="nohub">This edge has no hub</h1>
      <p>
        It takes jobs, and their results come, but it does not know how far jobs are: there is nothing to show here.
        On the cluster, <code>hpc-consumer jobs</code> tells; on the laptop, <code>laptop-consumer wait</code>.
      </p>
      <p>
        <code>local-edge</code> has a hub; in the Worker it is a Durable Object, which <code>wrangler.toml</code> binds.
      </p>
      <button type="button" onClick={() => (trouble.value = null)}>Ask again</button>
    </section>
  );
}

function Said(): JSX.Element {
  return (
    <div class={said.value?.bad ? 'said bad' : 'said'} role="status">
      {said.value?.text}
    </div>
  );
}

const root = document.getElementById('app');
if (root) {
  root.textContent = '';
  render(<App />, root);
}
