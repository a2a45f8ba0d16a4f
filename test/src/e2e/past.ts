// SPDX-License-Identifier: GPL-2.0-or-later
// What has gone wrong in clusters of Vitastor's past, by name: an OSD that reappears with old content, only a stale OSD alive, peers that
// vanish while a PG peers, misplaced objects that nobody moves after several changes in a row, a disk that is full and gets room again.

import assert from 'node:assert/strict';
import { renameSync } from 'node:fs';
import { type Lab, sleep, until } from '../lab/index.js';
import { dice, fioReadBack, fioVerify, type Story } from './scenario.js';

const MEGABYTES = 32;

/** Contents that can be told apart. */
type Pattern = '0x11111111' | '0x22222222' | '0x33333333';

function patternArgs(image: string, pattern: Pattern, megabytes: number): string[] {
  return [`-name=${image}`, `-image=${image}`, '-bs=64k', `-size=${megabytes}M`, '-iodepth=16', '-direct=1', '-verify=pattern', `-verify_pattern=${pattern}`, '-verify_fatal=1'];
}

async function fill(lab: Lab, pattern: Pattern, image = 'testimg', megabytes = MEGABYTES): Promise<void> {
  const written = await lab.fio(['-rw=randwrite', '-do_verify=0', ...patternArgs(image, pattern, megabytes)]);
  assert.equal(written.code, 0, written.stdout.slice(-2000) + written.stderr);
}

async function holds(lab: Lab, pattern: Pattern, when: string): Promise<void> {
  const read = await lab.fio(['-rw=read', ...patternArgs('testimg', pattern, MEGABYTES)]);
  assert.equal(read.code, 0, `${when}: testimg does not hold ${pattern}:\n${read.stdout.slice(-2000)}${read.stderr}`);
}

async function clusterOf(lab: Lab, osds: number, poolArgs: readonly string[], pgCount: number): Promise<void> {
  await lab.startEtcd();
  await lab.startMonitor();
  for (let num = 1; num <= osds; num++) await lab.startOsd(num, { etcd_stats_interval: 1 });
  const made = await lab.cli(['create-pool', 'testpool', ...poolArgs, '-n', String(pgCount), '--failure_domain', 'host']);
  assert.equal(made.code, 0, made.stdout + made.stderr);
  await lab.waitActive({ clean: true });
  await lab.createImage('testimg', '256M');
}

/** Every OSD in turn is away, so that each copy has to serve. */
async function everyCopyHolds(lab: Lab, pattern: Pattern, when: string): Promise<void> {
  for (const num of lab.osds.keys()) {
    await lab.osds.get(num)?.stop();
    await lab.waitActive();
    await holds(lab, pattern, `${when}, OSD ${num} is away`);
    await lab.startOsd(num);
    await lab.waitActive({ clean: true, timeoutMs: 120_000 });
  }
}

/** Newest durable write of its log that an OSD has reported. */
async function sequenceOf(lab: Lab, osd: number): Promise<number> {
  const stats = JSON.parse((await lab.etcd.get(`${lab.prefix}/osd/stats/${osd}`)) ?? '{}') as { store?: { log_sequence?: number } };
  return stats.store?.log_sequence ?? 0;
}

/**
 * The disk of an OSD is put back as it was some time ago: what it holds is older than what the others have, and must not be served. The OSD
 * refuses it; told to take it, it is brought up to date by the others.
 */
