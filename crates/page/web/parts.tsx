// What all views are made of.

import { signal } from '@preact/signals';
import type { ComponentChildren, JSX, RefObject } from 'preact';
import { useEffect, useRef, useState } from 'preact/hooks';

import { plain } from './text';
import { ago, exact, tick } from './time';

/** A state has a word, a shape and a color; the word alone would do. */
export const SHAPES: Record<string, string> = {
  queued: '○',
  held: '◔',
  running: '▶',
  completed: '✓',
  failed: '✕',
  cancelled: '–',
};

export function State({ state }: { state: string }): JSX.Element {
  const known = state in SHAPES ? state : 'unknown';
  return (
    <span class={`state ${known}`}>
      <span class="shape" aria-hidden="true">{SHAPES[state] ?? '?'}</span>
      {plain(state)}
    </span>
  );
}

/** A time, as its age. */
export function When({ at }: { at: string | undefined }): JSX.Element {
  // Read, so that it is drawn again as time goes by.
  void tick.value;
  if (!at) return <span class="faint">–</span>;
  return <time dateTime={at} title={exact(at)}>{ago(at)}</time>;
}

/** Good, or not, in a word. */
export function Flag({ good, children }: { good: boolean; children: ComponentChildren }): JSX.Element {
  return (
    <span class={good ? 'flag good' : 'flag bad'}>
      <span class="shape" aria-hidden="true">{good ? '●' : '▲'}</span>
      <span>{children}</span>
    </span>
  );
}

/** The title of a view; it gets the focus when the view changes, so that a screen reader says where one is. */
export function Title({ children, text }: { children?: ComponentChildren; text: string }): JSX.Element {
  const ref = useRef<HTMLHeadingElement>(null);
  useEffect(() => {
    document.title = `${text} · hpc-queue`;
    if (moved) ref.current?.focus({ preventScroll: false });
    moved = true;
  }, [text]);
  return <h1 ref={ref} tabIndex={-1}>{children ?? text}</h1>;
}
// Not when the page is opened: a reader begins at its top.
let moved = false;

/** Said to screen readers, and seen for a while. */
export const said = signal<{ text: string; bad: boolean } | null>(null);
let forgetting: ReturnType<typeof setTimeout> | undefined;

export function say(text: string, bad = false): void {
  said.value = { text, bad };
  clearTimeout(forgetting);
  forgetting = setTimeout(() => (said.value = null), bad ? 20_000 : 8_000);
}

export function Note({ children, bad = false }: { children: ComponentChildren; bad?: boolean }): JSX.Element {
  return <p class={bad ? 'note bad' : 'note'} role={bad ? 'alert' : undefined}>{children}</p>;
}

/** A question before something that cannot be taken back. */
export function Question(props: {
  title: string;
  yes: string;
  children: ComponentChildren;
  onYes: () => Promise<void> | void;
  onClose: () => void;
}): JSX.Element {
  const ref = useRef<HTMLDialogElement>(null);
  const [busy, setBusy] = useState(false);
  useModal(ref);
  const answer = async (): Promise<void> => {
    setBusy(true);
    try {
      await props.onYes();
    } finally {
      ref.current?.close();
    }
  };
  return (
    <dialog ref={ref} aria-labelledby="question" onClose={props.onClose}>
      <h2 id="question">{props.title}</h2>
      {props.children}
      <div class="actions">
        <button type="button" onClick={() => ref.current?.close()} autofocus>Keep</button>
        <button type="button" class="danger" disabled={busy} onClick={answer}>{busy ? 'Working…' : props.yes}</button>
      </div>
    </dialog>
  );
}

/** Shows a dialog above all else; where the focus was, it goes back to by itself. */
function useModal(ref: RefObject<HTMLDialogElement | null>): void {
  useEffect(() => {
    const dialog = ref.current;
    dialog?.showModal();
    return () => dialog?.close();
  }, []);
}

export function Copy({ text, what }: { text: () => string; what: string }): JSX.Element {
  const copy = async (): Promise<void> => {
    try {
      await navigator.clipboard.writeText(text());
      say(`Copied: ${what}.`);
    } catch {
      // Without TLS, browsers keep the clipboard from pages of other hosts.
      say('The browser does not let this page copy; select the text instead.', true);
    }
  };
  return <button type="button" class="quiet" onClick={copy}>Copy<span class="hidden"> {what}</span></button>;
}

/** A part of something, as a bar; the numbers stand beside it. */
export function Bar({ part, whole }: { part: number; whole: number }): JSX.Element | null {
  const ref = useRef<HTMLSpanElement>(null);
  const share = whole > 0 ? Math.min(1, part / whole) : 0;
  useEffect(() => {
    if (ref.current) ref.current.style.width = `${share * 100}%`;
  }, [share]);
  if (whole <= 0) return null;
  return <span class="bar" aria-hidden="true"><span ref={ref} /></span>;
}

/** A table that may be wider than the screen: it is scrolled by itself, with the keys too. */
export function Wide({ label, children }: { label: string; children: ComponentChildren }): JSX.Element {
  return <div class="wide" role="region" aria-label={label} tabIndex={0}>{children}</div>;
}
