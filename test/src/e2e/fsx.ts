// SPDX-License-Identifier: GPL-2.0-or-later
// fsx through the C ABI (core/native/client/test/fsx.cpp): random operations of any alignment, sizes, snapshots and clones on an image, with and
// without the write-back cache, in pools of copies and erasure-coded ones; in the long form an OSD dies and returns meanwhile.

import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import type { Lab } from '../lab/index.js';
import type { Story, StoryContext } from './scenario.js';

const SIZE = 6 * 1024 ** 2;

interface Round {
  pool: string;
  seed: number;
  ops: number;
  args: readonly string[];
}

async function fsx(lab: Lab, { pool, seed, ops, args }: Round, say: (text: string) => void): Promise<void> {
  const program = join(lab.programs.buildDir, 'bin', 'vitastor_fsx');
  assert.ok(existsSync(program), `${program} is missing: npm run build makes it`);
  const image = `fsx${seed}`;
  await lab.createImage(image, String(SIZE), ['-p', pool]);
  const cli = [...lab.programs.cli, '--config_path', lab.configPath].map((word) => `'${word}'`).join(' ');
  const result = await lab.command('fsx', [
    program, '--conf', lab.configPath, '--image', image, '--cli', cli, '--seed', String(seed), '--ops', String(ops), '--max-size', String(2 * SIZE), ...args,
  ], { timeoutMs: 900_000 });
  assert.equal(result.code, 0, `${pool}, seed ${seed}: ${result.stdout}${result.stderr}`);
  say(`${pool}, seed ${seed}: ${result.stdout.trimEnd().split('\n').pop() ?? ''}`);
}

const story: Story = {
  name: 'fsx',
  short: true,
  run: async ({ lab: make, long, say }: StoryContext) => {
    const lab = await make({});
    await lab.startEtcd();
    await lab.startMonitor();
    for (const osd of [1, 2, 3]) await lab.startOsd(osd, { etcd_stats_interval: 1 });
    await lab.createPool('testpool', { size: 2, minSize: 1, pgCount: 4 });
    await lab.createPool('ecpool', { size: 3, minSize: 2, pgCount: 4, args: ['--scheme', 'ec', '--parity_chunks', '1', '-f'] });
    const ops = long ? 8000 : 1200;
    const first = long ? Number(process.env['VITASTOR_E2E_SEED'] ?? Date.now() % 100_000) : 1;
    say(`seeds from ${first} on`);
    const shapes: readonly { pool: string; args: readonly string[] }[] = [
      { pool: 'testpool', args: ['--writeback'] },
      { pool: 'ecpool', args: ['--exclusive'] },
      ...(long ? [
        { pool: 'testpool', args: [] },
        { pool: 'ecpool', args: ['--writeback', '--exclusive'] },
        { pool: 'testpool', args: ['--writeback', '--align', '512', '--depth', '32'] },
        { pool: 'testpool', args: ['--writeback', '--align', '4096', '--depth', '32'] },
      ] : []),
    ];
    let running = true;
    const rounds = (async () => {
      for (const [i, shape] of shapes.entries()) await fsx(lab, { ...shape, seed: first + i, ops }, say);
    })().finally(() => { running = false; });
    // Held here, so that it is not lost while an OSD comes back.
    const outcome = rounds.then(() => null, (error: unknown) => error);
    let deaths = 0;
    while (long && running) {
      const osd = 1 + deaths % 3;
      await lab.osds.get(osd)?.kill9();
      deaths++;
      await lab.startOsd(osd, { etcd_stats_interval: 1 });
      await lab.waitActive({ clean: true, timeoutMs: 120_000 });
      // Some operations in peace.
      await new Promise((resolve) => { setTimeout(resolve, 3000); });
    }
    const error = await outcome;
    if (error) throw error;
    if (long) say(`${deaths} deaths of OSDs meanwhile`);
  },
};

export const FSX_STORIES: readonly Story[] = [story];
