// What the page does. Each case has an edge of its own, and a site that does as it is told.

import assert from 'node:assert/strict';

import { Site } from './site.mjs';

const POOL = {
  pool: 'cpu', ready: true, held: 1, running: 2, hold: 100,
  capacity: { cpus: 32, memory: 64e9, gpus: 0 }, in_use: { cpus: 8, memory: 16e9, gpus: 0 },
};

const row = (page, text) => page.getByRole('row').filter({ hasText: text });

/** Waits until a condition in the page holds. */
const until = (page, condition, argument) => page.waitForFunction(condition, argument);

/** Nothing is shown to whoever has no key; and where the key is kept. */
export async function the_key_is_asked_for_and_stays_in_its_tab({ edge, open, axe }) {
  const page = await open({ key: null, expected: ['401'] });
  await page.getByRole('heading', { name: 'Which key?' }).waitFor();
  await axe(page, 'asked for the key');
  const field = page.getByLabel('API key');
  await field.fill('a-wrong-key');
  await page.getByRole('button', { name: 'Show' }).click();
  await page.getByRole('alert').filter({ hasText: 'does not take this key' }).waitFor();
  await axe(page, 'a wrong key');
  assert(await field.evaluate((input) => input === document.activeElement), 'the field has the focus');
  await field.fill(edge.api_key);
  await field.press('Enter');
  await page.getByRole('heading', { name: 'Jobs' }).waitFor();
  const kept = () => page.evaluate(() => [Object.values({ ...sessionStorage }), Object.values({ ...localStorage }), document.cookie, location.href]);
  const [session, local, cookie, address] = await kept();
  assert.deepEqual([session, local, cookie], [[edge.api_key], [], '']);
  assert(!address.includes(edge.api_key));
  await page.reload();
  await page.getByRole('heading', { name: 'Jobs' }).waitFor();
  await page.getByRole('button', { name: 'Forget key' }).click();
  await page.getByRole('heading', { name: 'Which key?' }).waitFor();
  assert.deepEqual((await kept())[0], []);
}

