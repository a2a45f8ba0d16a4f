// SPDX-License-Identifier: GPL-2.0-or-later
// The network falls apart: every OSD and every client is a host of its own, and what they send to each other or to etcd is lost, in both
// directions or in one. fio writes and verifies; a register (lab/register.ts) is written on one side and read on both.

import assert from 'node:assert/strict';
import { join } from 'node:path';
import { membersOfPg } from '../failover.js';
import { type Lab, Network, Register, sleep, until } from '../lab/index.js';
import { dice, fioReadBack, fioVerify, type Story, type StoryContext } from './scenario.js';

const OSDS = [1, 2, 3];
/** The register lies in PG 1, fio behind it. */
const FIO_ARGS = ['-offset=32M'];

interface Setting {
  lab: Lab;
  net: Network;
  /** OSD that leads the PG of the register. */
  victim: number;
  register: Register;
}

/** Runs the story in a program and a network of its own. */
function inOwnNetwork(name: string, short: boolean, run: (context: StoryContext) => Promise<void>): Story {
  return {
    name,
    short,
    run: async (context) => {
      if (Network.isInside) return await run(context);
      const missing = Network.missing();
      if (missing !== null) return context.say(`skipped: this needs ${missing}`);
      const lines: string[] = [];
      const code = await Network.inside([name, ...(context.long ? [] : ['--short'])], (line) => {
        lines.push(line);
        if (line.startsWith('    ')) context.say(line.trim());
      });
      assert.equal(code, 0, lines.slice(-60).join('\n'));
    },
  };
}

/** Three OSDs on a host each; etcd and the monitor on the hub; clients on the hosts `near` (to the majority) and `far` (to the victim). */
async function setUp(make: StoryContext['lab'], options: { poolArgs?: readonly string[]; immediateCommit?: 'all' | 'small' | 'none' } = {}): Promise<Setting> {
  const networks: Network[] = [];
  const lab = await make({ host: '10.77.0.254', immediateCommit: options.immediateCommit ?? 'all', under: (name) => networks[0]?.under(name) ?? [] });
  const net = Network.create(join(lab.dir, 'log'));
  networks.push(net);
  assert.equal(net.hub, lab.host);
  await lab.startEtcd();
  await lab.startMonitor();
  for (const num of OSDS) await lab.startOsd(num, { bind_address: await net.addHost(`osd${num}`) });
  for (const client of ['near', 'far']) await net.addHost(client);
  const made = await lab.cli(['create-pool', 'testpool', ...(options.poolArgs ?? ['-s', '2', '--pg_minsize', '1']), '-n', '16', '--failure_domain', 'host']);
  assert.equal(made.code, 0, made.stdout + made.stderr);
  await lab.waitActive({ clean: true });
  await lab.createImage('testimg', '256M');
  const victim = (await membersOfPg(lab)).primary;
  const register = new Register(lab, 'testimg', 0);
  await register.start('writer-near', 'write', net.under('near'));
  await register.start('reader-near', 'read', net.under('near'));
  await register.start('reader-far', 'read', net.under('far'));
  await until('the register is written and read', () => register.writes > 20 && register.reads > 40, { timeoutMs: 60_000, diagnose: () => lab.diagnose() });
  return { lab, net, victim, register };
}

/** All whole again: PGs clean, nothing lost, every read of the register explained. */
async function healed({ lab, net, register }: Setting, say: (text: string) => void, options: { megabytes: number; onlyAcknowledged?: boolean }): Promise<void> {
  net.heal();
  const before = register.writes;
  await lab.waitActive({ clean: true, timeoutMs: 120_000 });
  await until('the register is written on', () => register.writes > before + 20, { timeoutMs: 60_000, diagnose: () => lab.diagnose() });
  await register.stop();
  const figures = register.check(options);
  say(`${figures.writes} writes, ${[...figures.reads.values()].join(' and ')} reads of the register; its longest pause ${figures.pauseMs} ms`);
  await fioReadBack(lab, { megabytes: options.megabytes, args: FIO_ARGS, what: 'what fio wrote during the partition cannot be read' });
  for (const child of lab.daemons()) assert.equal(child.exit, null, child.story());
  await net.stop();
}

type Loss = (net: Network, victim: string, hub: string, peers: readonly string[]) => void;

