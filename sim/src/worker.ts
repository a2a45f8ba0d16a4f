// SPDX-License-Identifier: GPL-2.0-or-later
// Inside a worker process: runs the seeds that the parent sends, one after the other.

import { probeCounts } from '@vitastor/core';
import { HighsSolver } from '@vitastor/mon';
import { closeSync, openSync, rmSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { loadNative } from './native.js';
import { plantedFault, withoutFault } from './planted.js';
import type { TaskResult, WireTask } from './pool.js';
import { runSeed } from './run.js';

export function traceFile(dir: string, seed: bigint, run: number): string {
  return join(dir, `seed-${seed}.${run}.trace`);
}

export function eventsFile(dir: string, seed: bigint, run: number): string {
  return join(dir, `seed-${seed}.${run}.events`);
}

/** A seed in this process. */
async function runTask(task: WireTask, dir: string): Promise<TaskResult> {
  const seed = BigInt(task.seed);
  const file = traceFile(dir, seed, task.run);
  rmSync(file, { force: true });
  // Line by line: a crash is what a trace may be wanted for.
  const descriptor = task.trace === 'none' ? null : openSync(file, 'w');
  const keep = (line: string): void => {
    if (task.trace === 'print') process.stdout.write(`${line}\n`);
    if (descriptor !== null) writeSync(descriptor, `${line}\n`);
  };
  const trace = task.trace === 'none' ? null : keep;
  const native = loadNative(process.env['VITASTOR_BUILD_DIR']);
  const before = { ...native.probes(), ...probeCounts() };
  const result = await runSeed(native, await solver(), {
    seed, faultMs: 60_000, healMs: 180_000, trace, faults: task.faults,
    ...(task.events ? { nativeTrace: eventsFile(dir, seed, task.run) } : {}),
    ...(task.planted === '' ? {} : { planted: task.isControl === true ? withoutFault(plantedFault(task.planted)) : plantedFault(task.planted) }),
  });
  if (descriptor !== null) closeSync(descriptor);
  const probes: Record<string, number> = {};
  for (const [name, count] of Object.entries({ ...native.probes(), ...probeCounts() })) probes[name] = count - (before[name] ?? 0);
  return { ...result, probes, memoryMb: Math.round(process.memoryUsage.rss() / 1e6) };
}

let loaded: Promise<HighsSolver> | null = null;

function solver(): Promise<HighsSolver> {
  return (loaded ??= HighsSolver.load());
}

/** Until the parent kills this process, or is gone. */
export function runWorker(dir: string): void {
  process.on('disconnect', () => process.exit(0));
  // Ctrl+C reaches all processes of a terminal: the parent lets the seeds that are running end.
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => undefined);
  process.on('message', (message) => {
    void runTask(message as WireTask, dir).then((result) => process.send?.({ ...result, seed: String(result.seed) }));
  });
}