/** A job from its submission to its end, with all that can be seen of it, and nothing asked for anew by hand. */
export async function a_job_is_submitted_followed_and_cancelled({ edge, open, axe, submit }) {
  const page = await open();
  await page.getByText('The hub has heard of no job yet').waitFor();
  await axe(page, 'no job');
  const site = await Site.link(edge, 'alpha', [POOL]);
  const id = await submit({ task: 'relax', name: 'relax 7', input: { steps: 12345678901234567890n.toString(), n: [1, 2] } });
  await row(page, 'relax 7').getByText('queued').waitFor();
  await site.job(id, 'held', { task: 'relax', name: 'relax 7', pool: 'cpu', message: 'It waits for 16 CPUs of the pool cpu' });
  await row(page, 'relax 7').getByText('held').waitFor();
  await axe(page, 'the list');
  await row(page, 'relax 7').getByRole('link').click();
  await page.getByRole('heading', { name: 'relax 7' }).waitFor();
  await page.getByText('It waits for 16 CPUs of the pool cpu').waitFor();
  await page.getByRole('region', { name: 'Input' }).getByText('"steps": "12345678901234567890"').waitFor();

  // What it prints comes while it runs: escape sequences, markup, and halves of characters do nothing.
  await site.job(id, 'running', { task: 'relax', name: 'relax 7', pool: 'cpu' });
  await page.getByRole('list').getByText('running').waitFor();
  await site.hears('tail', (tail) => tail.job_id === id && tail.stream === 'stdout');
  const hostile = '\u001b[31mred\u001b[0m\u001b]0;title\u0007\u001b[2J <script>alert(1)</script><img src=x onerror=alert(2)>\u202e\u0000\n 1%\r 50%\r99%\u001b[';
  let at = site.log(id, 0, hostile);
  at = site.log(id, at, Buffer.concat([Buffer.from('1mbold\n'), Buffer.from('é').subarray(0, 1)]));
  site.log(id, at, Buffer.concat([Buffer.from('é').subarray(1), Buffer.from(' ends\n')]));
  site.log(id, 0, 'a warning\n', { stream: 'stderr' });
  const log = page.getByRole('region', { name: 'Standard output' });
  await log.getByText('é ends').waitFor();
  const lines = (await log.innerText()).split('\n').filter((line) => line);
  assert.deepEqual(lines, ['red <script>alert(1)</script><img src=x onerror=alert(2)>\\u{202e}\\u{0}', '99%bold', 'é ends']);
  assert.equal(await log.evaluate((element) => element.querySelectorAll('script, img').length), 0);
  await page.getByRole('button', { name: /^stderr/ }).click();
  await page.getByRole('region', { name: 'Standard error' }).getByText('a warning').waitFor();
  await axe(page, 'a job that runs');

  await page.getByRole('button', { name: 'Cancel…' }).click();
  const question = page.getByRole('dialog', { name: 'Cancel this job?' });
  await axe(page, 'the question');
  await question.getByRole('button', { name: 'Keep' }).click();
  await question.waitFor({ state: 'detached' });
  assert(!site.heard.some((message) => message.type === 'cancel'), 'it was cancelled without a yes');
  await page.getByRole('button', { name: 'Cancel…' }).click();
  await question.getByRole('button', { name: 'Cancel it' }).click();
  await page.getByRole('status').filter({ hasText: 'The job will be ended' }).waitFor();
  await site.hears('cancel', (cancel) => cancel.jobs.includes(id));
  await page.getByText('Somebody has asked').waitFor();
  const result = {
    v: 2, job_id: id, status: 'failed', reason: 'cancelled', message: 'It was cancelled.', attempt: 1, result_pointer: '',
    output: { reached: 1.0, exactly: 3 }, stdout_tail: 'the end of it\n',
  };
  await site.job(id, 'cancelled', { task: 'relax', name: 'relax 7', pool: 'cpu', result });
  await page.getByRole('list').getByText('cancelled').waitFor();
  await page.getByRole('region', { name: 'Output' }).getByText('"exactly": 3').waitFor();
  assert.equal(await page.getByRole('button', { name: /^Cancel/ }).count(), 0, 'what has ended cannot be cancelled');
  await axe(page, 'a job that has ended');

  // Later, when nobody else looks at it, and its site has gone: what came with the result.
  site.vanish();
  await page.context().close();
  const later = await open({ at: `#/jobs/${id}` });
  await later.getByRole('region', { name: 'Standard output' }).getByText('the end of it').waitFor();
  const nothing = await open({ at: '#/jobs/nobody-knows-it', expected: ['404'] });
  await nothing.getByText('has never heard of this job').waitFor();
  await axe(nothing, 'a job that nobody knows');
}

/** The same with a real site, which runs what its jobs bring. */
export async function a_real_job_is_followed_and_cancelled({ open, axe, submit }) {
  const page = await open({ at: '#/sites' });
  await page.getByRole('row').nth(1).getByText('linked', { exact: true }).waitFor();
  await page.getByRole('navigation', { name: 'Views' }).getByRole('link', { name: 'Jobs' }).click();
  const count = 'i=0; while :; do i=$((i+1)); echo line $i; echo odd >&2; sleep 0.05; done';
  const id = await submit({ task: 'count', name: 'counts', input: count });
  await row(page, 'counts').getByText('running').waitFor();
  await row(page, 'counts').getByRole('link').click();
  const log = page.getByRole('region', { name: 'Standard output' });
  await log.getByText('line 60').waitFor();
  await axe(page, 'a real job');
  await page.getByRole('button', { name: 'Cancel…' }).click();
  await page.getByRole('button', { name: 'Cancel it' }).click();
  await page.getByRole('list').getByText('cancelled').waitFor();
  await page.getByText('It prints no more').waitFor();
  const lines = (await log.innerText()).split('\n').filter((line) => line);
  const numbers = lines.map((line) => Number(line.replace('line ', '')));
  assert.deepEqual(numbers, numbers.map((_, at) => numbers[0] + at), 'no line is missing, and none came twice');
  const done = await submit({ task: 'count', name: 'ends', input: 'echo out; echo 7 > output.json' });
  await page.goto(page.url().replace(id, done));
  await page.getByRole('list').getByText('completed').waitFor();
  await page.getByRole('region', { name: 'Output' }).getByText('7').waitFor();
  await log.getByText('out').waitFor();
}