/** Without etcd an OSD gives everything up: the others go on while it is still away. */
const AWAY: Readonly<Record<string, Loss>> = {
  'from etcd alone': (net, victim, hub) => net.cut(victim, hub),
  'from etcd and the other OSDs': (net, victim, hub, peers) => [hub, ...peers].forEach((other) => net.cut(victim, other)),
  'towards etcd': (net, victim, hub) => net.lose(victim, hub),
  'on the way from etcd': (net, victim, hub) => net.lose(hub, victim),
  'towards everybody': (net, victim, hub, peers) => [hub, ...peers, 'near'].forEach((other) => net.lose(victim, other)),
};

/** With etcd an OSD is up: PGs that need both sides wait for the end of it (semantics 7.3.2). */
const APART: Readonly<Record<string, Loss>> = {
  'from the other OSDs': (net, victim, _hub, peers) => peers.forEach((other) => net.cut(victim, other)),
  'towards the other OSDs': (net, victim, _hub, peers) => peers.forEach((other) => net.lose(victim, other)),
  'on the way from the other OSDs': (net, victim, _hub, peers) => peers.forEach((other) => net.lose(other, victim)),
};

const hostOf = (osd: number): string => `osd${osd}`;
const peersOf = (victim: number): string[] => OSDS.filter((osd) => osd !== victim).map(hostOf);

async function goesOnWithout(context: StoryContext, what: string, loss: Loss): Promise<void> {
  const setting = await setUp(context.lab);
  const { lab, net, victim, register } = setting;
  const key = `${lab.prefix}/osd/state/${victim}`;
  context.say(`OSD ${victim}, which leads the register's PG, is cut ${what}; one reader stays with it`);
  const megabytes = 16;
  const writing = fioVerify(lab, { depth: 16, seconds: 8, megabytes, args: FIO_ARGS, under: net.under('near') });
  writing.catch(() => undefined);
  // The far reader knows nothing but what the victim tells.
  for (const other of net.others('far')) if (other !== hostOf(victim)) net.cut('far', other);
  loss(net, hostOf(victim), 'hub', peersOf(victim));
  await until(`OSD ${victim} is gone from etcd`, async () => (await lab.etcd.get(key)) === undefined, { timeoutMs: 30_000, everyMs: 20, diagnose: () => lab.diagnose() });
  const at = register.writes;
  await until('the register is written while the partition lasts', () => register.writes > at + 100, { timeoutMs: 60_000, diagnose: () => lab.diagnose() });
  const jobs = await writing;
  assert.equal(await lab.etcd.get(key), undefined, `OSD ${victim} is still away when fio has ended`);
  context.say(`fio has written and verified ${megabytes} MB meanwhile; longest pause ${((jobs[0]?.write.latencyUsMax ?? 0) / 1000).toFixed(0)} ms`);
  await healed(setting, context.say, { megabytes });
}

async function waitsFor(context: StoryContext, what: string, loss: Loss): Promise<void> {
  const setting = await setUp(context.lab);
  const { lab, net, victim } = setting;
  context.say(`OSD ${victim}, which leads the register's PG, is cut ${what}, all are up in etcd`);
  const megabytes = 16;
  const writing = fioVerify(lab, { depth: 16, seconds: 8, megabytes, args: FIO_ARGS, under: net.under('near') });
  writing.catch(() => undefined);
  await sleep(1500);
  loss(net, hostOf(victim), 'hub', peersOf(victim));
  const incomplete = async (): Promise<number> => (await lab.pools()).reduce((sum, pool) => sum + (pool.states.get('incomplete') ?? 0), 0);
  await until('PGs of both sides are incomplete', async () => (await incomplete()) > 0, { timeoutMs: 60_000, diagnose: () => lab.diagnose() });
  await sleep(2000);
  const up = [...(await lab.etcd.prefix(`${lab.prefix}/osd/state/`)).keys()];
  assert.equal(up.length, OSDS.length, 'nobody has lost its lease');
  context.say(`${await incomplete()} PGs wait`);
  net.heal();
  await writing;
  await healed(setting, context.say, { megabytes });
}

/** A client cannot reach the primary, everybody else can: it waits, and goes on when it can. */
const cutClient = inOwnNetwork('partition-client', false, async ({ lab: make, say }) => {
  const setting = await setUp(make);
  const { lab, net, victim, register } = setting;
  const host = hostOf(victim);
  const megabytes = 8;
  for (const what of ['both ways', 'towards the primary', 'on the way from the primary']) {
    say(`the writer is cut from OSD ${victim}: ${what}`);
    if (what !== 'on the way from the primary') net.lose('near', host);
    if (what !== 'towards the primary') net.lose(host, 'near');
    await sleep(1000);
    const [writes, reads] = [register.writes, register.reads];
    await until('the other client reads on', () => register.reads > reads + 500, { timeoutMs: 60_000 });
    assert.ok(register.writes <= writes, `${register.writes - writes} writes without a way to the primary`);
    net.heal();
    await until('the writer goes on', () => register.writes > writes + 20, { timeoutMs: 60_000, diagnose: () => lab.diagnose() });
  }
  await fioVerify(lab, { depth: 16, seconds: 2, megabytes, args: FIO_ARGS, under: net.under('near') });
  await healed(setting, say, { megabytes });
});

