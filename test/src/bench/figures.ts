// SPDX-License-Identifier: GPL-2.0-or-later
// Figures of benchmarks: a name, a value, a unit, and where one is set, a target.

export type Unit = 'iops' | 'us' | 'ms' | 'MB/s' | 's' | 'iops/core-s' | 'MiB' | 'bytes' | 'ratio' | 'percent of a core';

export interface Figure {
  /** Unique within a run, such as `cluster.read.4k.q1`. */
  name: string;
  value: number;
  unit: Unit;
  /** What `--check` demands. */
  target?: { atLeast: number } | { atMost: number };
  /** Figures that explain this one (latencies, processor time, ratios), in order. */
  detail?: Readonly<Record<string, string>>;
}

export interface Benchmark {
  name: string;
  /** One line for --help. */
  summary: string;
  run(context: BenchContext): Promise<Figure[]>;
}

export interface BenchContext {
  /** A short form: every measurement at most this long. */
  seconds: number;
  /** Repetitions; the median is reported. */
  repeats: number;
  progress(text: string): void;
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  const upper = sorted[middle] ?? 0;
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] ?? 0) + upper) / 2;
}

export function meets(figure: Figure): boolean {
  if (!figure.target) return true;
  return 'atLeast' in figure.target ? figure.value >= figure.target.atLeast : figure.value <= figure.target.atMost;
}

function show(value: number): string {
  if (Math.abs(value) >= 1000) return Math.round(value).toLocaleString('en-US');
  return value >= 10 ? value.toFixed(1) : value.toFixed(2);
}

/** One line of the table for people. */
export function describe(figure: Figure): string {
  const target = figure.target
    ? ` (target ${'atLeast' in figure.target ? '≥' : '≤'} ${show(Object.values(figure.target)[0] ?? 0)}${meets(figure) ? '' : ', MISSED'})`
    : '';
  const detail = Object.entries(figure.detail ?? {}).map(([name, text]) => `${name} ${text}`).join(', ');
  return `${figure.name.padEnd(34)} ${show(figure.value).padStart(10)} ${figure.unit}${target}${detail ? `; ${detail}` : ''}`;
}
