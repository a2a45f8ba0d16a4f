// SPDX-License-Identifier: GPL-2.0-or-later
// An OSD goes away in each way there is: that the cluster goes on, and by which means. How long it takes is a matter of `bench -- failover`.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { memberOf, membersOfPg, pauseOf, startFailoverCluster, type Change, type Role } from '../failover.js';
import { findPrograms, type Lab, sleep, until } from '../lab/index.js';
import { fioVerify, smallCluster, type Story } from './scenario.js';

const ROLES: readonly Role[] = ['primary', 'secondary'];

/** Decimal id of the lease that holds an OSD's key. */
async function leaseOf(lab: Lab, osd: number): Promise<string> {
  return (await lab.etcd.origin(`${lab.prefix}/osd/state/${osd}`))?.lease ?? '';
}

/**
 * The transactions that the PG's return took, one after the other, each at least a round trip: from the key that goes, up to `active`. A
 * new primary needs the monitor's pg/config and its lock in between, the old one nothing.
 */
function assertShortWay(role: Role, changes: readonly Change[]): void {
  const from = changes.findIndex(({ what }) => what === 'osd gone');
  const to = changes.findIndex(({ what }, i) => i > from && what === 'active');
  const all = changes.map(({ what }) => what).join(', ');
  assert.ok(from >= 0 && to > from, `the key goes, then the PG is active: ${all}`);
  const between = new Set(changes.slice(from + 1, to).filter(({ revision }) => revision !== changes[from]?.revision).map(({ revision }) => revision));
  const most = role === 'primary' ? 3 : 4; // A primary that stays may have told of its waiting; pg/config is written beside it.
  assert.ok(between.size <= most, `at most ${most} transactions between the key that goes and active: ${all}`);
}

const killed: Story = {
  name: 'failover-kill',
  short: true,
  run: async ({ lab: make, say }) => {
    const lab = await make({ supervise: true });
    await startFailoverCluster(lab);
    for (const role of ROLES) {
      await lab.waitActive({ clean: true });
      const osd = memberOf(await membersOfPg(lab), role);
      const pid = lab.osdPid(osd);
      const lease = await leaseOf(lab, osd);
      const supervisor = lab.osds.get(osd);
      assert.ok(pid !== 0 && supervisor && pid !== supervisor.pid, 'the OSD is a child of its supervisor');
      assert.equal(Number.parseInt(readFileSync(`/proc/${pid}/coredump_filter`, 'utf8'), 16), 0x10, 'core dumps have no buffers in them');
      const pause = await pauseOf(lab, 'kill', role, { afterMs: 3000 });
      assert.equal(pause.osd, osd);
      await supervisor.waitForLine(new RegExp(`lease ${lease} of the dead process ${pid} is revoked`), 1);
      assert.deepEqual(supervisor.exit, { code: 137, signal: null });
      assertShortWay(role, pause.changes);
      assert.ok(pause.completions > 0);
      say(`${role}: ${pause.ms.toFixed(0)} ms; ${pause.changes.map(({ what }) => what).join(', ')}`);
    }
  },
};

const stopped: Story = {
  name: 'failover-stop',
  short: true,
  run: async ({ lab: make, say }) => {
    const lab = await make({ supervise: true });
    await startFailoverCluster(lab);
    for (const role of ROLES) {
      await lab.waitActive({ clean: true });
      const osd = memberOf(await membersOfPg(lab), role);
      const supervisor = lab.osds.get(osd);
      const pause = await pauseOf(lab, 'stop', role, { afterMs: 2000 });
      assert.deepEqual(supervisor?.exit, { code: 0, signal: null });
      const lines = supervisor.lastLines(400).join('\n');
      assert.match(lines, /OSD ends: stopped/);
      assert.doesNotMatch(lines, /is revoked/, 'an OSD that stops gives its lease back by itself');
      assertShortWay(role, pause.changes);
      say(`${role}: ${pause.ms.toFixed(0)} ms; ${pause.changes.map(({ what }) => what).join(', ')}`);
    }
  },
};

