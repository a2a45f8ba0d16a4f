// SPDX-License-Identifier: GPL-2.0-or-later
// What an end-to-end test is: a story on real processes, with a short and a long form.

import assert from 'node:assert/strict';
import { type FioJob, Lab, type LabOptions } from '../lab/index.js';

export interface StoryContext {
  /** Long form: pauses and data sizes of the real thing. */
  long: boolean;
  /** How long a story that repeats itself goes on (`--minutes M`). */
  minutes: number;
  /** A lab that is stopped when the story ends, however it ends. */
  lab(options?: LabOptions): Promise<Lab>;
  say(text: string): void;
}

export interface Story {
  name: string;
  /** Runs in `npm test` too. */
  short: boolean;
  run(context: StoryContext): Promise<void>;
}

/** etcd, a monitor, OSDs 1 … n, a pool of two copies, an image `testimg`. */
export async function smallCluster(lab: Lab, options: { osds?: number; image?: string; pgCount?: number; copies?: number } = {}): Promise<void> {
  await lab.startEtcd();
  await lab.startMonitor();
  for (let num = 1; num <= (options.osds ?? 3); num++) await lab.startOsd(num);
  await lab.createPool('testpool', { size: options.copies ?? 2, minSize: 1, pgCount: options.pgCount ?? 16 });
  await lab.createImage('testimg', options.image ?? '256M');
}

/** Clients that ask for it may keep writes until they are flushed. */
export async function allowCache(lab: Lab): Promise<void> {
  await lab.etcd.put(`${lab.prefix}/config/global`, JSON.stringify({ immediate_commit: lab.immediateCommit, client_enable_writeback: true }));
}

/**
 * Writes every 4 KB block of `megabytes` in random order at a steady rate and then reads all back, comparing checksums. Fails unless fio is
 * content. `seconds`: how long the writing shall take. `under`: words before fio's command line.
 */
export async function fioVerify(lab: Lab, options: {
  depth: number; seconds: number; megabytes?: number; name?: string; args?: readonly string[]; timeoutMs?: number; under?: readonly string[];
}): Promise<FioJob[]> {
  const megabytes = options.megabytes ?? 32;
  const rate = Math.max(10, Math.floor((megabytes * 256) / options.seconds));
  const result = await lab.fio([
    `-name=${options.name ?? 'verify'}`, '-image=testimg', '-rw=randwrite', '-bs=4k', `-size=${megabytes}M`, `-iodepth=${options.depth}`, `-rate_iops=${rate}`,
    '-direct=1', '-verify=crc32c', '-verify_fatal=1', '-do_verify=1', ...(options.args ?? []),
  ], { timeoutMs: options.timeoutMs ?? 300_000, ...(options.under ? { under: options.under } : {}) });
  assert.equal(result.code, 0, `fio with verification failed:\n${result.stdout.slice(-3000)}\n${result.stderr}`);
  assert.ok(result.jobs.length > 0 && result.jobs.every((job) => job.error === 0), `fio reports errors: ${JSON.stringify(result.jobs)}`);
  assert.ok(result.jobs.every((job) => job.write.ios >= megabytes * 256), 'fio has written less than it should');
  return result.jobs;
}

/** Reads back what fioVerify has written with the same name, size, depth and `args`, comparing checksums. */
export async function fioReadBack(lab: Lab, options: { megabytes: number; args?: readonly string[]; what: string }): Promise<void> {
  const back = await lab.fio([
    '-name=verify', '-image=testimg', '-rw=randread', '-bs=4k', `-size=${options.megabytes}M`, '-verify=crc32c', '-verify_fatal=1', '-iodepth=16', ...(options.args ?? []),
  ]);
  assert.equal(back.code, 0, `${options.what}:\n${back.stdout.slice(-3000)}${back.stderr}`);
}

/** Small numbers from a seed: what is drawn can be repeated, its moments cannot. */
export function dice(seed: number): (below: number) => number {
  let state = seed >>> 0;
  return (below) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}

/** Must fail with a text that says all of `patterns`. */
export function assertSays(text: string, ...patterns: RegExp[]): void {
  for (const pattern of patterns) assert.match(text, pattern);
}
