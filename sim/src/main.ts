// SPDX-License-Identifier: GPL-2.0-or-later
// npm run sim: whole clusters from seeds, in a few processes at once.

import { mkdirSync, rmSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { FAULT_NAMES } from './faults.js';
import { PLANTED, type PlantedFault } from './planted.js';
import { WorkerPool, type Task, type TaskResult } from './pool.js';
import { registeredProbes } from './probes.js';
import { runWorker, eventsFile, traceFile } from './worker.js';

const HELP = `npm run sim [-- --seed N | --seeds N | --minutes M | --planted [--short]] [--trace]

  --seed N        one seed
  --seeds N       so many seeds (default 20)
  --minutes M     new seeds for M minutes of real time
  --from N        first seed (default 1)
  --twice N       run the first N seeds twice and compare trace hashes (default 20; the one of --seed)
  --once          --twice 0
  --jobs N        processes at once (default: as many as there are processors, at most 2)
  --faults A,B    only these faults
  --planted       build known faults in, one after the other: how many seeds catch each, and that they pass without it
  --short         only until the first seed that catches it
  --only NAME     only this planted fault
  --report        in the end, list probes and faults that no seed or few seeds reached
  --trace         print the trace
  --events        also write one line per native event to build/sim/seed-N.M.events
`;

interface Options {
  seeds: number;
  from: bigint;
  minutes: number;
  twice: number;
  jobs: number;
  faults: string[] | null;
  planted: boolean;
  short: boolean;
  only: string | null;
  report: boolean;
  trace: boolean;
  events: boolean;
  worker: boolean;
}

function parse(words: readonly string[]): Options | null {
  const options: Options = {
    seeds: 20, from: 1n, minutes: 0, twice: 20, jobs: Math.min(2, availableParallelism()), faults: null, planted: false, short: false, only: null, report: false, trace: false,
    events: false, worker: false,
  };
  for (let i = 0; i < words.length; i++) {
    const word = (): string => words[++i] ?? '';
    const next = (): number => (/^\d+(\.\d+)?$/.test(words[i + 1] ?? '') ? Number(words[++i]) : Number.NaN);
    switch (words[i]) {
      case '--seed': options.from = BigInt(next() || 1); options.seeds = 1; break;
      case '--seeds': options.seeds = next(); break;
      case '--from': options.from = BigInt(next() || 1); break;
      case '--minutes': options.minutes = next(); options.seeds = Number.POSITIVE_INFINITY; break;
      case '--twice': options.twice = next(); break;
      case '--once': options.twice = 0; break;
      case '--jobs': options.jobs = next(); break;
      case '--faults': options.faults = word().split(','); break;
      case '--planted': options.planted = true; break;
      case '--short': options.short = true; break;
      case '--only': options.only = word(); break;
      case '--report': options.report = true; break;
      case '--trace': options.trace = true; break;
      case '--events': options.events = true; break;
      case '--worker': options.worker = true; break;
      default: return null;
    }
  }
  return [options.seeds, options.minutes, options.twice, options.jobs].some(Number.isNaN) ? null : options;
}

const DIR = join(process.cwd(), 'build', 'sim');

function print(text: string): void {
  process.stdout.write(`${text}\n`);
}

function add(to: Map<string, number>, counts: Record<string, number>): void {
  for (const [name, count] of Object.entries(counts)) to.set(name, (to.get(name) ?? 0) + count);
}

/** A probe that so many seeds reach, or fewer, is named with one of them. */
const FEW = 20;

/** What all seeds together have done. */
class Totals {
  passed = 0;
  failed = 0;
  operations = 0;
  readonly counts = new Map<string, number>();
  /** Name of a probe → seeds that reached it, and the one that was done first. */
  readonly probes = new Map<string, { seeds: number; first: bigint }>();

  take(result: TaskResult): void {
    this.operations += result.operations;
    add(this.counts, result.counts);
    for (const [name, count] of Object.entries(result.probes)) {
      if (count > 0) this.probes.set(name, { first: result.seed, ...this.probes.get(name), seeds: (this.probes.get(name)?.seeds ?? 0) + 1 });
    }
  }

  report(): void {
    const missing = registeredProbes().filter((name) => !this.probes.has(name));
    const faults = FAULT_NAMES.filter((name) => !this.counts.has(name));
    print(`counts: ${[...this.counts].sort().map(([name, count]) => `${name} ${count}`).join(', ')}`);
    print(`probes reached: ${registeredProbes().length - missing.length} of ${registeredProbes().length}`);
    for (const [name, { seeds, first }] of [...this.probes].sort()) if (seeds <= FEW) print(`  ${seeds} seeds reached, seed ${first} first: ${name}`);
    for (const name of missing) print(`  no seed reached: ${name}`);
    for (const name of faults) print(`  no seed drew: ${name}`);
  }
}

/** One seed, once or twice; once more with its trace if it failed. */
async function oneSeed(pool: WorkerPool, seed: bigint, isTwice: boolean, options: Options, totals: Totals): Promise<void> {
  const task = (run: number): Task => ({
    seed, run, trace: options.trace && run === 1 ? 'print' : 'none', events: options.events, planted: '', faults: options.faults,
  });
  const runs = isTwice ? [1, 2] : [1];
  const results = await Promise.all(runs.map((run) => pool.run(task(run))));
  const failures = [...new Set(results.flatMap((result) => result.failures))];
  const [first, second] = results;
  if (!first) return;
  const isRepeated = (other: TaskResult): boolean => other.hash === first.hash;
  const apart = (other: TaskResult): string => `not deterministic: trace hash ${first.hash}, then ${other.hash}; --events shows where they part`;
  if (second && failures.length === 0 && !isRepeated(second)) failures.push(apart(second));
  totals.take(first);
  if (failures.length === 0) {
    totals.passed++;
    for (const run of runs) for (const file of [traceFile, eventsFile]) rmSync(file(DIR, seed, run), { force: true });
    print(`seed ${seed}: well, ${first.operations} operations, ${first.faults} faults, ${(first.virtualMs / 1000).toFixed(0)} virtual s, trace ${first.hash}${second ? ' twice' : ''}`);
    return;
  }
  totals.failed++;
  if (!options.trace) {
    const told = await pool.run({ ...task(1), trace: 'file' });
    if (!isRepeated(told)) failures.push(apart(told));
  }
  const only = options.faults ? ` --faults "${options.faults.join(',')}"` : '';
  print(`seed ${seed}: FAILED\n  ${failures.slice(0, 5).join('\n  ')}\n  repeat: npm run sim -- --seed ${seed}${only}\n  trace:  ${traceFile(DIR, seed, 1)}`);
}

async function seeds(options: Options, pool: WorkerPool): Promise<number> {
  const totals = new Totals();
  const startedMs = performance.now();
  const running = new Set<Promise<void>>();
  // Thousands of seeds take hours: whoever cannot wait gets the sums of those that have run.
  let isOver = false;
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => (isOver = true));
  for (let i = 0; i < options.seeds && !isOver; i++) {
    if (options.minutes > 0 && performance.now() - startedMs > options.minutes * 60_000) break;
    const work = oneSeed(pool, options.from + BigInt(i), i < options.twice, options, totals).finally(() => running.delete(work));
    running.add(work);
    if (running.size >= options.jobs + 1) await Promise.race(running);
  }
  await Promise.all(running);
  if (options.report) totals.report();
  print(`${totals.operations} operations in ${((performance.now() - startedMs) / 1000).toFixed(0)} s`);
  print(`${totals.passed} passed, ${totals.failed} failed`);
  return totals.failed > 0 ? 1 : 0;
}