/** A thousand jobs: few of them are in the document, all can be reached, and a burst of changes is shown. */
export async function a_thousand_jobs_are_listed_filtered_and_cancelled({ edge, open, axe, api }) {
  const site = await Site.link(edge, 'alpha', [POOL]);
  const ids = [];
  for (let batch = 0; batch < 10; batch += 1) {
    const jobs = Array.from({ length: 100 }, (_, n) => ({ task: n % 2 ? 'odd' : 'even', name: `job ${batch * 100 + n}`, input: {} }));
    const answer = await api('/jobs/batch', { method: 'POST', body: JSON.stringify({ jobs }) });
    ids.push(...answer.jobs.map((job) => job.job_id));
  }
  const page = await open();
  await row(page, 'job 999').waitFor();
  const rows = () => page.locator('tr.row').count();
  const reach = async (name) => {
    // By the key, as whoever has no mouse.
    for (let press = 0; press < 200 && (await row(page, name).count()) === 0; press += 1) {
      await page.keyboard.press('End');
      await page.waitForTimeout(20);
    }
    await page.getByRole('link', { name, exact: true }).waitFor();
  };
  await page.locator('body').click({ position: { x: 2, y: 2 } });
  await reach('job 0');
  await page.getByText('1,000 jobs shown').waitFor();
  assert(await rows() < 200, `${await rows()} rows are in the document`);
  assert.equal(await page.getByRole('table').getAttribute('aria-rowcount'), '1001');
  await axe(page, 'the end of a thousand jobs');

  // All of them change at once, twice; what is in sight is right, and the page did not stand still.
  await page.evaluate(() => {
    globalThis.longest = 0;
    let last = performance.now();
    const frame = (now) => {
      globalThis.longest = Math.max(globalThis.longest, now - last);
      last = now;
      requestAnimationFrame(frame);
    };
    requestAnimationFrame(frame);
  });
  const all = (state, attempt) =>
    Array.from({ length: 10 }, (_, batch) =>
      site.report({
        jobs: ids.slice(batch * 100, batch * 100 + 100).map((job_id, n) => ({
          job_id, state, attempt, at: new Date().toISOString(), task: n % 2 ? 'odd' : 'even', name: `job ${batch * 100 + n}`, pool: 'cpu',
        })),
      }));
  await Promise.all(all('held', 0));
  await Promise.all(all('running', 1));
  await row(page, 'job 0').getByText('running').first().waitFor();
  await until(page, () => [...document.querySelectorAll('tr.row .state')].every((state) => state.textContent.includes('running')));
  const longest = await page.evaluate(() => globalThis.longest);
  assert(longest < 2_000, `the page stood still for ${longest} ms`);
  await page.keyboard.press('Home');
  await row(page, 'job 999').getByText('running').waitFor();

  // The filters are in the address, and the other way round.
  await page.getByRole('navigation', { name: 'States' }).getByRole('link', { name: 'held' }).click();
  await page.getByText('No job fits').waitFor();
  await page.goto(`${edge.url}/#/jobs?state=running&task=odd`);
  await page.getByLabel('Task', { exact: true }).waitFor();
  await row(page, 'job 999').waitFor();
  assert.equal(await page.getByLabel('Task', { exact: true }).inputValue(), 'odd');
  assert.equal(await row(page, 'job 998').count(), 0);
  await page.getByLabel('Name', { exact: true }).fill('job 997');
  await page.getByLabel('Name', { exact: true }).press('Enter');
  await page.getByText('1 job shown').waitFor();
  assert(page.url().endsWith('#/jobs?state=running&task=odd&name=job+997'), page.url());
  await page.goBack();
  await row(page, 'job 999').waitFor();

  // Two by hand, and then all others that fit, those that are not shown too.
  await row(page, 'job 999').getByRole('checkbox').check();
  await row(page, 'job 997').getByRole('checkbox').check();
  await page.getByRole('button', { name: 'Cancel selected (2)…' }).click();
  await page.getByRole('dialog', { name: 'Cancel 2 jobs?' }).getByRole('button', { name: 'Cancel them' }).click();
  await page.getByRole('status').filter({ hasText: '2 jobs will be ended' }).waitFor();
  await row(page, 'job 999').getByText('to be cancelled').waitFor();
  await page.getByRole('button', { name: 'Cancel all that fit…' }).click();
  const question = page.getByRole('dialog', { name: 'Cancel 498 jobs?' });
  await question.getByText('task odd').waitFor();
  await axe(page, 'the question about all that fit');
  await question.getByRole('button', { name: 'Cancel them' }).click();
  await page.getByRole('status').filter({ hasText: '498 jobs will be ended' }).waitFor();
  const asked = new Set(site.heard.filter((message) => message.type === 'cancel').flatMap((message) => message.jobs));
  assert.equal(asked.size, 500);
}

