// Builds the page: `node build.mjs FOLDER [--check]`, where the folder has the packages of `package.json`.
//
// One HTML file comes out, `dist/index.html`, with script and style within it, and with a policy that names both by
// their hashes. `--check` has the types looked at first. It prints the size; a page that is too large is an error.

import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { gzipSync } from 'node:zlib';

// The aim is 60 KB. What has grown to this has grown by a mistake, or needs a decision.
const GZIP_BYTES_MAX = 100_000;

const here = dirname(fileURLToPath(import.meta.url));
const [folder, option] = process.argv.slice(2);
if (!folder || (option !== undefined && option !== '--check')) fail('usage: node build.mjs FOLDER [--check]');
const modules = resolve(folder, 'node_modules');
const esbuild = createRequire(join(modules, 'x'))('esbuild');

if (option) check();

const script = bundle('main.tsx');
const style = bundle('style.css');
for (const [what, text] of [['script', script], ['style', style]]) {
  // Within HTML, such an end tag would end the element.
  if (text.includes(`</${what}`)) fail(`the ${what} contains "</${what}"`);
}
const policy = [
  "default-src 'none'",
  `script-src ${hash(script)}`,
  `style-src ${hash(style)}`,
  "connect-src 'self'",
  'img-src data:',
  "base-uri 'none'",
  "form-action 'none'",
  "require-trusted-types-for 'script'",
  "trusted-types 'none'",
].join('; ');
const parts = { policy, style, script, licenses: licenses() };
const template = readFileSync(join(here, 'web/index.html'), 'utf8');
const html = template.replace(/\{\{(\w+)\}\}/g, (_, name) => parts[name] ?? fail(`there is no part ${name}`));

const size = gzipSync(html).length;
const kb = (bytes) => `${(bytes / 1000).toFixed(1)} KB`;
console.log(`The page: ${kb(Buffer.byteLength(html))}, ${kb(size)} after gzip`);
if (size > GZIP_BYTES_MAX) {
  fail(`the page is too large (the limit is ${kb(GZIP_BYTES_MAX)} after gzip); find what made it grow`);
}
write(join(here, 'dist/index.html'), html);

/** Bundles a file of `web/` with all that it imports. */
function bundle(name) {
  const { outputFiles, warnings } = esbuild.buildSync({
    entryPoints: [join(here, 'web', name)],
    bundle: true,
    minify: true,
    write: false,
    charset: 'utf8',
    format: name.endsWith('.css') ? undefined : 'esm',
    jsx: 'automatic',
    jsxImportSource: 'preact',
    // The licenses stand in the page itself.
    legalComments: 'none',
    logLevel: 'warning',
    nodePaths: [modules],
    target: ['es2022', 'chrome111', 'firefox115', 'safari16.4'],
  });
  if (warnings.length > 0) fail(`${name} has warnings`);
  return outputFiles[0].text.trim();
}

/** What asks to be passed on with every copy of what is used. */
function licenses() {
  const names = Object.keys(JSON.parse(readFileSync(join(here, 'package.json'), 'utf8')).dependencies);
  const texts = names.map((name) => `${name}\n\n${readFileSync(join(modules, name, 'LICENSE'), 'utf8').trim()}`);
  return texts.join('\n\n\n').replaceAll('--', '-');
}

/** Looks at the types; the compiler is told where the packages are, because they are not beside the sources. */
function check() {
  const scratch = mkdtempSync(join(tmpdir(), 'hpc-queue-page-'));
  try {
    const config = {
      extends: join(here, 'tsconfig.json'),
      compilerOptions: { paths: { '*': [join(modules, '*')] } },
      include: [join(here, 'web')],
    };
    writeFileSync(join(scratch, 'tsconfig.json'), JSON.stringify(config));
    const compiler = join(modules, 'typescript/bin/tsc');
    execFileSync(process.execPath, [compiler, '--project', scratch], { stdio: ['ignore', 'inherit', 'inherit'] });
  } catch {
    fail('the types of the page are not right; what the compiler says stands above');
  } finally {
    rmSync(scratch, { recursive: true });
  }
}

function hash(text) {
  return `'sha256-${createHash('sha256').update(text).digest('base64')}'`;
}

/** Whole or not at all; and left alone when it is the same, so that nothing is compiled for nothing. */
function write(file, text) {
  try {
    if (readFileSync(file, 'utf8') === text) return;
  } catch {
    // It is not there yet.
  }
  const temporary = `${file}.${process.pid}`;
  writeFileSync(temporary, text);
  renameSync(temporary, file);
}

function fail(text) {
  console.error(text.trim());
  process.exit(1);
}
