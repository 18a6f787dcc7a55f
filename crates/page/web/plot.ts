// A pool over time. Colors are those of the style; each line has a pattern of its own too, so that nobody needs them.

import uPlot from 'uplot';

import type { PoolSample } from './types';

interface Series {
  key: string;
  name: string;
  dash: number[];
  /** Only where the pool lives in a batch system; these are counted on the right. */
  batch: boolean;
  of: (sample: PoolSample) => number | null;
}

export const SERIES: Series[] = [
  { key: 'held', name: 'Backlog', dash: [], batch: false, of: (sample) => sample.held },
  { key: 'running', name: 'Running', dash: [6, 3], batch: false, of: (sample) => sample.running },
  { key: 'capacity', name: 'CPUs', dash: [2, 3], batch: false, of: (sample) => sample.capacity.cpus },
  { key: 'allocations', name: 'Allocations (right)', dash: [10, 3, 2, 3], batch: true, of: (sample) => sample.allocations ?? null },
  { key: 'want', name: 'Wanted (right)', dash: [1, 4], batch: true, of: (sample) => sample.want ?? null },
];

export interface Plot {
  show: (samples: PoolSample[]) => void;
  close: () => void;
}

const HEIGHT = 190;

/** Nothing that is counted here has halves. */
const WHOLE = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1e3, 2e3, 5e3, 1e4, 1e5, 1e6];

/** From 0 to a little above the largest, and at least so far. */
const upTo = (least: number) => (_: uPlot, __: number, max: number): [number, number] => [0, Math.max(least, max * 1.08)];

export function draw(place: HTMLElement, batch: boolean): Plot {
  const style = getComputedStyle(place);
  const color = (name: string): string => style.getPropertyValue(`--${name}`).trim();
  const font = `12px ${style.fontFamily}`;
  const stepped = uPlot.paths.stepped?.({ align: 1 });
  const series = SERIES.filter((one) => batch || !one.batch);
  const axis = { stroke: color('faint'), font, grid: { stroke: color('line'), width: 1 }, ticks: { show: false } };
  let samples: PoolSample[] = [];

  const tip = document.createElement('div');
  tip.className = 'tip';
  tip.hidden = true;
  const hover = (plot: uPlot): void => {
    const at = plot.cursor.idx;
    const sample = at === null || at === undefined ? undefined : samples[at];
    tip.hidden = !sample || (plot.cursor.left ?? -1) < 0;
    if (!sample) return;
    const numbers = series.map((one) => `${one.name} ${one.of(sample) ?? '–'}`).join(', ');
    const why = sample.why ? `\n${sample.why}` : '';
    tip.textContent = `${new Date(sample.at).toLocaleString()}\n${numbers}${why}`;
  };
  const clock = (seconds: number): string =>
    new Date(seconds * 1000).toLocaleTimeString('en-GB', { hour: '2-digit', minute: '2-digit' });
  const plot = new uPlot(
    {
      width: Math.max(200, place.clientWidth),
      height: HEIGHT,
      legend: { show: false },
      cursor: { y: false, drag: { x: false, y: false } },
      scales: { y: { range: upTo(4) }, a: { range: upTo(4) } },
      axes: [
        { ...axis, values: (_, ticks) => ticks.map(clock), size: 28 },
        { ...axis, size: 44, incrs: WHOLE },
        ...(batch ? [{ ...axis, scale: 'a', side: 1, size: 34, incrs: WHOLE, grid: { show: false } }] : []),
      ],
      series: [
        {},
        ...series.map((one) => ({
          label: one.name, scale: one.batch ? 'a' : 'y', stroke: color(one.key), width: 1.6, dash: one.dash, points: { show: false },
          ...(stepped ? { paths: stepped } : {}),
          ...(one.key === 'held' ? { fill: color('held-fill') } : {}),
        })),
      ],
      hooks: { setCursor: [hover] },
    },
    [[], ...series.map(() => [])],
    place,
  );
  place.append(tip);
  const sized = new ResizeObserver(() => {
    if (place.clientWidth > 0) plot.setSize({ width: place.clientWidth, height: HEIGHT });
  });
  sized.observe(place);
  return {
    show: (next) => {
      samples = next;
      const times = samples.map((sample) => Date.parse(sample.at) / 1000);
      plot.setData([times, ...series.map((one) => samples.map(one.of))] as uPlot.AlignedData);
    },
    close: () => {
      sized.disconnect();
      plot.destroy();
      tip.remove();
    },
  };
}
