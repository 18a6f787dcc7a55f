// What a job has left, on the page.

import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';

import { Site } from './site.mjs';

const PNG = Buffer.from('iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg==', 'base64');

/** A picture that would do much, were it more than a picture. */
const HOSTILE = `<svg xmlns="http://www.w3.org/2000/svg" width="200" height="100" onload="alert(1)"><script>alert(2)</script>
<image href="http://127.0.0.1:1/tracks-you.png" width="9" height="9"/><foreignObject><body xmlns="http://www.w3.org/1999/xhtml"
onload="alert(3)"/></foreignObject><polyline points="0,90 60,40 120,60 200,10" fill="none" stroke="black" stroke-width="3"/></svg>`;

/** Where nobody is. */
const OTHER = 'http://127.0.0.1:1';

/** Puts files into the store, as a site does, and says what they are. */
export async function put(edge, files) {
  const left = [];
  for (const [path, text] of Object.entries(files)) {
    const content = Buffer.from(text);
    const sha256 = createHash('sha256').update(content).digest('hex');
    const ask = (where, body) =>
      fetch(`${edge.url}${where}`, {
        method: 'POST', headers: { 'x-site-key': edge.site_key, 'content-type': 'application/json' }, body: JSON.stringify(body),
      });
    const [place] = (await (await ask('/files', { files: [{ sha256, size: content.length }] })).json()).files;
    if (place.state === 'put') {
      const answer = await fetch(place.url, { method: 'PUT', body: content, headers: Object.fromEntries(place.headers) });
      assert(answer.ok, `the store does not take ${path}: ${answer.status}`);
      assert((await ask(`/files/${sha256}/complete`, {})).ok);
    }
    left.push({ path, size: content.length, sha256 });
  }
  return left;
}

const result = (job_id, more) => ({ v: 2, job_id, status: 'completed', attempt: 1, result_pointer: '', ...more });

const natural = (image) => image.evaluate((element) => [element.complete, element.naturalWidth]);

/** Waits until a picture is there, with this width. */
async function seen(page, name, width) {
  const image = page.getByRole('img', { name, exact: true });
  await image.scrollIntoViewIfNeeded();
  await page.waitForFunction(([name, width]) => [...document.images].some((image) => image.alt === name && image.naturalWidth === width), [name, width]);
  assert.deepEqual(await natural(image), [true, width]);
}

