// SPDX-License-Identifier: GPL-2.0-or-later
// npm run bench: figures beside raw figures of the same run. Not a test: only --check looks at targets.

import { clusterBenchmark, footprintBenchmark, sharedImageBenchmark } from './bench/cluster.js';
import { contextsBenchmark } from './bench/contexts.js';
import { diffBenchmark } from './bench/diff.js';
import { ecClusterBenchmark } from './bench/ec-cluster.js';
import { erasureBenchmark } from './bench/erasure.js';
import { failoverBenchmark } from './bench/failover.js';
import { type Benchmark, describe, type Figure, meets } from './bench/figures.js';
import { layersBenchmark } from './bench/layers.js';
import { listingBenchmark } from './bench/listing.js';
import { qemuBenchmark } from './bench/qemu.js';
import { rebalanceBenchmark } from './bench/rebalance.js';
import { rawBenchmark } from './bench/raw.js';
import { storeBenchmark } from './bench/store.js';
import { storeObjectsBenchmark } from './bench/store-objects.js';
import { Lab, type LabOptions } from './lab/index.js';

async function inLab<T>(lab: Lab, run: (lab: Lab) => Promise<T>): Promise<T> {
  try {
    return await run(lab);
  } finally {
    await lab.stopAll();
  }
}

async function withLab<T>(run: (lab: Lab) => Promise<T>): Promise<T> {
  return await inLab(await Lab.create({ ram: true }), run);
}

async function withOptions<T>(options: LabOptions, run: (lab: Lab) => Promise<T>): Promise<T> {
  return await inLab(await Lab.create({ ram: true, ...options }), run);
}

async function withDiskLab<T>(run: (lab: Lab) => Promise<T>): Promise<T> {
  return await inLab(await Lab.create(), run);
}

const BENCHMARKS: readonly Benchmark[] = [
  rawBenchmark(withLab), clusterBenchmark(withLab), sharedImageBenchmark(withLab), contextsBenchmark(withLab), footprintBenchmark(withLab),
  storeBenchmark(withLab, withDiskLab), storeObjectsBenchmark(withLab), erasureBenchmark(withLab), ecClusterBenchmark(withLab),
  rebalanceBenchmark(withLab), listingBenchmark(withOptions), diffBenchmark(withOptions), layersBenchmark(withLab), qemuBenchmark(withLab),
  failoverBenchmark(withOptions),
];

const HELP = `npm run bench [-- NAME...] [--quick] [--json] [--check]

  NAME     one of: ${BENCHMARKS.map((b) => b.name).join(', ')} (default: all but raw, which is part of cluster)
  --quick  a short form, under a minute
  --json   figures with units and targets on stdout
  --check  prints the figures that miss their target and exits with 1

${BENCHMARKS.map((b) => `  ${b.name.padEnd(14)} ${b.summary}`).join('\n')}
`;

async function main(argv: readonly string[]): Promise<number> {
  const flags = new Set(argv.filter((word) => word.startsWith('-')));
  if (flags.has('--help') || flags.has('-h')) {
    process.stdout.write(HELP);
    return 0;
  }
  const names = argv.filter((word) => !word.startsWith('-'));
  const unknown = [
    ...names.filter((name) => !BENCHMARKS.some((b) => b.name === name)),
    ...[...flags].filter((flag) => !['--quick', '--json', '--check'].includes(flag)),
  ];
  if (unknown.length > 0) {
    process.stderr.write(`unknown: ${unknown.join(', ')}\n\n${HELP}`);
    return 2;
  }
  const quick = flags.has('--quick');
  const json = flags.has('--json');
  const chosen = BENCHMARKS.filter((b) => (names.length > 0 ? names.includes(b.name) : b.name !== 'raw' && !(quick && b.name !== 'cluster')));
  const figures: Figure[] = [];
  for (const benchmark of chosen) {
    const made = await benchmark.run({
      seconds: quick ? 2 : 10,
      repeats: quick ? 1 : 3,
      progress: (text) => process.stderr.write(`# ${text}\n`),
    });
    if (!json) for (const figure of made) process.stdout.write(`${describe(figure)}\n`);
    figures.push(...made);
  }
  if (json) process.stdout.write(`${JSON.stringify({ figures }, null, 2)}\n`);
  const missed = figures.filter((figure) => !meets(figure));
  if (!flags.has('--check')) return 0;
  for (const figure of missed) process.stderr.write(`missed: ${describe(figure)}\n`);
  return missed.length > 0 ? 1 : 0;
}

process.exitCode = await main(process.argv.slice(2));