/** Sites come and go, pools say why they cannot, and the edge itself is away for a while. */
export async function a_site_goes_away_and_the_edge_too({ edge, open, axe, submit }) {
  const page = await open({ at: '#/sites', expected: ['ERR_', 'Failed to load'] });
  await page.getByText('No site has ever been heard of').waitFor();
  await axe(page, 'no site');
  const alpha = await Site.link(edge, 'alpha', [POOL], { held: 3, running: 2 });
  const beta = await Site.link(edge, 'beta', [{ ...POOL, pool: 'gpu', ready: false, problem: 'The image /images/torch.sif is not there' }]);
  await row(page, 'alpha').getByText('linked', { exact: true }).waitFor();
  await row(page, 'beta').getByText('linked', { exact: true }).waitFor();
  await beta.report({ site: { held: 0, running: 0, owed: 2, trouble: 'RESULTS_DIR is full; make room' } });
  await page.getByText('RESULTS_DIR is full; make room').waitFor();
  await axe(page, 'two sites');
  beta.vanish();
  await row(page, 'beta').getByText('not linked').waitFor();
  await row(page, 'alpha').getByText('linked', { exact: true }).waitFor();
  alpha.vanish();
  await submit({ task: 'relax', name: 'waits' });
  await page.getByRole('alert').filter({ hasText: 'No site is linked' }).waitFor();
  await axe(page, 'no site is linked');
  await page.getByRole('link', { name: 'Pools' }).click();
  await row(page, 'gpu').getByText('not linked').waitFor();
  await page.getByText('The image /images/torch.sif is not there').waitFor();
  await axe(page, 'pools');

  await page.getByRole('navigation', { name: 'Views' }).getByRole('link', { name: 'Jobs' }).click();
  await row(page, 'waits').waitFor();
  await page.getByRole('link', { name: 'no site linked' }).waitFor();
  // Whoever runs this takes the edge away and brings it back. What happens before the page hears again is not missed.
  await page.route(/\/events$/, (route) => route.abort());
  console.log('RESTART');
  await page.getByText('Connecting…').waitFor({ state: 'attached' });
  await axe(page, 'the edge is away');
  const end = Date.now() + 20_000;
  while (!(await fetch(`${edge.url}/health`).catch(() => null))?.ok) assert(Date.now() < end, 'the edge does not come back');
  await submit({ task: 'relax', name: 'meanwhile' });
  await page.unroute(/\/events$/);
  await page.getByText('Live', { exact: true }).waitFor({ state: 'attached' });
  await submit({ task: 'relax', name: 'after all' });
  await row(page, 'after all').waitFor();
  await row(page, 'meanwhile').waitFor();
  await row(page, 'waits').waitFor();
}

