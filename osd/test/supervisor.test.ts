// SPDX-License-Identifier: GPL-2.0-or-later
// The supervisor over a clock of its own, an OSD that does as it is told, and an etcd that answers as it is told; then its call to etcd over
// a real socket.

import assert from 'node:assert/strict';
import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { test } from 'node:test';
import { settle, VirtualClock } from '@vitastor/core/testing';
import { revokeLease } from '../src/revoke.js';
import { Supervisor, type FromOsd, type LeaseRecord, type ProcessEnd, type SuperviseMode } from '../src/supervisor.js';
import { superviseMode } from '../src/supervise-words.js';

const record = (lease: string): LeaseRecord => (
  { lease, ttlSeconds: 5, etcd: { addresses: ['http://127.0.0.1:2379'], tls: { ca: '', cert: '', key: '' } } });

class FakeOsd {
  readonly tell: (message: FromOsd) => void;
  asked = 0;
  killed = 0;
  end: (end: ProcessEnd) => void = () => undefined;

  constructor(tell: (message: FromOsd) => void) {
    this.tell = tell;
  }
}

function rig(mode: SuperviseMode) {
  const clock = new VirtualClock();
  const osds: FakeOsd[] = [];
  const revoked: string[] = [];
  const logs: string[] = [];
  const etcd = { failures: 0 };
  const supervisor = new Supervisor({
    mode, clock,
    start: (onMessage) => {
      const osd = new FakeOsd(onMessage);
      osds.push(osd);
      const ended = new Promise<ProcessEnd>((resolve) => (osd.end = resolve));
      return { pid: 100 + osds.length, ended, askToStop: () => void osd.asked++, kill: () => void osd.killed++ };
    },
    revoke: ({ lease }) => {
      if (etcd.failures-- > 0) return Promise.reject(new Error('no answer'));
      revoked.push(lease);
      return Promise.resolve();
    },
    log: (level, text) => logs.push(`${level} ${text}`),
  });
  const code = { value: null as number | null };
  void supervisor.run().then((value) => (code.value = value));
  return {
    clock, osds, revoked, logs, etcd, supervisor, code,
    /** The nth OSD, from 0. */
    osd: (n: number): FakeOsd => {
      const osd = osds[n];
      assert.ok(osd, `OSD was started ${n + 1} times`);
      return osd;
    },
    advance: async (ms: number) => {
      await clock.advance(ms);
      await settle();
    },
  };
}

test('an OSD that dies: the lease that it told of last is revoked, after its end and not before', async () => {
  const r = rig('revoke');
  r.osd(0).tell(record('11'));
  r.osd(0).tell(record('12'));
  await r.advance(10_000);
  assert.deepEqual(r.revoked, []);
  r.osd(0).end({ code: null, signal: 'SIGKILL' });
  await r.advance(0);
  assert.deepEqual(r.revoked, ['12']);
  assert.equal(r.code.value, 137);
  assert.match(r.logs.join('\n'), /info lease 12 of the dead process 101 is revoked.*\nerror the OSD was ended by SIGKILL/);
});

test('an OSD that had no lease, or has given it back: nothing is revoked', async () => {
  const none = rig('revoke');
  none.osd(0).end({ code: 1, signal: null });
  await none.advance(0);
  assert.deepEqual([none.revoked, none.code.value], [[], 1]);
  const back = rig('revoke');
  back.osd(0).tell(record('11'));
  back.osd(0).tell(null);
  back.osd(0).end({ code: 0, signal: null });
  await back.advance(0);
  assert.deepEqual([back.revoked, back.code.value], [[], 0]);
});

test('a second start cannot revoke the lease of the first one again', async () => {
  const r = rig('restart');
  r.osd(0).tell(record('11'));
  r.osd(0).end({ code: null, signal: 'SIGSEGV' });
  await r.advance(200);
  assert.deepEqual(r.revoked, ['11']);
  // Dies before it has a lease, as when the disk is still locked.
  r.osd(1).end({ code: 1, signal: null });
  await r.advance(400);
  assert.equal(r.osds.length, 3);
  assert.deepEqual(r.revoked, ['11']);
});

