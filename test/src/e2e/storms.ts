// SPDX-License-Identifier: GPL-2.0-or-later
// Whole clusters in bad weather: OSDs, monitors and members of etcd die in random order under every scheme and commit mode, pools change
// their shape under load, a rebalance is interrupted again and again. fio writes and verifies all the time; in the end everything is clean.

import assert from 'node:assert/strict';
import { type Lab, Register, sleep, until } from '../lab/index.js';
import { dice, fioVerify, type Story } from './scenario.js';

type Mode = 'all' | 'small' | 'none';

interface Scheme {
  readonly name: string;
  readonly osds: number;
  /** Options of create-pool. */
  readonly args: readonly string[];
  /** As many OSDs may be away at once while clients go on. */
  readonly losses: number;
}

const SCHEMES: readonly Scheme[] = [
  { name: 'rep2', osds: 3, args: ['-s', '2', '--pg_minsize', '1'], losses: 1 },
  { name: 'rep3', osds: 3, args: ['-s', '3', '--pg_minsize', '1'], losses: 2 },
  { name: 'xor2+1', osds: 3, args: ['--scheme', 'xor', '-s', '3', '--parity_chunks', '1', '--pg_minsize', '2'], losses: 1 },
  { name: 'ec2+2', osds: 7, args: ['--ec', '2+2', '--pg_minsize', '2'], losses: 2 },
  { name: 'ec4+2', osds: 7, args: ['--ec', '4+2', '--pg_minsize', '4'], losses: 2 },
];

async function cluster(lab: Lab, osds: number, poolArgs: readonly string[], etcds: number): Promise<void> {
  await lab.startEtcd(etcds);
  await lab.startMonitor('mon1');
  await lab.startMonitor('mon2');
  for (let num = 1; num <= osds; num++) await lab.startOsd(num);
  const made = await lab.cli(['create-pool', 'testpool', ...poolArgs, '-n', '8', '--failure_domain', 'host']);
  assert.equal(made.code, 0, made.stdout + made.stderr);
  await lab.waitActive({ clean: true });
  await lab.createImage('testimg', '256M');
}

/** fio with verification, round after round, until `ended`; gives the number of rounds. */
async function verifyUntil(lab: Lab, ended: () => boolean): Promise<number> {
  let rounds = 0;
  for (; rounds === 0 || !ended(); rounds++) {
    await fioVerify(lab, {
      name: `storm${rounds}`, depth: [1, 16, 64][rounds % 3] ?? 1, seconds: 4, megabytes: 12,
      args: [`-offset=${(rounds % 8) * 24}M`, `-randseed=${rounds + 1}`],
    });
  }
  return rounds;
}

/** One process dies and comes back, then another one: never more at once than clients can bear. */
async function weather(lab: Lab, scheme: Scheme, seed: number, ended: () => boolean): Promise<Record<string, number>> {
  const die = dice(seed);
  const deaths = { OSDs: 0, monitors: 0, 'etcd members': 0 };
  while (!ended()) {
    await sleep(200 + die(1500));
    const what = die(6);
    if (what === 0) {
      const name = `mon${1 + die(2)}`;
      deaths.monitors++;
      await lab.monitors.get(name)?.kill9();
      await sleep(die(1500));
      await lab.startMonitor(name);
    } else if (what === 1) {
      const name = `etcd${1 + die(3)}`;
      deaths['etcd members']++;
      await lab.etcds.get(name)?.kill9();
      await sleep(die(1500));
      await lab.restartEtcd(name);
    } else {
      const first = 1 + die(scheme.osds);
      const count = 1 + die(scheme.losses);
      const numbers = Array.from({ length: count }, (_, i) => 1 + ((first - 1 + i) % scheme.osds));
      deaths.OSDs += numbers.length;
      await Promise.all(numbers.map((num) => lab.osds.get(num)?.kill9()));
      await sleep(die(4000));
      await Promise.all(numbers.map((num) => lab.startOsd(num)));
    }
  }
  return deaths;
}

function storm(scheme: Scheme, mode: Mode, short: boolean): Story {
  return {
    name: `storm-${scheme.name}-${mode}`,
    short,
    run: async ({ lab: make, long, say }) => {
      const lab = await make({ immediateCommit: mode });
      await cluster(lab, scheme.osds, scheme.args, 3);
      const endMs = performance.now() + (long ? 40_000 : 8000);
      let broken = false;
      const ended = (): boolean => broken || performance.now() > endMs;
      const dying = weather(lab, scheme, scheme.osds * 100 + mode.length, ended);
      const verifying = verifyUntil(lab, ended).catch((error: unknown) => {
        broken = true;
        throw error;
      });
      const [deaths, rounds] = await Promise.all([dying, verifying]);
      await lab.waitActive({ timeoutMs: 120_000, clean: true });
      say(`${Object.entries(deaths).map(([what, count]) => `${count} ${what}`).join(', ')} killed, ${rounds} runs of fio`);
      assert.ok(Object.values(deaths).some((count) => count > 0), 'nothing was killed');
    },
  };
}