/** One partition after another, of any kind, of any OSD. */
function partitionStorm(scheme: string, poolArgs: readonly string[], immediateCommit: 'all' | 'none' = 'all'): Story {
  return inOwnNetwork(`partition-storm-${scheme}-${immediateCommit}`, false, async ({ lab: make, say }) => {
    const setting = await setUp(make, { poolArgs, immediateCommit });
    const { lab, net } = setting;
    const draw = dice(scheme.length * 10 + immediateCommit.length);
    const kinds = Object.entries({ ...AWAY, ...APART });
    const counts = new Map<string, number>();
    const endMs = performance.now() + 60_000;
    const megabytes = 12;
    let rounds = 0;
    let broken = false;
    const writing = (async (): Promise<void> => {
      for (; rounds === 0 || performance.now() < endMs; rounds++) {
        await fioVerify(lab, { depth: [1, 16, 64][rounds % 3] ?? 1, seconds: 4, megabytes, args: [...FIO_ARGS, `-randseed=${rounds + 1}`], under: net.under('near') });
      }
    })().catch((error: unknown) => {
      broken = true;
      throw error;
    });
    writing.catch(() => undefined);
    while (!broken && performance.now() < endMs) {
      const osd = OSDS[draw(OSDS.length)] ?? 1;
      const [what, loss] = kinds[draw(kinds.length)] ?? ['', (): void => undefined];
      loss(net, hostOf(osd), 'hub', peersOf(osd));
      counts.set(what, (counts.get(what) ?? 0) + 1);
      await sleep(500 + draw(9000));
      net.heal();
      await sleep(draw(4000));
    }
    net.heal();
    await writing;
    const total = [...counts.values()].reduce((sum, count) => sum + count, 0);
    say(`${total} partitions (${[...counts].map(([what, count]) => `${count} ${what}`).join(', ')}), ${rounds} runs of fio`);
    // Of copies alone: a write under way may be on one of them and not yet on another.
    const isRegular = poolArgs.includes('--local_reads') && !poolArgs.includes('--ec');
    await healed(setting, say, { megabytes, onlyAcknowledged: immediateCommit !== 'all' || isRegular });
  });
}

const storyOf = (name: string, short: boolean, run: typeof goesOnWithout, table: Readonly<Record<string, Loss>>, what: string): Story =>
  inOwnNetwork(name, short, async (context) => {
    const loss = table[what];
    assert.ok(loss);
    await run(context, what, loss);
  });

export const PARTITION_STORIES: readonly Story[] = [
  storyOf('partition-etcd', true, goesOnWithout, AWAY, 'from etcd alone'),
  storyOf('partition-alone', false, goesOnWithout, AWAY, 'from etcd and the other OSDs'),
  storyOf('partition-to-etcd', false, goesOnWithout, AWAY, 'towards etcd'),
  storyOf('partition-from-etcd', false, goesOnWithout, AWAY, 'on the way from etcd'),
  storyOf('partition-deaf', false, goesOnWithout, AWAY, 'towards everybody'),
  storyOf('partition-peers', false, waitsFor, APART, 'from the other OSDs'),
  storyOf('partition-to-peers', false, waitsFor, APART, 'towards the other OSDs'),
  storyOf('partition-from-peers', false, waitsFor, APART, 'on the way from the other OSDs'),
  cutClient,
  partitionStorm('rep2', ['-s', '2', '--pg_minsize', '1']),
  partitionStorm('rep2', ['-s', '2', '--pg_minsize', '1'], 'none'),
  partitionStorm('ec2+1', ['--ec', '2+1', '--pg_minsize', '2']),
  // Readers go to any copy: what an OSD still serves while others go on without it would be stale.
  partitionStorm('rep3-local', ['-s', '3', '--pg_minsize', '1', '--local_reads', 'random']),
  partitionStorm('ec2+1-local', ['--ec', '2+1', '--pg_minsize', '2', '--local_reads', 'nearest']),
];