const oldContent: Story = {
  name: 'old-content-reappears',
  short: false,
  run: async ({ lab: make, say }) => {
    for (const poolArgs of [['-s', '2', '--pg_minsize', '1'], ['--ec', '2+1', '--pg_minsize', '2']]) {
      const lab = await make({ osdBytes: 512 << 20 });
      await clusterOf(lab, 3, poolArgs, 16);
      await fill(lab, '0x11111111');
      const reports = { timeoutMs: 30_000, diagnose: () => lab.diagnose() };
      const before = await until('OSD 2 has reported what it wrote', async () => (await sequenceOf(lab, 2)) || undefined, reports);
      await lab.osds.get(2)?.stop();
      const backup = `${lab.osdFile(2)}.old`;
      const copied = await lab.command('cp', ['cp', '--sparse=always', lab.osdFile(2), backup]);
      assert.equal(copied.code, 0, copied.stderr);
      await lab.startOsd(2);
      await lab.waitActive({ clean: true });
      await fill(lab, '0x22222222');
      await lab.waitActive({ clean: true });
      // A store that was opened anew and written to numbers its writes 2^20 and more above what it had before.
      await until('OSD 2 has reported what it wrote since', async () => (await sequenceOf(lab, 2)) > before + 2 ** 19, reports);
      say(`${poolArgs.join(' ')}: OSD 2 comes back as it was before all of it was overwritten`);
      await lab.osds.get(2)?.stop();
      renameSync(backup, lab.osdFile(2));
      const refused = await lab.startOsd(2, {}, { wait: false });
      const exit = await until('it is refused', () => refused.exit ?? undefined, { timeoutMs: 60_000, diagnose: () => refused.story() });
      assert.equal(exit.code, 1);
      assert.match(refused.lastLines().join('\n'), /the store of OSD 2 is older than what it has reported.*--allow_old_disk/);
      const reading = holds(lab, '0x22222222', 'while the old OSD comes back');
      const reported = await sequenceOf(lab, 2);
      await lab.startOsd(2, { allow_old_disk: true });
      await reading;
      await lab.waitActive({ clean: true, timeoutMs: 120_000 });
      await holds(lab, '0x22222222', 'when all PGs are clean');
      // From now on it is held to what it has reported since.
      await until('it has reported', async () => (await sequenceOf(lab, 2)) !== reported, { timeoutMs: 30_000, diagnose: () => lab.diagnose() });
      await lab.osds.get(2)?.stop();
      await lab.startOsd(2, { allow_old_disk: false });
      await lab.waitActive({ clean: true });
      await everyCopyHolds(lab, '0x22222222', 'after the old OSD was brought up to date');
      await lab.stopAll();
    }
  },
};

/** The only OSDs that are up have not seen the newest writes: the PGs stay incomplete, and go on when one of those that have is back. */
const onlyStale: Story = {
  name: 'only-a-stale-osd',
  short: true,
  run: async ({ lab: make, long, say }) => {
    const schemes = [
      { args: ['-s', '2', '--pg_minsize', '1'], osds: 2, stale: 2 },
      { args: ['-s', '3', '--pg_minsize', '1'], osds: 3, stale: 2 },
      { args: ['--ec', '2+1', '--pg_minsize', '2'], osds: 3, stale: 2 },
    ];
    for (const { args, osds, stale } of long ? schemes : schemes.slice(0, 1)) {
      const lab = await make();
      await clusterOf(lab, osds, args, 8);
      await fill(lab, '0x11111111');
      await lab.osds.get(stale)?.kill9();
      await lab.waitActive();
      await fill(lab, '0x22222222');
      say(`${args.join(' ')}: those that took the newest writes die, OSD ${stale} comes back`);
      // One of them is enough to leave too few that know: with two copies and EC 2+1 any one, with three copies all.
      const knowing = [...lab.osds.keys()].filter((num) => num !== stale);
      const dying = args.includes('--ec') ? knowing.slice(0, 1) : knowing;
      await Promise.all(dying.map((num) => lab.osds.get(num)?.kill9()));
      const served: string[] = [];
      await lab.startOsd(stale);
      await until('the PGs are incomplete', async () => (await lab.pools())[0]?.states.get('incomplete') === 8, { timeoutMs: 60_000, diagnose: () => lab.diagnose() });
      const unwatch = await lab.etcd.watch(`${lab.prefix}/pg/state/`, (event) => {
        if (!event.deleted && event.value.includes('"active"')) served.push(event.key);
      });
      let ended = false;
      const reading = holds(lab, '0x22222222', 'when the others are back').finally(() => (ended = true));
      reading.catch(() => undefined);
      await sleep(3000);
      assert.equal(ended, false, 'a reader waits');
      assert.deepEqual(served, [], 'no PG has been active');
      unwatch();
      await Promise.all(dying.map((num) => lab.startOsd(num)));
      await reading;
      await lab.waitActive({ clean: true, timeoutMs: 120_000 });
      await everyCopyHolds(lab, '0x22222222', 'in the end');
      await lab.stopAll();
    }
  },
};