test('restarts with longer and longer pauses, up to a bound, and from the first one after a good run', async () => {
  const r = rig('restart');
  const pauses: number[] = [];
  for (let n = 0; n < 8; n++) {
    const before = r.clock.nowMs();
    r.osd(n).end({ code: 1, signal: null });
    while (r.osds.length < n + 2) await r.advance(100);
    pauses.push(r.clock.nowMs() - before);
  }
  assert.deepEqual(pauses, [200, 400, 800, 1600, 3200, 6400, 10_000, 10_000]);
  await r.advance(60_000);
  r.osd(8).end({ code: 1, signal: null });
  await r.advance(200);
  assert.equal(r.osds.length, 10);
});

test('etcd does not answer: tried again until it does, and no longer than the lease lives', async () => {
  const r = rig('revoke');
  r.etcd.failures = 3;
  r.osd(0).tell(record('11'));
  r.osd(0).end({ code: null, signal: 'SIGKILL' });
  await r.advance(250);
  assert.deepEqual([r.revoked, r.code.value], [[], null]);
  await r.advance(100);
  assert.deepEqual([r.revoked, r.code.value], [['11'], 137]);
  const never = rig('revoke');
  never.etcd.failures = Number.POSITIVE_INFINITY;
  never.osd(0).tell(record('11'));
  never.osd(0).end({ code: null, signal: 'SIGKILL' });
  await never.advance(5100);
  assert.deepEqual([never.revoked, never.code.value], [[], 137]);
  assert.match(never.logs.join('\n'), /could not be revoked and has run out by itself/);
});

test('a restart does not wait until etcd has confirmed', async () => {
  const r = rig('restart');
  r.etcd.failures = Number.POSITIVE_INFINITY;
  r.osd(0).tell(record('11'));
  r.osd(0).end({ code: null, signal: 'SIGKILL' });
  await r.advance(200);
  assert.equal(r.osds.length, 2);
});

test('stop: the OSD is asked once, a second time kills it; a pause before a restart ends', async () => {
  const r = rig('restart');
  r.supervisor.stop();
  assert.deepEqual([r.osd(0).asked, r.osd(0).killed], [1, 0]);
  r.supervisor.stop();
  assert.deepEqual([r.osd(0).asked, r.osd(0).killed], [1, 1]);
  r.osd(0).end({ code: 0, signal: null });
  await r.advance(0);
  assert.deepEqual([r.osds.length, r.code.value], [1, 0]);
  const pausing = rig('restart');
  pausing.osd(0).end({ code: 1, signal: null });
  await pausing.advance(100);
  pausing.supervisor.stop();
  await pausing.advance(0);
  assert.deepEqual([pausing.osds.length, pausing.code.value], [1, 1]);
});

test('--supervise is taken out of the words', () => {
  assert.deepEqual(superviseMode(['--osd_num', '1', '--supervise', 'revoke', '--x', '2']), { mode: 'revoke', words: ['--osd_num', '1', '--x', '2'] });
  assert.deepEqual(superviseMode(['--supervise=restart']), { mode: 'restart', words: [] });
  assert.deepEqual(superviseMode(['--osd_num', '1']), { mode: null, words: ['--osd_num', '1'] });
});

/** A gateway of etcd that answers as given; the bodies and paths that it was asked. */
async function gateway(status: number, reply: string): Promise<{ address: string; asked: string[]; server: Server }> {
  const asked: string[] = [];
  const server = createServer((request, response) => {
    let body = '';
    request.on('data', (piece: Buffer) => (body += piece.toString()));
    request.on('end', () => {
      asked.push(`${request.url ?? ''} ${body}`);
      response.writeHead(status).end(reply);
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  return { address: `127.0.0.1:${(server.address() as AddressInfo).port}`, asked, server };
}

test('the call: all members at once, a lease that is gone is as good, and one that confirms is enough', async () => {
  const good = await gateway(200, '{}');
  const gone = await gateway(404, '{"error":"etcdserver: requested lease not found","code":5}');
  const bad = await gateway(503, '{"error":"etcdserver: no leader","code":14}');
  const at = (...addresses: string[]): LeaseRecord => ({ ...record('77'), etcd: { addresses, tls: { ca: '', cert: '', key: '' } } });
  try {
    await revokeLease(at(`http://${good.address}`, bad.address), 5000);
    assert.deepEqual(good.asked, ['/v3/lease/revoke {"ID":"77"}']);
    await revokeLease(at(`http://${gone.address}/v3/`), 5000);
    assert.deepEqual(gone.asked, ['/v3/lease/revoke {"ID":"77"}']);
    await assert.rejects(revokeLease(at(bad.address), 5000), /HTTP 503.*no leader/);
  } finally {
    for (const { server } of [good, gone, bad]) server.close();
  }
});
