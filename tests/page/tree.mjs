// The jobs that a job has asked for: as a tree, and as bars over time.

import assert from 'node:assert/strict';

import { Site } from './site.mjs';

/** The time so long ago. */
const ago = (seconds) => new Date(Date.now() - seconds * 1_000).toISOString();

const row = (page, text) => page.getByRole('region', { name: 'Tree of jobs' }).getByRole('row').filter({ hasText: text });

/** A child, as a site tells of it. */
const child = (parent, no, state, at, more = {}) => ({
  job_id: `${parent}-${no}`, parent, state, attempt: state === 'held' ? 0 : 1, at: ago(at), task: 'project', name: `project_${no}`, pool: 'cpu', ...more,
});

/** One that has ended, which ran from and until so many seconds ago. */
function ended(parent, no, state, from, to, more = {}) {
  const job = child(parent, no, state, to, more);
  const result = {
    v: 2, job_id: job.job_id, status: state === 'completed' ? 'completed' : 'failed', attempt: 1, result_pointer: '', host: 'node1',
    started_at: ago(from), finished_at: ago(to), ...(state === 'failed' && { reason: 'exit', message: 'The task ended with exit code 3.' }),
  };
  return { ...job, result };
}

/** A workflow that is seen as it goes on. */
export async function a_workflow_is_a_tree_with_its_times({ edge, open, axe, submit }) {
  const site = await Site.link(edge, 'alpha');
  const id = await submit({ task: 'montage', name: 'mosaic' });
  const parent = (all, done) => ({
    job_id: id, state: 'held', attempt: 1, at: ago(100), task: 'montage', name: 'mosaic', pool: 'cpu', message: 'it waits for any of its jobs',
    children: { all, ended: done, tasks: 9 },
  });
  const hostile = '<img src=x onerror=alert(1)>\u202e';
  await site.report({
    jobs: [
      parent(4, 2), ended(id, 1, 'completed', 90, 50), child(id, 2, 'running', 60, { task: 'diff', name: hostile, pool: 'gpu' }),
      ended(id, 3, 'failed', 40, 30), child(id, 4, 'held', 20, { children: { all: 2, ended: 0 } }),
      child(`${id}-4`, 1, 'running', 10, { name: 'below 1' }), child(`${id}-4`, 2, 'hidden class', 10, { name: 'below 2' }),
    ],
  });
  const page = await open({ at: `#/jobs/${id}` });
  await page.getByRole('heading', { name: 'Its tasks' }).waitFor();
  await page.getByText('9 tasks: 1 completed, 1 failed, 1 running, 1 held, 5 not begun').waitFor();
  await row(page, 'project_1').getByText('40 s', { exact: true }).waitFor();
  await row(page, 'project_1').getByText('node1').waitFor();
  await row(page, 'project_3').getByText('exit').waitFor();
  await row(page, '<img src=x onerror=alert(1)>\\u{202e}').getByText('running').waitFor();
  assert.equal(await page.locator('section img').count(), 0);

  // The picture says in words what it shows; each bar has its job and times.
  await page.getByRole('img', { name: /^What ran where and when: 3 runs in 2 places, over / }).waitFor();
  const bars = page.locator('.gantt rect');
  assert.deepEqual(await bars.evaluateAll((all) => all.map((bar) => bar.getAttribute('class')).sort()), ['run completed', 'run failed', 'run running']);
  assert.match(await page.locator('.gantt').getByText('project_1').textContent(), /^project_1: completed, .*, 40 s$/);
  const [first, second] = await bars.evaluateAll((all) => all.map((bar) => bar.getBoundingClientRect().x));
  assert(first !== second, 'bars lie where their times are');

  // What is below one of them is opened and closed with the keyboard.
  const open4 = page.getByRole('button', { name: 'Jobs of project_4' });
  await open4.focus();
  await page.keyboard.press('Enter');
  await row(page, 'below 1').waitFor();
  await row(page, 'hidden class').waitFor();
  assert.equal(await open4.getAttribute('aria-expanded'), 'true');
  await axe(page, 'a tree that is open');
  await page.keyboard.press('Enter');
  await row(page, 'below 1').waitFor({ state: 'detached' });

  // It is live: what ends, and what comes.
  await site.report({ jobs: [parent(5, 3), ended(id, 2, 'completed', 60, 0, { task: 'diff' }), child(id, 5, 'running', 0)] });
  await page.getByText('9 tasks: 2 completed, 1 failed, 1 running, 1 held, 4 not begun').waitFor();
  await row(page, 'project_5').getByText('running').waitFor();

  // From a task to its workflow and back.
  await row(page, 'project_1').getByRole('link').click();
  await page.getByRole('heading', { name: 'project_1' }).waitFor();
  await page.getByRole('link', { name: id, exact: true }).click();
  await page.getByRole('heading', { name: 'mosaic' }).waitFor();
  await page.getByText('5 not begun').waitFor({ state: 'detached' });
  const dark = await open({ at: `#/jobs/${id}`, scheme: 'dark', width: 360, height: 740 });
  await dark.getByRole('img', { name: /^What ran where/ }).waitFor();
  await axe(dark, 'a tree, dark and narrow');
  const wide = await dark.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
  assert.equal(wide, 0, 'it is wider than the screen');
}