/** An OSD dies, and as soon as the PGs that it was in begin to move, another one; also both come back while the PGs still peer. */
const vanishing: Story = {
  name: 'peers-vanish-while-peering',
  short: false,
  run: async ({ lab: make, say }) => {
    for (const poolArgs of [['-s', '3', '--pg_minsize', '1'], ['--ec', '2+2', '--pg_minsize', '2']]) {
      const lab = await make({ supervise: true });
      await clusterOf(lab, 4, poolArgs, 64);
      const draw = dice(poolArgs.length);
      let done = false;
      let rounds = 0;
      const writing = (async (): Promise<void> => {
        for (; rounds === 0 || !done; rounds++) {
          await fioVerify(lab, { depth: 16, seconds: 4, megabytes: 12, args: [`-randseed=${rounds + 1}`, `-offset=${(rounds % 8) * 24}M`] });
        }
      })();
      writing.catch(() => (done = true));
      let kills = 0;
      let moving: () => void = () => undefined;
      const unwatch = await lab.etcd.watch(`${lab.prefix}/pg/state/`, () => moving());
      for (let i = 0; i < 12 && !done; i++) {
        const first = 1 + draw(4);
        const second = 1 + ((first + draw(3)) % 4);
        const moved = new Promise<void>((resolve) => (moving = resolve));
        lab.killOsd(first);
        await Promise.race([moved, sleep(10_000)]);
        await sleep(draw(60));
        lab.killOsd(second);
        kills += 2;
        await Promise.all([first, second].map((num) => lab.osds.get(num)?.exited));
        await sleep(draw(1500));
        await Promise.all([first, second].map((num) => lab.startOsd(num)));
        if (i % 3 === 2) await lab.waitActive({ timeoutMs: 120_000, clean: true });
      }
      done = true;
      await writing;
      unwatch();
      await lab.waitActive({ timeoutMs: 120_000, clean: true });
      say(`${poolArgs.join(' ')}: ${kills} OSDs killed, half of them when PGs began to move; ${rounds} runs of fio`);
      await lab.stopAll();
    }
  },
};

/** OSDs are emptied and filled again faster than objects can follow: in the end every object is where it belongs, and nowhere else. */
const quickChanges: Story = {
  name: 'misplaced-after-quick-changes',
  short: false,
  run: async ({ lab: make, say }) => {
    const lab = await make({ config: { recovery_queue_depth: 2, recovery_sleep_us: 2000, recovery_tune_interval: 0 } });
    await clusterOf(lab, 5, ['-s', '2', '--pg_minsize', '1'], 32);
    await fill(lab, '0x11111111', 'testimg', 128);
    let done = false;
    let rounds = 0;
    const writing = (async (): Promise<void> => {
      for (; rounds === 0 || !done; rounds++) {
        await fioVerify(lab, { depth: 16, seconds: 4, megabytes: 12, args: [`-randseed=${rounds + 1}`, `-offset=${128 + (rounds % 4) * 24}M`] });
      }
    })();
    writing.catch(() => (done = true));
    const changes: [number, number][] = [[4, 0], [5, 0], [4, 1], [1, 0], [5, 1], [1, 1], [2, 0.5], [4, 0], [2, 1], [3, 0], [3, 1]];
    for (const [osd, reweight] of changes) {
      const before = await lab.etcd.get(`${lab.prefix}/pg/config`);
      await lab.etcd.put(`${lab.prefix}/config/osd/${osd}`, JSON.stringify({ reweight }));
      await until(`the monitor moves PGs for reweight ${reweight} of OSD ${osd}`, async () => (await lab.etcd.get(`${lab.prefix}/pg/config`)) !== before, { timeoutMs: 60_000, diagnose: () => lab.diagnose() });
      await sleep(700);
    }
    done = true;
    await writing;
    await lab.waitActive({ timeoutMs: 180_000, clean: true });
    const used = JSON.parse((await lab.etcd.get(`${lab.prefix}/pg/config`)) ?? '{}') as { items?: Record<string, Record<string, { osd_set: number[] }>> };
    assert.ok(Object.values(used.items?.['1'] ?? {}).every((pg) => !pg.osd_set.includes(4)), 'no PG lies on OSD 4');
    await until('OSD 4 is empty', async () => {
      const space = JSON.parse((await lab.etcd.get(`${lab.prefix}/osd/space/4`)) ?? '{}') as Record<string, Record<string, number>>;
      return Object.values(space).flatMap((inodes) => Object.values(inodes)).every((bytes) => bytes === 0);
    }, { timeoutMs: 90_000, diagnose: () => lab.diagnose() });
    const inodes = await lab.etcd.prefix(`${lab.prefix}/osd/space/`);
    say(`${changes.length} changes, ${rounds} runs of fio, space of ${inodes.size} OSDs looked at`);
    assert.deepEqual(await lab.cliJson(['describe']), [], 'no object is anywhere where it does not belong');
    await holds(lab, '0x11111111', 'after all changes');
    await everyCopyHolds(lab, '0x11111111', 'in the end');
  },
};

