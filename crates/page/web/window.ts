// Which rows of a long table are in sight: the others are left out, so that a list of any length costs the same.

import type { RefObject } from 'preact';
import { useCallback, useEffect, useLayoutEffect, useRef, useState } from 'preact/hooks';

/** Rows beyond each edge, so that the tab key finds the next one. */
const BEYOND = 25;

/** Shorter lists are there as a whole. */
const WHOLE_MAX = 120;

export interface Window {
  body: RefObject<HTMLTableSectionElement | null>;
  first: number;
  last: number;
  /** The height of what is left out, in pixels. */
  above: number;
  below: number;
}

export function useWindow(rows: number): Window {
  const body = useRef<HTMLTableSectionElement>(null);
  // All rows have one height, which the style decides by the width of the screen.
  const [height, setHeight] = useState(44);
  const [range, setRange] = useState({ first: 0, last: WHOLE_MAX });

  const look = useCallback((): void => {
    const element = body.current;
    if (!element) return;
    const unit = element.querySelector('tr.row')?.getBoundingClientRect().height || 44;
    setHeight((had) => (Math.abs(unit - had) > 0.5 ? unit : had));
    const top = element.getBoundingClientRect().top;
    // In steps, so that not every pixel draws anew.
    const step = (value: number): number => Math.max(0, Math.floor(value / 10) * 10);
    const first = step(-top / unit - BEYOND);
    const last = step((innerHeight - top) / unit + BEYOND) + 10;
    setRange((had) => (had.first === first && had.last === last ? had : { first, last }));
  }, []);

  useEffect(() => {
    let asked = 0;
    const soon = (): void => {
      asked ||= requestAnimationFrame(() => {
        asked = 0;
        look();
      });
    };
    addEventListener('scroll', soon, { passive: true });
    addEventListener('resize', soon);
    return () => {
      cancelAnimationFrame(asked);
      removeEventListener('scroll', soon);
      removeEventListener('resize', soon);
    };
  }, []);
  useLayoutEffect(look, [rows]);

  if (rows <= WHOLE_MAX) return { body, first: 0, last: rows, above: 0, below: 0 };
  const last = Math.min(rows, range.last);
  const first = Math.min(range.first, Math.max(0, last - 1));
  return { body, first, last, above: first * height, below: (rows - last) * height };
}
