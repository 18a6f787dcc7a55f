// How the page looks: every view, dark and light, wide and narrow, with pictures of each.

import assert from 'node:assert/strict';

import { Site } from './site.mjs';

/** The time so long ago. */
const ago = (milliseconds) => new Date(Date.now() - milliseconds).toISOString();
const amount = (cpus, memory, gpus = 0) => ({ cpus, memory: memory * 2 ** 30, gpus });

const POOLS = [
  { pool: 'cpu', ready: true, held: 6, running: 3, hold: 500, capacity: amount(32, 64), in_use: amount(24, 21) },
  {
    pool: 'slurm', ready: true, held: 42, running: 16, capacity: amount(64, 256), in_use: amount(64, 200), allocations: 4, want: 6,
    why: '42 jobs wait: 6 allocations of 16 CPUs do them within 30 min; 2 are pending in the partition "compute"',
  },
];

const CALLBACKS = [
  { event: 'running', state: 'delivered', tries: 1, at: ago(7_200_000), outcome: '204 No Content' },
  { event: 'ended', state: 'waiting', tries: 0, at: ago(-60_000) },
];

/** A laboratory on an ordinary morning. */
async function fill({ edge, submit }) {
  const alpha = await Site.link(edge, 'alpha', POOLS, { held: 48, running: 19 });
  const beta = await Site.link(edge, 'beta', [
    { pool: 'gpu', ready: false, problem: 'The image /images/torch.sif is not there', held: 0, running: 0, capacity: amount(8, 32, 2), in_use: amount(0, 0) },
  ], { owed: 2, trouble: 'RESULTS_DIR is full: 0 bytes are left of 2 TB; make room' });
  const jobs = [
    ['relax', 'Fe2O3 relaxation, k 8x8x8', 'completed'], ['relax', 'Fe2O3 relaxation, k 12x12x12', 'running'], ['simulate', undefined, 'completed'],
    ['python', 'fit of the equation of state', 'failed'], ['relax', 'TiO2 rutile', 'running'], ['relax', 'TiO2 anatase', 'running'],
    ['simulate', 'diffusion, seed 7', 'completed'], ['simulate', 'diffusion, seed 8', 'cancelled'], ['simulate', 'diffusion, seed 9', 'held'],
    ['relax', 'TiO2 brookite', 'held'], ['python', 'phonons of MgO', 'queued'], ['python', 'phonons of CaO', 'queued'],
  ];
  const ids = {};
  for (const [at, [task, name, state]] of jobs.entries()) {
    const id = await submit({ task, ...(name && { name }), input: { structure: 'fe2o3.cif', encut: 520, kpoints: [12, 12, 12], smearing: 'gaussian' } });
    ids[name ?? id] = id;
    const age = (jobs.length - at) * 11 * 60_000;
    const of = { task, ...(name && { name }), pool: task === 'relax' ? 'slurm' : 'cpu' };
    if (state === 'queued') continue;
    await alpha.job(id, 'held', { ...of, at: ago(age), message: 'It waits for 16 CPUs of the pool slurm; 2 jobs are before it' });
    if (state === 'held') continue;
    await alpha.job(id, 'running', { ...of, at: ago(age - 9_000) });
    if (state === 'running') continue;
    const result = {
      v: 2, job_id: id, status: state === 'completed' ? 'completed' : 'failed', attempt: 1, result_pointer: `file://node17/results/${id}/output.json`, exit_code: state === 'failed' ? 3 : 0,
      ...(state === 'completed' ? { output: { mean_squared_distance: 499.71, walkers: 10_000 } } : { reason: state === 'failed' ? 'exit' : 'cancelled', message: state === 'failed' ? 'The task ended with exit code 3.' : 'It was cancelled.' }),
      host: 'node17', started_at: ago(age - 9_000), finished_at: ago(age - 200_000),
    };
    await alpha.job(id, state, { ...of, at: ago(age - 200_000), result });
  }
  beta.vanish();
  return { alpha, ids };
}

/** The hub of a test is seconds old. A job was submitted before what became of it, and the past of pools is a day. */
function earlier(job) {
  const before = new Date(Date.parse(job.updated_at) - 4_000).toISOString();
  return before < job.submitted_at ? { ...job, submitted_at: before } : job;
}