const silent: Story = {
  name: 'failover-silence',
  short: true,
  run: async ({ lab: make, long, say }) => {
    const lab = await make({ supervise: true });
    await startFailoverCluster(lab);
    for (const role of long ? ROLES : (['primary'] as const)) {
      await lab.waitActive({ clean: true });
      const osd = memberOf(await membersOfPg(lab), role);
      const child = lab.osds.get(osd);
      const pid = lab.osdPid(osd);
      // The client's connection to the frozen OSD stays open: only the end of the lease can free it within the run.
      const pause = await pauseOf(lab, 'silence', role, { afterMs: 9000 });
      assert.ok(pause.ms < 9000, `the client goes on while the OSD is still frozen: ${pause.ms.toFixed(0)} ms`);
      assertShortWay(role, pause.changes);
      assert.equal(lab.osdPid(osd), pid, 'it was not started again');
      await child?.waitForLine(/has lost its lease/, 1);
      assert.doesNotMatch(child?.lastLines(400).join('\n') ?? '', /is revoked/);
      say(`${role}: ${pause.ms.toFixed(0)} ms; ${pause.changes.map(({ what }) => what).join(', ')}`);
    }
  },
};

const shortOutage: Story = {
  name: 'failover-etcd-outage',
  short: true,
  run: async ({ lab: make, say }) => {
    const lab = await make({ supervise: true });
    await startFailoverCluster(lab);
    await lab.waitActive({ clean: true });
    const pids = [1, 2, 3].map((osd) => lab.osdPid(osd));
    const leases = await Promise.all([1, 2, 3].map((osd) => leaseOf(lab, osd)));
    const outageMs = 1500;
    const client = lab.fio([
      '-name=client', '-image=failover', '-rw=randwrite', '-bs=4k', '-size=128k', '-iodepth=1', '-direct=1', '-time_based', '-ramp_time=1', '-runtime=8',
    ]);
    await sleep(2500);
    const killedMs = performance.now();
    await lab.etcds.get('etcd1')?.kill9();
    await sleep(outageMs);
    await lab.restartEtcd('etcd1');
    const tookMs = performance.now() - killedMs;
    const { code, jobs, stdout } = await client;
    assert.equal(code, 0, stdout);
    const gapMs = (jobs[0]?.write.latencyUsMax ?? Number.POSITIVE_INFINITY) / 1000;
    assert.ok(gapMs < tookMs, `the client goes on without etcd: longest pause ${gapMs.toFixed(0)} ms of an outage of ${tookMs.toFixed(0)} ms`);
    assert.deepEqual([1, 2, 3].map((osd) => lab.osdPid(osd)), pids, 'no OSD was started again');
    // On a busy machine etcd may take longer to start than leases last: then there is no short outage to look at.
    if (tookMs < 2500)
      assert.deepEqual(await Promise.all([1, 2, 3].map((osd) => leaseOf(lab, osd))), leases, `every OSD has kept its lease in ${tookMs.toFixed(0)} ms`);
    else say(`etcd was away for ${tookMs.toFixed(0)} ms: leases are not compared`);
    say(`longest pause ${gapMs.toFixed(0)} ms`);
  },
};

const lostSupervisor: Story = {
  name: 'failover-supervisor',
  short: true,
  run: async ({ lab: make }) => {
    const lab = await make({ supervise: true });
    await startFailoverCluster(lab);
    const supervisor = lab.osds.get(1);
    const pid = lab.osdPid(1);
    assert.ok(supervisor && pid !== 0);
    supervisor.expectExit();
    process.kill(supervisor.pid, 'SIGKILL');
    await until('the OSD stops in order when its supervisor is gone', () => supervisor.lastLines().some((line) => line.includes('OSD ends: stopped')), {
      timeoutMs: 30_000, diagnose: () => supervisor.story(),
    });
    await supervisor.exited;
    assert.equal(await leaseOf(lab, 1), '', 'its lease was given back');
    await lab.startOsd(1);
    await lab.waitActive({ clean: true });
  },
};

/** etcd speaks TLS only and wants certificates, from the supervisor too. */
const overTls: Story = {
  name: 'failover-tls',
  short: false,
  run: async ({ lab: make }) => {
    const lab = await make({ supervise: true, etcdTls: true });
    await startFailoverCluster(lab);
    const supervisor = lab.osds.get(1);
    const lease = await leaseOf(lab, 1);
    lab.killOsd(1);
    await supervisor?.waitForLine(new RegExp(`lease ${lease} of the dead process \\d+ is revoked`), 30_000);
    await until('its key is gone', async () => (await leaseOf(lab, 1)) === '', { timeoutMs: 5000 });
  },
};