/** All that a mouse does, the keys do; and where the focus is can be seen. */
export async function the_keyboard_alone_will_do({ edge, open, axe, submit }) {
  const site = await Site.link(edge, 'alpha', [POOL]);
  const id = await submit({ task: 'relax', name: 'by key' });
  const page = await open({ key: null });
  await until(page, () => document.activeElement.id === 'key');
  await page.keyboard.type(edge.api_key);
  await page.keyboard.press('Enter');
  await row(page, 'by key').waitFor();
  const here = () => page.evaluate(() => {
    const element = document.activeElement;
    const style = getComputedStyle(element);
    return { name: (element.getAttribute('aria-label') ?? element.innerText ?? '').trim(), outline: style.outlineStyle, tag: element.tagName };
  });
  /** Presses the tab key until the focus is on what is called so; each stop on the way shows where it is. */
  const tabTo = async (name, keys = 'Tab') => {
    const stops = [];
    for (let press = 0; press < 60; press += 1) {
      await page.keyboard.press(keys);
      const at = await here();
      stops.push(at.name);
      if (at.tag !== 'BODY') assert.notEqual(at.outline, 'none', `the focus on ${at.tag} ${at.name} cannot be seen`);
      if (at.name.startsWith(name)) return;
    }
    throw new Error(`the tab key does not lead to ${name}, but ${stops}`);
  };
  await page.reload();
  await row(page, 'by key').waitFor();
  await page.keyboard.press('Tab');
  assert.equal((await here()).name, 'Skip to the content');
  await page.keyboard.press('Enter');
  assert.equal((await here()).tag, 'MAIN');
  await tabTo('by key');
  await page.keyboard.press('Enter');
  await page.getByRole('heading', { name: 'by key' }).waitFor();
  await until(page, () => document.activeElement.tagName === 'H1');
  await tabTo('Cancel…');
  await page.keyboard.press('Enter');
  await page.getByRole('dialog').waitFor();
  assert.equal((await here()).name, 'Keep', 'what does no harm has the focus');
  await page.keyboard.press('Escape');
  // Hidden at once, and gone when the page has heard of it.
  await page.locator('dialog').waitFor({ state: 'detached' });
  await until(page, () => document.activeElement.textContent === 'Cancel…');
  await page.keyboard.press('Enter');
  await page.getByRole('dialog').waitFor();
  await tabTo('Cancel it');
  await page.keyboard.press('Enter');
  await site.hears('cancel', (cancel) => cancel.jobs.includes(id));
  await page.getByText('Somebody has asked').waitFor();
  await tabTo('stderr');
  await page.keyboard.press('Space');
  await page.getByRole('region', { name: 'Standard error' }).waitFor();
  await tabTo('Pools', 'Shift+Tab');
  await page.keyboard.press('Enter');
  await page.getByRole('heading', { name: 'Pools' }).waitFor();
  await axe(page, 'pools');
  await page.goBack();
  await page.getByRole('heading', { name: 'by key' }).waitFor();
}

