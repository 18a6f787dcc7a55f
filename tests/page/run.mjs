// Runs one case in a real Chromium: `node run.mjs PACKAGES CHROMIUM CASE SCREENSHOTS`, with the addresses and keys of an
// edge as JSON in the variable EDGE. Whatever the page does that it must not do fails every case: an error, a request to
// another origin, something that its policy has stopped, a rule of accessibility that it breaks where `axe` looks.

import assert from 'node:assert/strict';
import { mkdirSync, readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';

import * as cases from './cases.mjs';
import * as files from './files.mjs';
import * as looks from './looks.mjs';
import * as tree from './tree.mjs';

const [packages, chromium, name, screenshots] = process.argv.slice(2);
const edge = JSON.parse(process.env.EDGE);
const require = createRequire(join(packages, 'node_modules/x'));
const axeSource = readFileSync(require.resolve('axe-core/axe.min.js'), 'utf8');

/** How long anything on the page may take. */
const PATIENCE = 20_000;

const browser = await require('playwright-core').chromium.launch({
  executablePath: chromium,
  // The page is ours, and as root, or in a container, there is no sandbox. Nothing is asked of the browser's makers.
  args: ['--no-sandbox', '--disable-gpu', '--disable-background-networking', '--disable-component-update', '--disable-sync'],
});
const faults = [];
try {
  const run = cases[name] ?? files[name] ?? looks[name] ?? tree[name];
  assert(run, `there is no case ${name}`);
  await run({ edge, open, axe, api, shot, submit });
  assert.deepEqual(faults, [], 'what the page must not do');
  console.log('OK');
} catch (error) {
  console.error(error);
  console.error('Faults of the page:', faults);
  for (const page of browser.contexts().flatMap((context) => context.pages())) {
    const text = await page.locator('body').innerText({ timeout: 1_000 }).catch(() => '');
    console.error(text.slice(0, 2_000));
    await shot(page, `failed-${name}`).catch(() => {});
  }
  process.exitCode = 1;
} finally {
  await browser.close();
}
// The links of sites would hold it up.
process.exit();

/** Opens the page in a browser of its own; with `key`, as whoever has given the key. */
async function open({ at = '', key = edge.api_key, width = 1280, height = 800, scheme = 'light', expected = [], origins = [] } = {}) {
  const context = await browser.newContext({
    viewport: { width, height }, colorScheme: scheme, reducedMotion: 'reduce', serviceWorkers: 'block', locale: 'en-GB', timezoneId: 'UTC',
  });
  context.setDefaultTimeout(PATIENCE);
  const page = await context.newPage();
  page.on('console', (message) => {
    if (!['error', 'warning'].includes(message.type())) return;
    if (!expected.some((text) => message.text().includes(text))) faults.push(`${message.type()}: ${message.text()}`);
  });
  page.on('pageerror', (error) => faults.push(`an exception: ${error.stack}`));
  page.on('dialog', (dialog) => {
    faults.push(`a script of others has run: ${dialog.message()}`);
    void dialog.dismiss();
  });
  page.on('request', (request) => {
    const known = [edge.url, ...origins].some((origin) => request.url().startsWith(`${origin}/`));
    if (!known && !request.url().startsWith('data:')) faults.push(`asks ${request.url()}`);
    if (request.url().includes(edge.api_key)) faults.push('the key is in an address');
  });
  await page.addInitScript(() => {
    addEventListener('securitypolicyviolation', (event) => {
      console.error(`policy: ${event.violatedDirective} stopped ${event.blockedURI} ${event.sample}`);
    });
  });
  await page.goto(`${edge.url}/${at}`);
  if (key) {
    await page.getByLabel('API key').fill(key);
    await page.getByLabel('API key').press('Enter');
    await page.getByText('Live', { exact: true }).waitFor({ state: 'attached' });
  }
  return page;
}

/** Looks for what keeps people with a screen reader, a keyboard or weak eyes away. */
async function axe(page, what) {
  const found = await page.evaluate(async (source) => {
    if (!('axe' in globalThis)) (0, eval)(source);
    const { violations, passes } = await globalThis.axe.run(document);
    const broken = violations.map(({ id, nodes }) => `${id}: ${nodes.slice(0, 3).map((node) => `${node.target}: ${node.failureSummary}`).join('; ')}`);
    return { broken, passed: passes.length };
  }, axeSource);
  assert.deepEqual(found.broken, [], `axe: ${what}`);
  assert(found.passed > 10, `axe has looked at nothing: ${what}`);
}

/** Asks the edge, as `curl` does. */
async function api(path, options = {}) {
  const answer = await fetch(`${edge.url}${path}`, {
    ...options,
    headers: { 'x-api-key': edge.api_key, 'content-type': 'application/json', ...options.headers },
  });
  assert(answer.ok, `${path}: ${answer.status} ${await answer.clone().text()}`);
  return answer.json();
}

/** Submits a job and returns its id. */
async function submit(job) {
  return (await api('/jobs', { method: 'POST', body: JSON.stringify({ input: {}, ...job }) })).job_id;
}

/** Keeps a picture of what is in sight. */
async function shot(page, file) {
  mkdirSync(screenshots, { recursive: true });
  await page.screenshot({ path: join(screenshots, `${file}.png`) });
}