export async function what_a_job_has_left_is_seen_in_place({ edge, open, axe, submit }) {
  const site = await Site.link(edge, 'alpha');
  const id = await submit({ task: 'relax', name: 'leaves much' });
  const files = await put(edge, {
    'plots/energy.svg': HOSTILE,
    'plots/one pixel.png': PNG,
    'table.csv': 'step,energy,"a ""note"", with a comma"\r\n1,-84.1,<img src=x onerror=alert(4)>\n2,-84.5,"two\nlines"\n',
    'wide;.csv': 'a;b\n1,5;2\n',
    'tabs.tsv': 'x\ty\n1\t2\n',
    'log.txt': '\u001b[31mred\u001b[0m <script>alert(5)</script>\u202e\n 1%\r99%\n',
    'numbers.json': '{"exactly":12345678901234567890,"of":[1.50]}',
    'empty.txt': '',
    'binary.dat': 'a\0b',
    'long.txt': 'line of a long text\n'.repeat(10_000),
    'page.html': '<script>alert(6)</script>',
    'many.tar': 'a pack',
    'output.json': '[1]',
  });
  const named = (path) => files.find((file) => file.path === path);
  named('many.tar').pack = true;
  const output = named('output.json');
  const gone = { path: 'plots/gone.png', size: 7, sha256: '0'.repeat(64) };
  const page = await open({ at: `#/jobs/${id}` });
  await page.getByRole('heading', { name: 'leaves much' }).waitFor();
  assert.equal(await page.getByRole('heading', { name: 'Files' }).count(), 0, 'it has left nothing yet');
  await site.job(id, 'completed', {
    task: 'relax', name: 'leaves much',
    result: result(id, {
      files: [...files.filter((file) => file !== output), gone], files_note: 'Nothing matches `other/*`.\u202e',
      output_file: { sha256: output.sha256, size: output.size }, output_bytes: output.size,
    }),
  });
  await page.getByRole('heading', { name: 'Files' }).waitFor();
  await page.getByText('14 files, ').waitFor();
  await page.getByText('Nothing matches `other/*`.\\u{202e}').waitFor();
  await page.getByText('It is one of the files, output.json.').waitFor();
  await seen(page, 'plots/energy.svg', 200);
  await seen(page, 'plots/one pixel.png', 1);
  assert.equal(await page.getByRole('img', { name: 'plots/gone.png' }).count(), 0);

  // The first texts are open; others when somebody opens them, by key as well.
  const cells = (name) => page.getByRole('region', { name, exact: true }).getByRole('row').evaluateAll((rows) => rows.map((row) => [...row.cells].map((cell) => cell.innerText)));
  await page.getByRole('region', { name: 'table.csv', exact: true }).waitFor();
  assert.deepEqual(await cells('table.csv'), [
    ['step', 'energy', 'a "note", with a comma'], ['1', '-84.1', '<img src=x onerror=alert(4)>'], ['2', '-84.5', 'two\\nlines'],
  ]);
  assert.deepEqual(await cells('wide;.csv'), [['a', 'b'], ['1,5', '2']]);
  assert.deepEqual(await cells('tabs.tsv'), [['x', 'y'], ['1', '2']]);
  const opened = async (name) => {
    const summary = page.locator('summary').filter({ hasText: name });
    await summary.focus();
    await page.keyboard.press('Enter');
    return page.locator('section[aria-labelledby=files] details').filter({ hasText: name });
  };
  const log = await opened('log.txt');
  await log.getByText('red <script>alert(5)</script>\\u{202e}').waitFor();
  assert((await log.innerText()).includes('\n99%'));
  await (await opened('numbers.json')).getByText('"exactly": 12345678901234567890').waitFor();
  await (await opened('empty.txt')).getByText('It is empty.').waitFor();
  await (await opened('binary.dat')).getByText('It is no text.').waitFor();
  const long = await opened('long.txt');
  await long.getByText('That is the beginning').waitFor();
  const size = await long.getByRole('region').evaluate((element) => element.textContent.length);
  assert(size <= 65_536 && size > 60_000, `${size} characters of it are shown`);
  assert.equal(await page.locator('summary').filter({ hasText: 'page.html' }).count(), 0, 'HTML is not shown in place');

  // All of them have a link, where they can be had under their names, and nothing of them is a page.
  const row = (name) => page.getByRole('region', { name: 'Table of files' }).getByRole('row').filter({ hasText: name });
  await row('many.tar').getByText('a tar of many files').waitFor();
  await row('plots/gone.png').getByText('in the store no more').waitFor();
  assert.equal(await row('plots/gone.png').getByRole('link').count(), 0);
  for (const [name, type] of [['page.html', 'application/octet-stream'], ['plots/energy.svg', 'image/svg+xml'], ['output.json', 'application/json']]) {
    const link = row(name).getByRole('link');
    assert.deepEqual([await link.getAttribute('target'), await link.getAttribute('rel')], ['_blank', 'noreferrer']);
    const answer = await fetch(await link.getAttribute('href'));
    assert.equal(answer.headers.get('content-type'), type);
    assert(answer.headers.get('content-disposition').includes(name.split('/').at(-1)));
    assert((answer.headers.get('content-security-policy') ?? '').includes('sandbox'));
  }
  assert.equal(await page.evaluate(() => document.querySelectorAll('main script, main svg, main iframe, main object').length), 0);
  await axe(page, 'files');

  for (const scheme of ['light', 'dark']) {
    const narrow = await open({ at: `#/jobs/${id}`, width: 360, height: 740, scheme });
    await seen(narrow, 'plots/energy.svg', 200);
    await narrow.getByRole('region', { name: 'table.csv', exact: true }).waitFor();
    const wide = await narrow.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
    assert.equal(wide, 0, 'files make the page wider than a small screen');
    await axe(narrow, `files, ${scheme}`);
    await narrow.context().close();
  }
}

/** The store is at another origin, and does not let pages read: pictures are seen, and the rest has its links. */
export async function files_of_a_store_elsewhere_are_seen_too({ edge, open, axe, submit }) {
  const site = await Site.link(edge, 'alpha');
  const id = await submit({ task: 'relax', name: 'leaves a plot' });
  const files = await put(edge, { 'plot.svg': HOSTILE, 'table.csv': 'a,b\n1,2\n' });
  await site.job(id, 'completed', { result: result(id, { files }) });
  const page = await open({ at: `#/jobs/${id}`, origins: [edge.store, OTHER], expected: ['CORS', 'Failed to load resource', OTHER] });
  await seen(page, 'plot.svg', 200);
  await page.getByText('The store does not let this page read it').waitFor();
  assert((await page.getByRole('link', { name: 'table.csv' }).getAttribute('href')).startsWith(edge.store));
  // Of no other origin anything is shown.
  const stopped = page.waitForEvent('console', (message) => message.text().includes('policy: img-src stopped'));
  await page.evaluate(() => {
    document.querySelector('main img').src = 'http://127.0.0.1:1/other.png';
  });
  await stopped;
  await axe(page, 'files of a store elsewhere');
}