/** A job in its third round: its own runs are bars, too. */
export async function the_rounds_of_a_job_are_seen({ edge, open, submit }) {
  const site = await Site.link(edge, 'alpha');
  const id = await submit({ task: 'vqe', name: 'H2' });
  const told = (state, attempt, at, more = {}) => ({ job_id: id, state, attempt, at: ago(at), task: 'vqe', name: 'H2', pool: 'cpu', ...more });
  await site.report({ jobs: [told('running', 1, 90)] });
  await site.report({ jobs: [told('held', 1, 80, { children: { all: 1, ended: 0 } }), child(id, 1, 'running', 75, { pool: 'qpu' })] });
  await site.report({ jobs: [told('running', 2, 60, { children: { all: 1, ended: 1 } }), ended(id, 1, 'completed', 75, 62, { pool: 'qpu' })] });
  const page = await open({ at: `#/jobs/${id}` });
  await page.getByRole('heading', { name: 'Its jobs' }).waitFor();
  await page.getByRole('img', { name: /^What ran where and when: 3 runs in 2 places/ }).waitFor();
  const titles = await page.locator('.gantt rect title').allTextContents();
  assert(titles.some((title) => /^run 1: held, .*, 10 s$/.test(title)) && titles.some((title) => /^run 2: running, /.test(title)), titles.join('\n'));
}

/** Very many: few of them are in the document, and all can be reached. */
export async function a_tree_of_thousands_is_bounded({ edge, open, axe, submit }) {
  const site = await Site.link(edge, 'alpha');
  const id = await submit({ task: 'sweep', name: 'sweep' });
  const parent = { job_id: id, state: 'held', attempt: 1, at: ago(900), task: 'sweep', name: 'sweep', children: { all: 5_000, ended: 600 } };
  await site.report({ jobs: [parent] });
  for (let from = 1; from <= 1_000; from += 250) {
    const of = (no) => {
      const more = { task: no % 2 ? 'odd' : 'even', pool: no % 2 ? 'cpu' : 'gpu' };
      return no <= 600 ? ended(id, no, 'completed', 800 - no, 700 - no, more) : child(id, no, no <= 700 ? 'running' : 'held', 50, more);
    };
    await site.report({ jobs: Array.from({ length: 250 }, (_, at) => of(from + at)) });
  }
  const page = await open({ at: `#/jobs/${id}` });
  await page.getByText('600 completed, 100 running, 300 held').waitFor();
  await page.getByText('4,000 more are only counted').waitFor();
  const rows = () => page.getByRole('region', { name: 'Tree of jobs' }).getByRole('row').count();
  assert.equal(await rows(), 52, 'a head, fifty, and a button');
  await page.getByText('By kind of work: 2 tasks').click();
  await page.getByRole('region', { name: 'By kind of work' }).getByRole('row').filter({ hasText: 'odd' }).getByText('500').waitFor();
  await axe(page, 'a thousand children');
  for (let press = 0; press < 5; press += 1) await page.getByRole('button', { name: /^Show more/ }).click();
  await row(page, 'project_1000').waitFor();
  assert.equal(await page.getByRole('button', { name: /^Show more/ }).count(), 0);
  // A burst of changes does not hold it up.
  const began = Date.now();
  await site.report({ jobs: Array.from({ length: 300 }, (_, at) => child(id, 701 + at, 'running', 0)) });
  await page.getByText('600 completed, 400 running').waitFor();
  assert(Date.now() - began < 5_000, 'it stood still');
}