function past(pool) {
  const samples = [];
  for (let minute = 24 * 60; minute > 0; minute -= 5) {
    const x = ((24 * 60 - minute) / (24 * 60)) * 2 * Math.PI;
    const held = Math.max(0, Math.round(38 + 45 * Math.sin(2 * x - 1) + 18 * Math.sin(7 * x)));
    const want = Math.min(8, Math.ceil(held / 12));
    const have = samples.length % 4 === 0 ? Math.max(0, want - 1) : want;
    const batch = pool.want !== undefined;
    samples.push({
      at: ago(minute * 60_000), held, running: Math.min(batch ? have * 8 : 32, held + 4), capacity: { cpus: batch ? have * 16 : 32, gpus: 0 },
      ...(batch && { allocations: have, want, why: `${held} jobs wait: ${want} allocations of 16 CPUs do them within 30 min` }),
    });
  }
  return samples;
}

export async function every_view_is_well_to_look_at_dark_and_light_wide_and_narrow({ edge, open, axe, shot, submit }) {
  const { alpha, ids } = await fill({ edge, submit });
  const id = ids['Fe2O3 relaxation, k 12x12x12'];
  let printed = 'POSCAR found: 12 ions\n';
  for (let step = 1; step <= 24; step += 1) {
    printed += `DAV: ${String(step).padStart(3)}    \u001b[1m-0.${84_127 + step * 37}E+02\u001b[0m   -0.${(9 / step).toFixed(5).slice(2)}E-03   1488\n`;
  }
  alpha.prints(id, printed);
  const views = { jobs: '#/jobs', running: '#/jobs?state=running', job: `#/jobs/${id}`, pools: '#/pools', sites: '#/sites' };
  for (const scheme of ['light', 'dark']) {
    for (const [size, width, height] of [['wide', 1080, 660], ['narrow', 360, 740]]) {
      const page = await open({ scheme, width, height });
      const change = (address, changed) =>
        page.route(address, async (route) => {
          const answer = await route.fetch();
          await route.fulfill({ response: answer, json: changed(await answer.json()) });
        });
      await change(/\/pools\?history=1/, ({ pools }) => ({ pools: pools.map((pool) => ({ ...pool, history: past(pool) })) }));
      await change(/\/jobs\?/, (list) => ({ ...list, jobs: list.jobs.map(earlier) }));
      await change(/\/jobs\/[^/]+$/, (job) => {
        const [first] = job.timeline;
        const moved = (moment) => (moment.event === 'queued' ? { ...moment, at: earlier({ submitted_at: moment.at, updated_at: first.at }).submitted_at } : moment);
        return { ...earlier(job), callbacks: CALLBACKS, timeline: job.timeline.map(moved).sort((a, b) => a.at.localeCompare(b.at)) };
      });
      await page.reload();
      for (const [view, at] of Object.entries(views)) {
        await page.goto(`${edge.url}/${at}`);
        await page.getByRole('heading', { level: 1 }).waitFor();
        if (view === 'jobs' || view === 'running') await page.getByRole('link', { name: 'TiO2 rutile' }).waitFor();
        if (view === 'job') await page.getByText('DAV:  24').waitFor();
        if (view === 'pools') await page.locator('.plot canvas').nth(2).waitFor();
        if (view === 'sites') await page.getByText('RESULTS_DIR is full').waitFor();
        const wide = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
        assert.equal(wide, 0, `${view} is wider than ${width} pixels`);
        await axe(page, `${view}, ${scheme}, ${size}`);
        await page.locator('h1').first().evaluate((heading) => heading.blur());
        await page.mouse.move(0, 0);
        await shot(page, `${view}-${scheme}-${size}`);
      }
      await page.context().close();
    }
  }

  // The switch goes round: as the system, light, dark; and is remembered.
  const page = await open({ scheme: 'light' });
  const ground = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
  const light = await ground();
  const choose = async (name) => {
    await page.getByRole('button', { name: /^Colors/ }).click();
    await page.getByRole('button', { name: `Colors: ${name}` }).waitFor();
  };
  await choose('light');
  assert.equal(await ground(), light);
  await choose('dark');
  const dark = await ground();
  assert.notEqual(dark, light);
  await page.emulateMedia({ colorScheme: 'light' });
  await page.reload();
  await page.getByRole('button', { name: 'Colors: dark' }).waitFor();
  assert.equal(await ground(), dark);
  await choose('as the system');
  assert.equal(await ground(), light);
  await page.emulateMedia({ colorScheme: 'dark' });
  await page.waitForFunction((dark) => getComputedStyle(document.body).backgroundColor === dark, dark);
}