interface PlantedTry {
  seed: bigint;
  /** What was noticed; null: nothing. */
  caught: string | null;
  /** What was wrong without the fault; null: nothing, as it must be. */
  wrong: string | null;
}

/** A seed with the fault, and if that is noticed, without it. */
async function plantedSeed(pool: WorkerPool, fault: PlantedFault, seed: bigint): Promise<PlantedTry> {
  const task: Task = { seed, run: 0, trace: 'none', events: false, planted: fault.name, faults: fault.faults };
  const [caught] = (await pool.run(task)).failures;
  if (caught === undefined) return { seed, caught: null, wrong: null };
  const [wrong] = (await pool.run({ ...task, isControl: true })).failures;
  if (wrong !== undefined) await pool.run({ ...task, isControl: true, trace: 'file' });
  return { seed, caught, wrong: wrong ?? null };
}

/** A test of the tests: every planted fault must be caught within its number of seeds, and the same seeds pass without it. */
async function planted(options: Options, pool: WorkerPool): Promise<number> {
  const faults = PLANTED.filter((fault) => options.only === null || fault.name === options.only);
  let missed = 0;
  for (const fault of faults) {
    const tries: PlantedTry[] = [];
    const isEnough = (): boolean => options.short && tries.some((one) => one.caught !== null);
    for (let first = 0; first < fault.seeds && !isEnough(); first += options.jobs) {
      const batch = Array.from({ length: Math.min(options.jobs, fault.seeds - first) }, (_, i) => options.from + BigInt(first + i));
      tries.push(...(await Promise.all(batch.map((seed) => plantedSeed(pool, fault, seed)))));
    }
    const caught = tries.filter((one) => one.caught !== null);
    const wrong = tries.filter((one) => one.wrong !== null);
    if (caught.length === 0 || wrong.length > 0) missed++;
    print(`"${fault.name}": ${caught.length === 0 ? 'NOT CAUGHT' : 'caught'} by ${caught.length} of ${tries.length} seeds`);
    if (caught[0]) print(`  seed ${caught[0].seed}: ${caught[0].caught}`);
    for (const one of wrong) print(`  seed ${one.seed} FAILS without it too: ${one.wrong}\n  trace: ${traceFile(DIR, one.seed, 0)}`);
  }
  print(`${faults.length - missed} passed, ${missed} failed`);
  return missed > 0 ? 1 : 0;
}

async function main(words: readonly string[]): Promise<number> {
  const options = parse(words);
  if (!options) {
    process.stdout.write(HELP);
    return words.includes('--help') ? 0 : 2;
  }
  mkdirSync(DIR, { recursive: true });
  const pool = new WorkerPool(fileURLToPath(import.meta.url), options.jobs);
  try {
    return await (options.planted ? planted(options, pool) : seeds(options, pool));
  } finally {
    pool.stop();
  }
}

if (process.argv.includes('--worker')) runWorker(DIR);
else process.exitCode = await main(process.argv.slice(2));