/** A mosaic in the middle of its work, in three pools; with pictures. */
export async function a_mosaic_is_well_to_look_at({ edge, open, axe, submit, shot }) {
  const site = await Site.link(edge, 'alpha');
  const id = await submit({ task: 'montage', name: 'mosaic of M17' });
  const jobs = [];
  const add = (task, pool, from, to, more = {}) => {
    const no = jobs.length + 1;
    const of = { task, name: `${task}_${no}`, pool, ...more };
    jobs.push(to > 0 ? ended(id, no, of.state ?? 'completed', from, to, of) : child(id, no, from > 0 ? 'running' : 'held', from, of));
  };
  for (let no = 0; no < 12; no += 1) add('mProject', 'cpu', 590 - Math.floor(no / 4) * 62 - no, 535 - Math.floor(no / 4) * 60 - no * 2);
  for (let no = 0; no < 14; no += 1) add('mDiffFit', 'small', 470 - no * 14, 440 - no * 13, no === 9 ? { state: 'failed' } : {});
  add('mConcatFit', 'small', 255, 240);
  add('mBgModel', 'cpu', 238, 170);
  for (let no = 0; no < 12; no += 1) add('mBackground', 'cpu', Math.max(0, 165 - Math.floor(no / 4) * 68 - no * 3), no < 6 ? 100 - no * 12 : 0);
  const parent = {
    job_id: id, state: 'held', attempt: 1, at: ago(600), task: 'montage', name: 'mosaic of M17', pool: 'cpu', message: 'it waits for any of its jobs',
    children: { all: jobs.length, ended: 34, tasks: 46 },
  };
  await site.report({ jobs: [parent, ...jobs] });
  for (const scheme of ['light', 'dark']) {
    for (const [size, width, height] of [['wide', 1080, 640], ['narrow', 360, 740]]) {
      const page = await open({ at: `#/jobs/${id}`, scheme, width, height });
      await page.getByRole('img', { name: /^What ran where/ }).waitFor();
      await page.getByText('By kind of work').click();
      const wide = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
      assert.equal(wide, 0, `it is wider than ${width} pixels`);
      await axe(page, `a mosaic, ${scheme}, ${size}`);
      await page.getByText('By kind of work').click();
      // Most of the rows, and the picture, are what is worth a picture.
      await page.locator('figure').evaluate((figure) => figure.scrollIntoView({ block: 'end' }));
      await page.mouse.move(0, 0);
      await shot(page, `tree-${scheme}-${size}`);
      await page.context().close();
    }
  }
}

