// SPDX-License-Identifier: GPL-2.0-or-later
// Lines for people: one a step, with what it is doing while it runs (on a terminal) and how long it took.

const terminal = process.stdout.isTTY;

export function say(text = ''): void {
  process.stdout.write(`${text}\n`);
}

/**
 * Runs one step. `work` gets a function that shows what is going on; its answer, if a text, is the step's result line.
 * A failing step prints nothing: whoever catches the error explains it.
 */
export async function step<T>(name: string, work: (show: (text: string) => void) => Promise<T>): Promise<T> {
  const started = performance.now();
  const label = name.padEnd(12);
  const show = (text: string): void => {
    if (terminal) process.stdout.write(`\r\x1b[K  ${label} ${text}`.slice(0, (process.stdout.columns || 80) + 3));
  };
  show('…');
  try {
    const result = await work(show);
    const seconds = (performance.now() - started) / 1000;
    if (terminal) process.stdout.write('\r\x1b[K');
    say(`  ${label} ${typeof result === 'string' ? result : 'done'}${seconds >= 1 ? `   (${seconds.toFixed(1)} s)` : ''}`);
    return result;
  } catch (error) {
    if (terminal) process.stdout.write('\r\x1b[K');
    throw error;
  }
}

/** 1234567 → `1.23 M`, in steps of 1000. */
export function decimal(value: number): string {
  for (const [limit, unit] of [[1e9, ' G'], [1e6, ' M'], [1e3, ' k']] as const) {
    if (value >= limit) return `${(value / limit).toPrecision(3)}${unit}`;
  }
  return `${value.toPrecision(3)} `;
}
