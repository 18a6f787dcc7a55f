// What a job has left: pictures, text and tables in place, and a link to each file.
//
// Files are of others. A picture is shown as one, so that nothing in it runs; all else becomes text. None of it goes
// through the edge: the store has it, at addresses that are good for an hour.

import { useSignal } from '@preact/signals';
import type { JSX } from 'preact';
import { useEffect, useState } from 'preact/hooks';

import { get, jobPath, sentence } from './api';
import { Note, Wide } from './parts';
import { cells } from './table';
import { bytes, count, json, Lines, parse, plain } from './text';
import type { JobFile, JobFileLink, JobFiles, JobResult } from './types';

/** Before the addresses are good no more. */
const AGAIN_MILLIS = 50 * 60_000;

const PICTURES = /\.(png|jpe?g|gif|webp|svg)$/i;
const TEXTS = /\.(txt|log|out|err|md|dat|xyz|json|csv|tsv|ya?ml|toml|ini|cfg|xml)$/i;

/** How large a picture may be that is shown, and how many of them are. */
const PICTURE_BYTES_MAX = 5_000_000;
const PICTURES_MAX = 24;

/** How much of a text is shown, and how many of them by themselves. */
const TEXT_BYTES_MAX = 64 * 1024;
const OPEN_MAX = 3;
const TEXTS_MAX = 50;

export function Files({ id, result }: { id: string; result: JobResult | undefined }): JSX.Element | null {
  const left = useSignal<JobFiles | null>(null);
  const error = useSignal<unknown>(null);
  const any = Boolean(result?.files?.length || result?.output_file);
  useEffect(() => {
    if (!any) return;
    const stop = new AbortController();
    const load = async (): Promise<void> => {
      try {
        left.value = await get<JobFiles>(`${jobPath(id)}/files`, { signal: stop.signal });
        error.value = null;
      } catch (caught) {
        if (!stop.signal.aborted) error.value = caught;
      }
    };
    void load();
    const timer = setInterval(() => void load(), AGAIN_MILLIS);
    return () => {
      stop.abort();
      clearInterval(timer);
    };
  }, [id, any]);
  if (!any && !result?.files_note) return null;
  const { files = [], gone = [] } = left.value ?? {};
  const whole = files.filter((file) => !file.pack);
  const pictures = whole.filter((file) => PICTURES.test(file.path) && file.size <= PICTURE_BYTES_MAX);
  const texts = whole.filter((file) => TEXTS.test(file.path));
  const all = [...files, ...gone].reduce((sum, file) => sum + file.size, 0);
  return (
    <section aria-labelledby="files">
      <div class="head tools">
        <h2 id="files">Files</h2>
        {left.value && <span class="faint">{count(files.length + gone.length, 'file')}, {bytes(all)}</span>}
      </div>
      {result?.files_note && <p class="faint">{plain(result.files_note)}</p>}
      {error.value && <Note bad>{sentence(error.value)}</Note>}
      {pictures.length > 0 && (
        <div class="pictures">{pictures.slice(0, PICTURES_MAX).map((file) => <Picture key={key(file)} file={file} />)}</div>
      )}
      {texts.slice(0, TEXTS_MAX).map((file, at) => (
        <Text key={key(file)} file={file} open={at < OPEN_MAX && file.size <= TEXT_BYTES_MAX} />
      ))}
      {files.length + gone.length > 0 && (
        <Wide label="Table of files"><table class="dense">
          <thead><tr><th scope="col">File</th><th scope="col" class="n">Size</th></tr></thead>
          <tbody>
            {files.map((file) => (
              <tr key={key(file)}>
                <td><Link file={file} />{file.pack && <span class="faint"> a tar of many files</span>}</td>
                <td class="n">{bytes(file.size)}</td>
              </tr>
            ))}
            {gone.map((file) => (
              <tr key={key(file)}>
                <td><span class="path">{plain(file.path)}</span> <span class="faint">in the store no more</span></td>
                <td class="n">{bytes(file.size)}</td>
              </tr>
            ))}
          </tbody>
        </table></Wide>
      )}
    </section>
  );
}

const key = (file: JobFile): string => `${file.path} ${file.sha256}`;

function Link({ file }: { file: JobFileLink }): JSX.Element {
  return <a class="path" href={file.url} target="_blank" rel="noreferrer">{plain(file.path)}</a>;
}