/** Names that are no names, and logs without measure. */
export async function hostile_names_and_endless_logs_do_nothing({ edge, open, axe, submit }) {
  const site = await Site.link(edge, 'alpha', [{ ...POOL, problem: '<script>alert(1)</script>\u202e', ready: false }], { trouble: '<img src=x onerror=alert(1)>\u001b[2J' });
  const names = ['<img src=x onerror=alert(1)>', '"><script>alert(1)</script>', 'javascript:alert(1)', 'x'.repeat(120), '{{constructor}}', '__proto__'];
  const ids = [];
  for (const name of names) ids.push(await submit({ task: 'relax', name }));
  const page = await open({ width: 360, height: 740 });
  for (const name of names) await page.getByRole('link', { name, exact: true }).waitFor();
  // What a site says of a job is not looked at as closely as what is submitted.
  const turned = 'report\u202egnp.exe\u0007';
  await site.job('j-1', 'running', { task: '<b>bold</b>', name: turned, message: '\u001b]8;;http://evil.example\u0007click\u202e', pool: 'cpu' });
  await page.getByRole('link', { name: 'report\\u{202e}gnp.exe\\u{7}', exact: true }).click();
  await page.getByText('click\\u{202e}').waitFor();
  const wide = () => page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
  assert.equal(await wide(), 0, 'the page is wider than a small screen');

  // Six million characters, a line without an end among them: the end is there, and not more than is meant to be kept.
  await site.hears('tail', (tail) => tail.job_id === 'j-1' && tail.stream === 'stdout');
  const log = page.getByRole('region', { name: 'Standard output' });
  let at = 0;
  for (let piece = 0; piece < 80; piece += 1) at = site.log('j-1', at, `${'lorem ipsum '.repeat(3_300)}${piece}\n`);
  for (let piece = 0; piece < 60; piece += 1) at = site.log('j-1', at, 'z'.repeat(40_000));
  site.log('j-1', at, '\nthe last line\n');
  await log.getByText('the last line').waitFor();
  const size = await log.evaluate((element) => element.textContent.length);
  assert(size <= 2_100_000, `${size} characters are kept`);
  await page.getByText('Only the end is kept here').waitFor();
  await until(page, () => {
    const element = document.querySelector('.log');
    return element.scrollHeight - element.scrollTop - element.clientHeight < 50;
  });
  // Whoever reads further up is left alone, until told otherwise.
  await log.evaluate((element) => (element.scrollTop = 0));
  const end = page.getByRole('button', { name: 'To the end' });
  await until(page, () => ![...document.querySelectorAll('button')].find((button) => button.textContent === 'To the end').disabled);
  site.log('j-1', at + 15, 'one more\n');
  await log.getByText('one more').waitFor();
  assert(await log.evaluate((element) => element.scrollTop) < 1_000);
  await end.click();
  assert(await log.evaluate((element) => element.scrollHeight - element.scrollTop - element.clientHeight) < 50);
  // While it is paused, what comes waits.
  await page.getByRole('button', { name: 'Pause' }).click();
  site.log('j-1', at + 24, 'while paused\n');
  site.log('j-1', 0, 'on the other\n', { stream: 'stderr' });
  await page.getByRole('button', { name: /^stderr 13/ }).waitFor();
  assert.equal(await log.getByText('while paused').count(), 0);
  await page.getByRole('button', { name: 'Pause' }).click();
  await log.getByText('while paused').waitFor();
  assert.equal(await wide(), 0, 'the log makes the page wider than a small screen');
  await page.getByRole('link', { name: 'Sites' }).click();
  await page.getByText('<img src=x onerror=alert(1)>\\u{1b}[2J').waitFor();
  await page.getByRole('link', { name: 'Pools' }).click();
  await page.getByText('<script>alert(1)</script>\\u{202e}').waitFor();
  await axe(page, 'hostile words');
}

/** An edge without a hub says so to the page, and the page to its reader. */
export async function an_edge_without_a_hub_is_explained({ edge, open, axe }) {
  const page = await open({ key: null, expected: ['501'] });
  const problem = { type: 'about:blank', title: 'No hub', status: 501, code: 'no_hub', detail: 'This edge has no hub.' };
  await page.route(/\/(jobs|events|sites|pools)/, (route) =>
    route.fulfill({ status: 501, contentType: 'application/problem+json', body: JSON.stringify(problem) }));
  await page.getByLabel('API key').fill(edge.api_key);
  await page.keyboard.press('Enter');
  await page.getByRole('heading', { name: 'This edge has no hub' }).waitFor();
  await axe(page, 'no hub');
  await page.unroute(/\/(jobs|events|sites|pools)/);
  await page.getByRole('button', { name: 'Ask again' }).click();
  await page.getByRole('heading', { name: 'Jobs' }).waitFor();
  await page.getByText('Live', { exact: true }).waitFor({ state: 'attached' });
}