/** What waits for what stands in the document: drawn where that is there, and not too large. */
export async function the_arrows_of_a_workflow_are_drawn({ edge, open, axe, submit, shot }) {
  const site = await Site.link(edge, 'alpha');
  const hostile = '<img src=x onerror=alert(1)>\u202e';
  const wfformat = (tasks) => ({ schemaVersion: '1.5', workflow: { specification: { tasks } } });
  const run = async (name, input, tasks, jobs = () => []) => {
    const id = await submit({ task: 'workflow', name, input });
    const told = jobs(id);
    const children = { all: told.length, ended: told.filter((job) => job.result).length, tasks };
    await site.report({ jobs: [{ job_id: id, state: 'held', attempt: 1, at: ago(100), task: 'workflow', name, pool: 'cpu', children }, ...told] });
    return [id, await open({ at: `#/jobs/${id}` })];
  };
  const flow = wfformat([
    { id: 'prepare', parents: [], children: ['measure-1', 'measure-2'] }, { id: 'measure-1', parents: ['prepare'], children: ['combine'] },
    { id: 'measure-2', parents: ['prepare'], children: ['combine'] }, { id: hostile, parents: [], children: ['combine'] },
    { id: 'states', children: ['combine'] }, { id: 'combine', parents: ['measure-1', 'measure-2', hostile, 'states'] },
  ]);
  const [id, page] = await run('flow', flow, 6, (id) => [
    ended(id, 1, 'completed', 90, 80), child(id, 2, 'running', 70), child(id, 3, 'held', 70), ended(id, 4, 'failed', 60, 50), child(id, 5, 'new word', 70),
  ]);
  const graph = (page) => page.getByRole('img', { name: /^What waits for what: / });
  await page.getByRole('img', { name: 'What waits for what: 6 tasks on 3 levels, 6 arrows; the input has the same' }).waitFor();
  const classes = () => graph(page).locator('rect.run').evaluateAll((all) => all.map((bar) => bar.getAttribute('class')));
  assert.deepEqual(await classes(), ['run completed', 'run running', 'run held', 'run failed', 'run ', 'run waiting']);
  const texts = await graph(page).locator('text').allTextContents();
  assert.deepEqual(texts, ['✓ prepare', '▶ measure-1', '◔ measure-2', '✕ <img src…>\\u{202e}', '? states', '· combine']);
  const titles = await graph(page).locator('title').allTextContents();
  assert.equal(titles[5], 'combine: not begun, after measure-1, measure-2, <img src=x onerror=alert(1)>\\u{202e}, states');
  assert.equal(await page.locator('section img').count(), 0);
  // Every arrow begins at a task, goes to the right, and ends at the task that waits for it.
  const boxes = await graph(page).locator('g').evaluateAll((all) => all.map((task) => task.transform.baseVal[0].matrix).map(({ e, f }) => [e, f]));
  const path = await graph(page).locator('path').first().getAttribute('d');
  const arrows = path.split('M').slice(1).map((one) => one.split(/[C ]/).map(Number));
  const seen = arrows.map((numbers) => {
    const [from, to] = [boxes.findIndex(([x, y]) => numbers[0] === x + 156 && numbers[1] === y + 9), boxes.findIndex(([x, y]) => numbers.at(-2) === x - 6 && numbers.at(-1) === y + 9)];
    assert(from >= 0 && to >= 0 && boxes[from][0] < boxes[to][0], `${numbers}`);
    return `${from + 1}-${to + 1}`;
  });
  assert.deepEqual(seen.sort(), ['1-2', '1-3', '2-6', '3-6', '4-6', '5-6']);
  await axe(page, 'a graph');
  // It is live.
  await site.report({ jobs: [ended(id, 2, 'completed', 70, 0)] });
  await graph(page).getByText('✓ measure-1').waitFor();
  await shot(page, 'graph-light-wide');
  const dark = await open({ at: `#/jobs/${id}`, scheme: 'dark', width: 360, height: 740 });
  await graph(dark).waitFor();
  await axe(dark, 'a graph, dark and narrow');
  const wide = await dark.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
  assert.equal(wide, 0, 'it is wider than the screen');

  // Where a document says it of no task, it follows from the files; HyperFlow has places and names of signals.
  const files = wfformat([{ id: 'a', outputFiles: ['x'] }, { id: 'b', inputFiles: ['x', 'brought'] }]);
  const hyperflow = { signals: [{ name: 'x' }, { name: 'y' }], processes: [{ name: 'p', outs: [0] }, { name: 'p', ins: ['x'], outs: ['y'] }, { name: 'q', ins: [1, 0] }] };
  for (const [name, input, tasks, said] of [
    ['files', files, 2, '2 tasks on 2 levels, 1 arrow'], ['signals', hyperflow, 3, '3 tasks on 3 levels, 3 arrows'],
    ['alone', wfformat([{ id: 'a', parents: [], outputFiles: ['x'] }, { id: 'b', parents: [], inputFiles: ['x'] }]), 2, '2 tasks on 1 level, 0 arrows'],
  ]) {
    const [, page] = await run(name, input, tasks);
    await page.getByText(`Graph: ${said}`).waitFor();
    await page.context().close();
  }
  // Of what it cannot be drawn, that is said.
  const circle = wfformat([{ id: 'a', parents: ['b'] }, { id: 'b', parents: ['a'] }]);
  const junk = wfformat([null, 7, { id: [], parents: 'a', children: [{}, 12345678901234567890n.toString()] }, { id: 0.1, parents: [4, null] }]);
  const many = wfformat(Array.from({ length: 201 }, (_, no) => ({ id: `${no}`, parents: [] })));
  for (const [name, input, tasks] of [['circle', circle, 2], ['junk', { workflow: 7, processes: 'x' }, 1], ['none', {}, 3], ['many', many, 201], ['other', files, 3]]) {
    const [, page] = await run(name, input, tasks);
    await page.getByText('The arrows between them are drawn of up to 200 tasks').waitFor();
    assert.equal(await graph(page).count(), 0, name);
    await page.context().close();
  }
  const [, odd] = await run('odd', junk, 4);
  await odd.getByText('Graph: 4 tasks on 1 level, 0 arrows').waitFor();
}