function Picture({ file }: { file: JobFileLink }): JSX.Element {
  // At the address that came first: the same picture is not had again for a newer one.
  const [src] = useState(file.url);
  const failed = useSignal(false);
  return (
    <figure class="card">
      {failed.value
        ? <p class="faint">It cannot be shown.</p>
        : <img src={src} alt={plain(file.path)} loading="lazy" referrerpolicy="no-referrer" onError={() => (failed.value = true)} />}
      <figcaption><Link file={file} /> <span class="faint">{bytes(file.size)}</span></figcaption>
    </figure>
  );
}

/** What is to be shown of a text. */
type Shown = { text: string } | { rows: string[][] } | { problem: string };

function Text({ file, open }: { file: JobFileLink; open: boolean }): JSX.Element {
  const wanted = useSignal(open);
  const shown = useSignal<Shown | null>(null);
  useEffect(() => {
    if (!wanted.value || shown.value) return;
    const stop = new AbortController();
    void read(file, stop.signal).then((read) => {
      if (!stop.signal.aborted) shown.value = read;
    });
    return () => stop.abort();
  }, [wanted.value]);
  const name = plain(file.path);
  return (
    <details open={open} onToggle={(event) => { if (event.currentTarget.open) wanted.value = true; }}>
      <summary><span class="path">{name}</span> {bytes(file.size)}</summary>
      {shown.value ? <Content shown={shown.value} name={name} /> : <p class="faint">Asking…</p>}
      {shown.value && !('problem' in shown.value) && file.size > TEXT_BYTES_MAX && (
        <p class="faint">That is the beginning; all of it is behind its link.</p>
      )}
    </details>
  );
}

function Content({ shown, name }: { shown: Shown; name: string }): JSX.Element {
  if ('problem' in shown) return <p class="faint">{shown.problem}</p>;
  if ('text' in shown) return <pre class="value" role="region" aria-label={name} tabIndex={0}>{shown.text}</pre>;
  const [head = [], ...rows] = shown.rows;
  const numbers = head.map((_, at) => rows.every((row) => !row[at] || Number.isFinite(Number(row[at]))));
  const column = (at: number): string | undefined => (numbers[at] ? 'n' : undefined);
  return (
    <div class="table"><Wide label={name}><table class="dense">
      <thead><tr>{head.map((cell, at) => (cell ? <th key={at} scope="col" class={column(at)}>{plain(cell)}</th> : <td key={at} />))}</tr></thead>
      <tbody>
        {rows.map((row, at) => <tr key={at}>{row.map((cell, at) => <td key={at} class={column(at)}>{plain(cell)}</td>)}</tr>)}
      </tbody>
    </table></Wide></div>
  );
}

/** Has the beginning of a text. */
async function read(file: JobFileLink, signal: AbortSignal): Promise<Shown> {
  if (file.size === 0) return { problem: 'It is empty.' };
  let data: ArrayBuffer;
  try {
    const answer = await fetch(file.url, {
      headers: { range: `bytes=0-${TEXT_BYTES_MAX - 1}` }, signal, credentials: 'omit', redirect: 'error', referrerPolicy: 'no-referrer',
    });
    if (!answer.ok) return { problem: `The store answered ${answer.status}.` };
    data = await answer.arrayBuffer();
  } catch {
    return { problem: 'The store does not let this page read it; open it by its link.' };
  }
  // A store that knows no ranges has sent all of it, and what was cut may end within a character.
  const beginning = data.slice(0, TEXT_BYTES_MAX);
  const text = new TextDecoder().decode(beginning, { stream: true });
  if (text.includes('\0')) return { problem: 'It is no text.' };
  const whole = file.size <= beginning.byteLength;
  const ending = file.path.slice(file.path.lastIndexOf('.') + 1).toLowerCase();
  if (ending === 'csv' || ending === 'tsv') return { rows: cells(whole ? text : text.slice(0, text.lastIndexOf('\n') + 1), ending === 'tsv') };
  if (ending === 'json' && whole) {
    try {
      return { text: json(parse(text)) };
    } catch {
      // It is shown as it is.
    }
  }
  const lines = new Lines();
  return { text: lines.push(text) + lines.open };
}