/** safety.md 3: a restart waits for the disk, which belongs to the dead process until its last write has ended; here somebody else holds it. */
const restarted: Story = {
  name: 'failover-restart',
  short: true,
  run: async ({ lab: make }) => {
    const lab = await make({ supervise: 'restart' });
    await startFailoverCluster(lab);
    const supervisor = lab.osds.get(1);
    const pid = lab.osdPid(1);
    assert.ok(supervisor && pid !== 0);
    // Waits for the lock that the OSD holds, and has it as soon as the dead process has let go.
    const holder = spawn('flock', [lab.osdFile(1), '-c', 'echo held; read line'], { stdio: ['pipe', 'pipe', 'inherit'] });
    try {
      const held = new Promise<void>((resolve) => holder.stdout.once('data', () => resolve()));
      process.kill(pid, 'SIGKILL');
      await held;
      await supervisor.waitForLine(/is in use by another process/, 60_000);
      await supervisor.waitForLine(/the OSD ended with exit code 1; it is started again in \d+ ms/, 60_000);
      assert.equal(await leaseOf(lab, 1), '', 'the lease of the dead one is revoked, and nobody else has one');
    } finally {
      holder.stdin.end('\n');
    }
    await until('the OSD is up again', async () => (await leaseOf(lab, 1)) !== '', { timeoutMs: 60_000, diagnose: () => supervisor.story() });
    assert.notEqual(lab.osdPid(1), pid);
    assert.equal(supervisor.exit, null);
    await lab.waitActive({ clean: true });
  },
};

/** safety.md 1: what keeps the promise is the engine, which no stall of JavaScript can hold up. */
const stalledControl: Story = {
  name: 'failover-stalled-control',
  short: true,
  run: async ({ lab: make, say }) => {
    const stallMs = 10_000;
    const preload = join(findPrograms().root, 'test', 'dist', 'src', 'lab', 'stall.js');
    const lab = await make({ osdEnv: { NODE_OPTIONS: `--import=${preload}`, STALL_MS: String(stallMs) } });
    await smallCluster(lab);
    const osd = (await membersOfPg(lab)).primary;
    const child = lab.osds.get(osd);
    assert.ok(child);
    const { port } = JSON.parse((await lab.etcd.get(`${lab.prefix}/osd/state/${osd}`)) ?? '{}') as { port: number };
    const order: string[] = [];
    const unwatch = await lab.etcd.watch(`${lab.prefix}/osd/state/${osd}`, (event) => order.push(event.deleted ? 'key gone' : 'key there'));
    // Says nothing and knows nothing of etcd: only the engine can end this connection.
    const socket = connect({ host: lab.host, port });
    socket.on('error', () => undefined);
    socket.on('close', () => order.push('disconnected'));
    try {
      const writing = fioVerify(lab, { depth: 16, seconds: 14 });
      await sleep(2000);
      const lines = child.lastLines(400).length;
      child.signal('SIGUSR2');
      await until('the OSD is gone from etcd and has fenced itself', () => order.length >= 2, { timeoutMs: stallMs, diagnose: () => order.join(', ') });
      assert.equal(child.lastLines(400).length, lines, 'its JavaScript is still stalled');
      assert.deepEqual(order.slice(0, 2), ['disconnected', 'key gone'], 'the engine has fenced itself before etcd gave the lease up');
      await lab.waitActive({ timeoutMs: 20_000 });
      await writing;
      await child.waitForLine(/has lost its lease|the lease of OSD .* has run out/, 20_000);
      await lab.waitActive({ timeoutMs: 60_000 });
      assert.equal(child.exit, null, 'it has registered again, and did not end');
      say(order.join(', '));
    } finally {
      unwatch();
      socket.destroy();
    }
  },
};

export const FAILOVER_STORIES: readonly Story[] = [killed, stopped, silent, shortOutage, lostSupervisor, overTls, restarted, stalledControl];
