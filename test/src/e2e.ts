// SPDX-License-Identifier: GPL-2.0-or-later
// npm run e2e: stories on real processes. --short: those of `npm test`, in their short form. --soak: the long ones, again and again.

import { CACHE_STORIES } from './e2e/cache.js';
import { CHAIN_STORIES } from './e2e/chains.js';
import { BACKUP_STORIES } from './e2e/backup.js';
import { COMMAND_STORIES } from './e2e/commands.js';
import { DELETE_STORIES } from './e2e/deletes.js';
import { DISCARD_STORIES } from './e2e/discards.js';
import { DISK_STORIES } from './e2e/disk-tools.js';
import { EC_STORIES } from './e2e/ec.js';
import { EVERYDAY_STORIES } from './e2e/everyday.js';
import { FAILOVER_STORIES } from './e2e/failover.js';
import { FAULT_STORIES } from './e2e/faults.js';
import { FSX_STORIES } from './e2e/fsx.js';
import { IMAGE_MISUSE_STORIES } from './e2e/images-misuse.js';
import { LAYER_STORIES } from './e2e/layers.js';
import { MISUSE_STORIES } from './e2e/misuse.js';
import { OPTION_STORIES } from './e2e/osd-options.js';
import { PARTITION_STORIES } from './e2e/partitions.js';
import { PAST_STORIES } from './e2e/past.js';
import { QEMU_STORIES } from './e2e/qemu.js';
import { BLOCKDEV_STORIES } from './e2e/qemu-blockdev.js';
import { GUEST_STORIES } from './e2e/qemu-guest.js';
import { MIGRATION_STORIES } from './e2e/qemu-migration.js';
import { PEER_STORIES } from './e2e/peer308.js';
import { RANDOM_IMAGE_STORIES } from './e2e/random-images.js';
import { SCRUB_STORIES } from './e2e/scrub.js';
import { STORM_STORIES } from './e2e/storms.js';
import { TLS_STORIES } from './e2e/tls.js';
import { VHOST_STORIES } from './e2e/vhost.js';
import type { Story } from './e2e/scenario.js';
import { Lab, processesNaming } from './lab/index.js';

const STORIES: readonly Story[] = [
  ...COMMAND_STORIES, ...EVERYDAY_STORIES, ...MISUSE_STORIES, ...IMAGE_MISUSE_STORIES, ...FAULT_STORIES, ...FAILOVER_STORIES, ...PEER_STORIES, ...TLS_STORIES,
  ...DISK_STORIES, ...OPTION_STORIES, ...SCRUB_STORIES, ...EC_STORIES, ...DELETE_STORIES, ...STORM_STORIES, ...PARTITION_STORIES,
  ...PAST_STORIES, ...LAYER_STORIES, ...CHAIN_STORIES, ...DISCARD_STORIES, ...RANDOM_IMAGE_STORIES, ...FSX_STORIES, ...VHOST_STORIES,
  ...BACKUP_STORIES, ...CACHE_STORIES,
  ...QEMU_STORIES, ...BLOCKDEV_STORIES, ...GUEST_STORIES, ...MIGRATION_STORIES,
];

const HELP = `npm run e2e [-- NAME...] [--short]

  NAME     ${STORIES.map((story) => story.name).join('\n           ')}
  --short  the stories of npm test, in their short form
  --minutes M  how long kill-osd-loop goes on (default 10)
  --soak   everything in its long form, for hours (--hours N, default 2)
  --list   only names
`;

async function run(story: Story, long: boolean, minutes: number): Promise<Error | null> {
  const labs: Lab[] = [];
  try {
    await story.run({
      long,
      minutes,
      lab: async (options) => {
        const lab = await Lab.create({ ram: true, ...options });
        labs.push(lab);
        return lab;
      },
      say: (text) => process.stdout.write(`    ${text}\n`),
    });
    return null;
  } catch (error) {
    return error instanceof Error ? error : new Error(String(error));
  } finally {
    for (const lab of labs) {
      await lab.stopAll();
      const left = processesNaming(lab.dir);
      if (left.length > 0) process.stdout.write(`    left behind: ${left.map(({ pid, command }) => `${pid} ${command}`).join('; ')}\n`);
    }
  }
}

async function main(words: readonly string[]): Promise<number> {
  const flags = new Set(words.filter((word) => word.startsWith('--')));
  const value = (flag: string, fallback: number): number => (words.includes(flag) ? Number(words[words.indexOf(flag) + 1]) : fallback);
  const hours = value('--hours', 2);
  const minutes = value('--minutes', 10);
  const names = words.filter((word, i) => !word.startsWith('-') && !['--hours', '--minutes'].includes(words[i - 1] ?? ''));
  if (!(hours > 0) || !(minutes > 0)) {
    process.stdout.write(`--hours and --minutes want a number above 0\n\n${HELP}`);
    return 2;
  }
  const unknown = [
    ...names.filter((name) => !STORIES.some((story) => story.name === name)),
    ...[...flags].filter((flag) => !['--short', '--soak', '--list', '--hours', '--minutes', '--help'].includes(flag)),
  ];
  if (unknown.length > 0 || flags.has('--help') || flags.has('--list')) {
    process.stdout.write(unknown.length > 0 ? `unknown: ${unknown.join(', ')}\n\n${HELP}` : HELP);
    return unknown.length > 0 ? 2 : 0;
  }
  const short = flags.has('--short');
  const chosen = STORIES.filter((story) => (names.length > 0 ? names.includes(story.name) : !short || story.short));
  const endMs = performance.now() + hours * 3_600_000;
  let passed = 0;
  let failed = 0;
  do {
    for (const story of chosen) {
      const startedMs = performance.now();
      const error = await run(story, !short, minutes);
      const seconds = ((performance.now() - startedMs) / 1000).toFixed(1);
      if (error) failed++;
      else passed++;
      process.stdout.write(`${error ? 'not ok' : 'ok'} ${story.name} (${seconds} s)\n`);
      if (error) process.stdout.write(`${(error.stack ?? error.message).replace(/^/gm, '    ')}\n`);
    }
  } while (flags.has('--soak') && failed === 0 && performance.now() < endMs);
  process.stdout.write(`${passed} passed, ${failed} failed\n`);
  return failed > 0 ? 1 : 0;
}

process.exitCode = await main(process.argv.slice(2));