/** By default clients wait for room: one copy's disk is full, another's is not; room comes back, and everything becomes clean. */
const fullDisk: Story = {
  name: 'disk-full-waits',
  short: false,
  run: async ({ lab: make, say }) => {
    const lab = await make({ osdBytes: 160 << 20 });
    await clusterOf(lab, 2, ['-s', '2', '--pg_minsize', '1'], 16);
    await lab.createImage('ballast', '64M');
    await fill(lab, '0x33333333', 'ballast', 64);
    let ended = false;
    const megabytes = 112;
    const writing = fioVerify(lab, { depth: 16, seconds: 4, megabytes }).finally(() => (ended = true));
    writing.catch(() => undefined);
    await until('the disks are full', async () => {
      const stats = [...(await lab.etcd.prefix(`${lab.prefix}/osd/stats/`)).values()].map((text) => JSON.parse(text) as { free: number });
      return stats.length === 2 && stats.every(({ free }) => free < 4 << 20);
    }, { timeoutMs: 60_000, diagnose: () => lab.diagnose() });
    await sleep(2000);
    assert.equal(ended, false, 'the writer waits for room');
    for (const child of lab.osds.values()) assert.equal(child.exit, null, child.story());
    say('full; an image is removed');
    const removed = await lab.cli(['rm', 'ballast'], { timeoutMs: 60_000 });
    assert.equal(removed.code, 0, removed.stdout + removed.stderr);
    await writing;
    await lab.waitActive({ clean: true, timeoutMs: 120_000 });
    await fioReadBack(lab, { megabytes, what: 'what was written to a full cluster' });
    for (const num of [1, 2]) {
      await lab.osds.get(num)?.stop();
      await lab.waitActive();
      await fioReadBack(lab, { megabytes, what: `without OSD ${num}` });
      await lab.startOsd(num);
      await lab.waitActive({ clean: true, timeoutMs: 120_000 });
    }
  },
};

/** One copy's disk is smaller: a write that finds room on one of two copies only must not be left half done. */
const smallerDisk: Story = {
  name: 'disk-full-on-one-copy',
  short: false,
  run: async ({ lab: make, say }) => {
    const lab = await make({ osdBytes: 320 << 20, config: { client_retry_enospc: false } });
    await lab.startEtcd();
    await lab.startMonitor();
    for (const num of [1, 2]) await lab.startOsd(num, { etcd_stats_interval: 1, ...(num === 2 ? { data_size: 96 << 20 } : {}) });
    const made = await lab.cli(['create-pool', 'testpool', '-s', '2', '--pg_minsize', '1', '-n', '16', '--failure_domain', 'host']);
    assert.equal(made.code, 0, made.stdout + made.stderr);
    await lab.waitActive({ clean: true });
    await lab.createImage('testimg', '256M');
    await fill(lab, '0x11111111');
    await lab.createImage('ballast', '128M');
    const full = await lab.fio(['-rw=write', '-do_verify=0', ...patternArgs('ballast', '0x33333333', 128)], { timeoutMs: 60_000 });
    assert.notEqual(full.code, 0, 'the smaller disk is full');
    say('full; the image is removed');
    const removed = await lab.cli(['rm', 'ballast'], { timeoutMs: 60_000 });
    assert.equal(removed.code, 0, removed.stdout + removed.stderr);
    await lab.waitActive({ clean: true, timeoutMs: 120_000 });
    await holds(lab, '0x11111111', 'after the disk was full');
    await fill(lab, '0x22222222');
    await everyCopyHolds(lab, '0x22222222', 'in the end');
  },
};

export const PAST_STORIES: readonly Story[] = [oldContent, onlyStale, vanishing, quickChanges, fullDisk, smallerDisk];
