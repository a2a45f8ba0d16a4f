// SPDX-License-Identifier: GPL-2.0-or-later
// Bytes of a copy go bad on the disk of one OSD. With checksums: readers get the good copy, and what nobody reads is found by the
// scrub; both are repaired. Without checksums and with two copies nobody can tell: `describe` shows it, `fix` decides.

import assert from 'node:assert/strict';
import { join } from 'node:path';
import { type CommandResult, type Lab, until } from '../lab/index.js';
import { fioVerify, type Story } from './scenario.js';

const AREA = 4096;
const BLOCK = 131072;
const MEGABYTES = 16;

interface Dump {
  entries: { pool: number; inode: string; stripe: string; writes: { location: number }[] }[];
}

async function disk(lab: Lab, args: readonly string[]): Promise<CommandResult> {
  return await lab.command('vitastor-disk', [process.execPath, join(lab.programs.root, 'cli', 'bin', 'vitastor-disk'), ...args]);
}

/** Stops the OSD, changes one byte in each of the first `count` objects, starts it again. Returns the stripes. */
async function corrupt(lab: Lab, osd: number, first: number, count: number): Promise<string[]> {
  await lab.osds.get(osd)?.stop();
  const file = lab.osdFile(osd);
  const superblock = JSON.stringify({ osd_num: osd, data_device: file, data_offset: AREA });
  const written = await lab.command('write-sb', ['sh', '-c', `echo "$3" | "$0" "$1" write-sb --force "$2"`, process.execPath,
    join(lab.programs.root, 'cli', 'bin', 'vitastor-disk'), file, superblock]);
  assert.equal(written.code, 0, written.stderr);
  const dumped = await disk(lab, ['dump-meta', file]);
  assert.equal(dumped.code, 0, dumped.stderr);
  const entries = (JSON.parse(dumped.stdout) as Dump).entries.filter((entry) => entry.pool === 1);
  entries.sort((a, b) => Number(a.stripe) - Number(b.stripe));
  const victims = entries.slice(first, first + count);
  assert.equal(victims.length, count);
  for (const victim of victims) {
    const at = (victim.writes[0]?.location ?? 0) + 3 * 4096 + 77;
    const dd = await lab.command('dd', ['sh', '-c', `printf x | dd of="$0" bs=1 seek=${at} conv=notrunc status=none`, file]);
    assert.equal(dd.code, 0, dd.stderr);
  }
  await lab.startOsd(osd);
  await lab.waitActive({ clean: true });
  return victims.map((victim) => victim.stripe);
}

async function configure(lab: Lab, more: Record<string, unknown>): Promise<void> {
  await lab.etcd.put(`${lab.prefix}/config/global`, JSON.stringify({ immediate_commit: 'all', ...more }));
}

async function nextScrubs(lab: Lab): Promise<number[]> {
  return ((await lab.cliJson(['pg-list'])) as { next_scrub: number }[]).map((pg) => pg.next_scrub);
}

/** Every PG is scrubbed from here on once. */
async function scrubAll(lab: Lab): Promise<void> {
  const pgs = (await lab.cliJson(['pg-list'])) as { pool_id: number; pg_num: number }[];
  await configure(lab, { auto_scrub: true, scrub_interval: '1s', no_scrub: false });
  // Planned again means: done since.
  const start = Math.floor(Date.now() / 1000);
  await until('every PG was scrubbed', async () => (await nextScrubs(lab)).every((next) => next > start + 2), { timeoutMs: 60_000, everyMs: 200, diagnose: () => lab.diagnose() });
  assert.ok(pgs.length > 0);
  await configure(lab, { no_scrub: true });
}

async function readBack(lab: Lab): Promise<void> {
  const back = await lab.fio(['-name=verify', '-image=testimg', '-rw=randread', '-bs=4k', `-size=${MEGABYTES}M`, '-verify=crc32c', '-verify_fatal=1', '-iodepth=8']);
  assert.equal(back.code, 0, back.stdout + back.stderr);
}

const describeJson = async (lab: Lab, ...args: string[]): Promise<{ inode: string; stripe: string; osd_num: number; inconsistent?: boolean }[]> =>
  (await lab.cliJson(['describe', ...args])) as { inode: string; stripe: string; osd_num: number; inconsistent?: boolean }[];

const scrub: Story = {
  name: 'scrub',
  short: true,
  run: async ({ lab: make, say }) => {
    const lab = await make({ osdBytes: 256 * 1024 ** 2 });
    await lab.startEtcd();
    await lab.startMonitor();
    await lab.startOsd(1, { data_offset: AREA });
    await lab.startOsd(2, { data_offset: AREA, data_csum_type: 'none' });
    await lab.createPool('testpool', { size: 2, minSize: 1, pgCount: 4 });
    await lab.createImage('testimg', '64M');
    await fioVerify(lab, { depth: 16, seconds: 1, megabytes: MEGABYTES });
    await lab.waitActive({ clean: true });
    assert.deepEqual(await describeJson(lab), []);

    say('a copy with checksums goes bad: reads are right, and what is read is repaired');
    const stripes = await corrupt(lab, 1, 0, 100);
    await readBack(lab);
    await lab.waitActive({ clean: true });
    say('the scrub finds the others');
    await scrubAll(lab);
    await lab.waitActive({ clean: true });
    assert.deepEqual(await describeJson(lab), []);
    await lab.osds.get(1)?.stop();
    const check = await disk(lab, ['check', lab.osdFile(1)]);
    assert.equal(check.code, 0, `${stripes.length} objects were damaged, after the scrub: ${check.stdout.slice(0, 2000)}${check.stderr}`);
    await lab.startOsd(1);
    await lab.waitActive({ clean: true });

    say('a copy without checksums goes bad: two copies that differ');
    const [stripe] = await corrupt(lab, 2, 7, 1);
    await scrubAll(lab);
    const found = await describeJson(lab, '--object-state', 'inconsistent');
    assert.deepEqual(found.map(({ osd_num, inconsistent }) => [osd_num, inconsistent]), [[1, true], [2, true]]);
    assert.equal(Number(found[0]?.stripe), Number(stripe));
    assert.equal(Number(stripe) % BLOCK, 0);
    const status = await lab.cli(['pg-list', 'has_inconsistent']);
    assert.match(status.stdout, /active\+has_inconsistent/);
    const text = await lab.cli(['describe']);
    assert.match(text.stdout, /^0x1000000000001:0x[0-9a-f]+ part 0 on OSD 1 inconsistent\n0x1000000000001:0x[0-9a-f]+ part 0 on OSD 2 inconsistent\n$/);
    const both = await lab.cli(['fix', '--objects', JSON.stringify(found), '--bad-osds', '1,2']);
    assert.equal(both.code, 5, both.stdout);
    const fixed = await lab.cliJson(['fix', '--objects', JSON.stringify(found), '--bad-osds', '2']) as { osd_num: number }[];
    assert.deepEqual(fixed.map((copy) => copy.osd_num), [2]);
    await lab.waitActive({ clean: true });
    assert.deepEqual(await describeJson(lab), []);
    await readBack(lab);
    // Proof that the bad copy is gone: the other OSD leaves.
    await lab.osds.get(1)?.stop();
    await lab.waitActive();
    await readBack(lab);
  },
};

export const SCRUB_STORIES: readonly Story[] = [scrub];