/** pg_count and pg_size change under load: clients wait, nothing is lost. */
const shapeChanges: Story = {
  name: 'pool-changes-under-load',
  short: true,
  run: async ({ lab: make, long, say }) => {
    const lab = await make();
    await cluster(lab, 3, ['-s', '2', '--pg_minsize', '1'], 1);
    let done = false;
    const verifying = verifyUntil(lab, () => done);
    verifying.catch(() => (done = true));
    const changes = long ? [['-n', '16'], ['-s', '3'], ['-n', '6'], ['-s', '2'], ['-n', '24'], ['-n', '8']] : [['-n', '12'], ['-s', '3']];
    for (const change of changes) {
      if (done) break;
      const changed = await lab.cli(['modify-pool', 'testpool', ...change, '--force']);
      assert.equal(changed.code, 0, changed.stdout + changed.stderr);
      const [flag = '', value = ''] = change;
      await until(`all PGs have taken ${change.join(' ')}`, async () => {
        const items = JSON.parse((await lab.etcd.get('/vitastor/pg/config')) ?? '{}') as { items?: Record<string, Record<string, { osd_set: unknown[] }>> };
        const pgs = Object.values(items.items?.['1'] ?? {});
        return flag === '-n' ? pgs.length === Number(value) : pgs.length > 0 && pgs.every((pg) => pg.osd_set.length === Number(value));
      }, { timeoutMs: 60_000, diagnose: () => lab.diagnose() });
      await lab.waitActive({ timeoutMs: 120_000, clean: true });
    }
    done = true;
    say(`${changes.length} changes, ${await verifying} runs of fio`);
  },
};

/** An OSD is emptied while it and others die again and again; what was written before is read and verified in the meantime. */
const interruptedRebalance: Story = {
  name: 'rebalance-interrupted',
  short: false,
  run: async ({ lab: make, say }) => {
    const lab = await make({ config: { recovery_queue_depth: 1, recovery_sleep_us: 5000, recovery_tune_interval: 0 } });
    await cluster(lab, 4, ['-s', '2', '--pg_minsize', '1'], 1);
    const job = ['-name=base', '-image=testimg', '-bs=64k', '-size=192M', '-iodepth=8', '-direct=1', '-verify=crc32c', '-verify_fatal=1', '-randseed=7'];
    const written = await lab.fio([...job, '-rw=write', '-do_verify=0'], { timeoutMs: 120_000 });
    assert.equal(written.code, 0, written.stdout.slice(-2000) + written.stderr);
    await lab.etcd.put('/vitastor/config/osd/4', JSON.stringify({ reweight: 0 }));
    await until('the monitor empties OSD 4', async () => !/"osd_set":\[[^\]]*\b4\b/.test((await lab.etcd.get('/vitastor/pg/config')) ?? '4'), { timeoutMs: 60_000 });
    let kills = 0;
    for (const num of [4, 1, 4, 2, 3, 4]) {
      await sleep(1200);
      await lab.osds.get(num)?.kill9();
      kills++;
      const read = lab.fio([...job, '-rw=read', '-verify_only=1'], { timeoutMs: 180_000 });
      await sleep(700);
      await lab.startOsd(num);
      const { code, stdout, stderr } = await read;
      assert.equal(code, 0, `what was written cannot be read after ${kills} kills:\n${stdout.slice(-2000)}${stderr}`);
    }
    await lab.waitActive({ timeoutMs: 180_000, clean: true });
    await until('OSD 4 is empty', async () => {
      const used = JSON.parse((await lab.etcd.get('/vitastor/osd/space/4')) ?? '{}') as Record<string, Record<string, number>>;
      return Object.values(used).flatMap((inodes) => Object.values(inodes)).every((bytes) => bytes === 0);
    }, { timeoutMs: 90_000 });
    say(`${kills} OSDs killed during the rebalance`);
  },
};

const LOCAL: readonly Scheme[] = [
  { name: 'local-reads', osds: 4, args: ['-s', '3', '--pg_minsize', '1', '--local_reads', 'random'], losses: 2 },
  { name: 'local-reads-ec', osds: 4, args: ['--ec', '2+1', '--pg_minsize', '2', '--local_reads', 'nearest'], losses: 1 },
];

/**
 * Readers go to any copy, or to the chunk's holder, of a PG that is clean, while OSDs die and come back: no read is older than what was
 * acknowledged; of chunks also none older than what was read before.
 */
const localReads = (scheme: Scheme): Story => ({
  name: `storm-${scheme.name}`,
  short: false,
  run: async ({ lab: make, say }) => {
    const lab = await make();
    await cluster(lab, scheme.osds, scheme.args, 3);
    const register = new Register(lab, 'testimg', 200 * 1024 ** 2);
    await register.start('writer', 'write');
    for (const name of ['reader-1', 'reader-2', 'reader-3']) await register.start(name, 'read');
    const endMs = performance.now() + 60_000;
    let broken = false;
    const ended = (): boolean => broken || performance.now() > endMs;
    const dying = weather(lab, scheme, 77, ended);
    const verifying = verifyUntil(lab, ended).catch((error: unknown) => {
      broken = true;
      throw error;
    });
    const [deaths, rounds] = await Promise.all([dying, verifying]);
    await lab.waitActive({ timeoutMs: 120_000, clean: true });
    await register.stop();
    const figures = register.check({ onlyAcknowledged: !scheme.args.includes('--ec') });
    say(`${deaths['OSDs']} OSDs killed, ${rounds} runs of fio; ${figures.writes} writes, ${[...figures.reads.values()].join(', ')} reads of the register`);
  },
});

export const STORM_STORIES: readonly Story[] = [
  ...SCHEMES.flatMap((scheme) => (['all', 'small', 'none'] as const).map((mode) => storm(scheme, mode, scheme.name === 'ec2+2' && mode === 'none'))),
  shapeChanges, interruptedRebalance, ...LOCAL.map(localReads),
];
